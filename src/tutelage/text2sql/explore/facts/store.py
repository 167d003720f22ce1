"""The facts of one database: ``facts.jsonl``, and a typed reader of it.

A person may edit the file: a line whose value was changed, and a line without ``mark``, count as theirs and win over
everything that is found again. ``"value": null`` says that there is nothing to say.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tutelage.core.errors import DataError
from tutelage.core.store import write_atomically
from tutelage.text2sql.database.schema import Catalog, Column, ForeignKey, Table, Value
from tutelage.text2sql.explore.facts.fact import KINDS, SOURCES, Fact, Kind, Named, Subject, subject_of
from tutelage.text2sql.explore.pair import Json
from tutelage.text2sql.explore.words import phrase

LIKELY = 0.5  # facts of less confidence stand in the file for a person to judge, and nobody reads them


class Facts:
    """Answers what is known; a catalog's table, column or key names what is asked about."""

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        """Keep of each subject and kind the best fact: a person's, then the one of most confidence."""
        best: dict[tuple[Subject, Kind], Fact] = {}
        for fact in facts:
            key = (fact.subject, fact.kind)
            if key not in best or _rank(fact) > _rank(best[key]):
                best[key] = fact
        self._facts = dict(sorted(best.items(), key=_order))
        self._values: dict[tuple[Subject, Kind], dict[Value, Json]] = {}
        for (subject, kind), fact in self._facts.items():
            if subject.value is not None and fact.value is not None and fact.confidence >= LIKELY:
                of = replace(subject, value=None)
                self._values.setdefault((of, kind), {})[subject.value] = fact.value

    def __iter__(self) -> Iterator[Fact]:
        return iter(self._facts.values())

    def __len__(self) -> int:
        return len(self._facts)

    def merged(self, facts: Iterable[Fact]) -> "Facts":
        """Add facts; where they speak of the same, the better one stays."""
        return Facts([*self, *facts])

    def get(self, named: Named, kind: Kind) -> Json:
        """What is known of a table, a column or a key; None for nothing that is likely."""
        fact = self._facts.get((subject_of(named), kind))
        return fact.value if fact is not None and fact.confidence >= LIKELY else None

    # ---- of tables and columns

    def spoken(self, named: Table | Column) -> str:
        """The noun phrase, in the singular, that a person says for a row of a table, or for a column of it."""
        return _text(self.get(named, "spoken")) or phrase(named.name)

    def synonyms(self, named: Table | Column) -> tuple[str, ...]:
        """Other noun phrases for it."""
        return _texts(self.get(named, "synonyms"))

    def meaning(self, named: Table | Column) -> str:
        """A sentence that says what it is; empty where nobody said it."""
        return _text(self.get(named, "meaning"))

    # ---- of tables

    def persons(self, table: Table) -> bool:
        """Whether its rows are people."""
        return self.get(table, "persons") is True

    def label(self, table: Table) -> tuple[str, ...]:
        """The columns by which people name a row."""
        return _texts(self.get(table, "label"))

    def hierarchies(self, table: Table) -> tuple[tuple[str, ...], ...]:
        """Chains of columns from the finest to the coarsest: city, state, country."""
        chains = self.get(table, "hierarchies")
        return tuple(map(_texts, chains)) if isinstance(chains, list) else ()

    # ---- of columns

    def role(self, column: Column) -> str:
        """What it can be asked for (see ``roles.Role``); empty where it was not looked at."""
        return _text(self.get(column, "role"))

    def unit(self, column: Column) -> str | None:
        """The unit of its numbers: ``centimetres``."""
        return _text(self.get(column, "unit")) or None

    def codes(self, column: Column) -> dict[Value, str]:
        """What its values stand for."""
        return {value: str(text) for value, text in self._values.get((subject_of(column), "code"), {}).items()}

    def nulls(self, column: Column) -> tuple[Value, ...]:
        """The values by which it says that nothing is known: 0, −1, 'N/A'."""
        return tuple(value for value, is_null in self._values.get((subject_of(column), "null"), {}).items() if is_null)

    def date_format(self, column: Column) -> str | None:
        """How its dates are written: strftime's codes, ``epoch seconds`` or ``epoch milliseconds``."""
        return _text(self.get(column, "format")) or None

    def determines(self, column: Column) -> tuple[str, ...]:
        """The columns of its table whose value follows from its own."""
        return _texts(self.get(column, "determines"))

    def distribution(self, column: Column) -> Mapping[str, Json]:
        """Quartiles of numbers or frequent values, from a random sample; empty where there is none."""
        found = self.get(column, "distribution")
        return found if isinstance(found, dict) else {}

    # ---- of keys

    def key_role(self, key: ForeignKey) -> str:
        """What the row that a key leads to is to this one: ``winning aircraft``; empty where nothing is known."""
        return _text(self.get(key, "key_role"))

    def verbs(self, key: ForeignKey) -> tuple[str, ...]:
        """What a row does with the row that its key leads to, in the third person: ``is stationed at``."""
        return _texts(self.get(key, "verbs"))

    def fan_out(self, key: ForeignKey) -> Mapping[str, float]:
        """How many rows lead to one that is led to (``mean``), and the share that none leads to (``without``)."""
        found = self.get(key, "fan_out")
        if not isinstance(found, dict):
            return {}
        return {name: float(number) for name, number in found.items() if isinstance(number, int | float)}

    # ---- files and catalogs

    @classmethod
    def read(cls, path: Path) -> "Facts":
        """Read a file.

        Raises:
            DataError: There is none, or a line of it is no fact.
        """
        if not path.is_file():
            raise DataError("facts", f"no file {path}", "give the facts.jsonl of an exploration, edited or not")
        facts = []
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
            if line.strip():
                place = f"{path}, line {number}"
                try:
                    record = json.loads(line)
                except json.JSONDecodeError as error:
                    raise DataError("facts", f"{place} is not JSON ({error})", "write one JSON object a line") from None
                facts.append(Fact.from_json(record, place=place))
        return cls(facts)

    def write(self, path: Path) -> None:
        """Write a line a fact, those of a table beside each other."""
        lines = [json.dumps(fact.to_json(), ensure_ascii=False) + "\n" for fact in self]
        write_atomically(path, "".join(lines))

    def of_persons(self) -> list[Fact]:
        """The facts that a person wrote or edited."""
        return [fact for fact in self if fact.source == "person"]

    def check(self, catalog: Catalog) -> None:
        """Refuse facts of a person that name what the database does not have.

        Raises:
            DataError: Names the first of them.
        """
        known = {table.name: {column.name for column in table.columns} for table in catalog.tables}
        for fact in self.of_persons():
            about = fact.subject
            if about.table not in known or (about.refers is not None and about.refers not in known):
                raise DataError("facts", f"{about}: {catalog.db_id} has no such table", "correct or delete the line")
            if missing := set(about.columns) - known[about.table]:
                what = f"{about}: {about.table} has no column {', '.join(sorted(missing))}"
                raise DataError("facts", what, "correct or delete the line")

    def described(self, catalog: Catalog) -> Catalog:
        """Give a catalog's columns their meaning, unit, codes and null markers: what prompts show as comments."""

        def column(old: Column) -> Column:
            name, said, others = self.spoken(old), self.meaning(old), self.synonyms(old)
            said = f"{said} (also called {', '.join(others)})".strip() if others else said
            # "height_cm: height" tells a model nothing.
            fresh = set(name.lower().split()) - set(phrase(old.name).lower().split())
            return replace(
                old,
                spoken_name=name if fresh else "",
                description=said,
                value_description=self.values_described(old) or old.value_description,
                comment="",
            )

        tables = tuple(
            replace(
                table,
                comment=self.meaning(table) or table.comment,
                columns=tuple(map(column, table.columns)),
            )
            for table in catalog.tables
        )
        return replace(catalog, tables=tables)

    def values_described(self, column: Column) -> str:
        """What its values stand for, in a line: ``in centimetres; 'F': female; 0: not known``."""
        unit, codes, nulls = self.unit(column), self.codes(column), self.nulls(column)
        parts = [f"in {unit}"] if unit else []
        parts += [f"{value!r}: {text}" for value, text in codes.items() if value not in nulls]
        parts += [f"{value!r}: not known" for value in nulls]
        if (form := self.date_format(column)) and form not in _PLAIN_FORMATS:
            parts.append(f"as {form}")
        return "; ".join(parts)


# What a model reads by itself.
_PLAIN_FORMATS = {"%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y"}


def _rank(fact: Fact) -> tuple[bool, float, int]:
    return fact.source == "person", fact.confidence, -SOURCES.index(fact.source)


def _order(item: tuple[tuple[Subject, Kind], Fact]) -> tuple[object, ...]:
    (about, kind), _ = item
    of = about.value
    value = (of is not None, isinstance(of, str), 0.0 if of is None or isinstance(of, str) else of, str(of))
    return (about.table, about.refers is not None, about.columns, about.refers or "", KINDS.index(kind), value)


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()
