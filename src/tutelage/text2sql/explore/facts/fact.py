"""One fact about a database: what it is about, what it says, who says so and how sure that is."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from tutelage.core.errors import DataError
from tutelage.text2sql.database.schema import Column, ForeignKey, Table, Value
from tutelage.text2sql.explore.pair import Json

Source = Literal["person", "descriptions", "documents", "seeds", "catalog", "model", "data"]
Kind = Literal[
    # of a table or a column
    "spoken",  # the noun phrase that a person says for it, in the singular: "hair colour"
    "synonyms",  # other noun phrases for it
    "meaning",  # a sentence
    # of a table
    "persons",  # its rows are people: they, not it
    "label",  # the columns by which people name a row
    "hierarchies",  # columns from the finest to the coarsest: [["city", "state", "country"]]
    # of a column
    "role",  # what it can be asked for: key, name, category, flag, measure, ordinal, year, date, text, code, empty
    "unit",  # "centimetres"
    "format",  # of dates and times in it: strftime's codes, or "epoch seconds", "epoch milliseconds"
    "distribution",  # of a random sample
    "determines",  # the columns of its table that it determines
    # of a value of a column
    "code",  # what the value stands for: 'F' is "female"
    "null",  # the value says that nothing is known
    # of a key
    "key_role",  # what the row that it leads to is to this one: "winning aircraft"
    "verbs",  # what this row does with the row that it leads to: "is stationed at"
    "fan_out",  # how many rows lead to one
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
SOURCES: tuple[Source, ...] = get_args(Source)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a fact is about: a table, one of its columns, a value of a column, or a key to another table.

    Attributes:
        table: The table.
        columns: Empty for the table itself; the column; or the columns of a key.
        refers: The table that a key leads to; None where it is about no key.
        value: The value; None where it is about no value.
    """

    table: str
    columns: tuple[str, ...] = ()
    refers: str | None = None
    value: Value | None = None

    def __str__(self) -> str:
        """Write it as a person reads it."""
        text = ".".join((self.table, ", ".join(self.columns))) if self.columns else self.table
        if self.refers is not None:
            return f"{text} → {self.refers}"
        return text if self.value is None else f"{text} = {self.value!r}"


Named: TypeAlias = Table | Column | ForeignKey


def subject_of(named: Named, *, value: Value | None = None) -> Subject:
    """Name a part of a catalog; ``value`` is one of a column."""
    match named:
        case Table():
            return Subject(named.name)
        case Column():
            return Subject(named.table, (named.name,), value=value)
        case ForeignKey():
            return Subject(named.table, named.columns, refers=named.referred_table)


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact; ``value`` None says that there is nothing to say, which a person may want to hold against a guess."""

    subject: Subject
    kind: Kind
    value: Json
    source: Source
    confidence: float  # that it is right, in [0, 1]

    def to_json(self) -> dict[str, Json]:
        """Give it as one object, as ``facts.jsonl`` holds it.

        ``mark`` is a hash of the value: where it does not fit, a person has edited the line.
        """
        about: dict[str, Json] = {"table": self.subject.table}
        if self.subject.refers is not None:
            about |= {"columns": list(self.subject.columns), "refers": self.subject.refers}
        elif self.subject.columns:
            about["column"] = self.subject.columns[0]
        if self.subject.value is not None:
            about["of"] = self.subject.value
        rest: dict[str, Json] = {"kind": self.kind, "value": self.value, "source": self.source}
        return about | rest | {"confidence": round(self.confidence, 2), "mark": _mark(self.value)}

    @classmethod
    def from_json(cls, record: object, *, place: str) -> "Fact":
        """Read what :meth:`to_json` gave, or what a person made of it, or wrote anew.

        Raises:
            DataError: It is no fact.
        """
        hint = (
            'write {"table": …, "column": …, "kind": …, "value": …}; "of" names a value of the column, and a key has '
            '"columns" and "refers" in place of "column"'
        )
        if not isinstance(record, Mapping) or not isinstance(record.get("table"), str) or "value" not in record:
            raise DataError("facts", f"{place} is no fact", hint)
        kind, value = record.get("kind"), record["value"]
        if kind not in KINDS:
            raise DataError("facts", f"{place}: {kind!r} is no kind of fact", f"take one of {', '.join(KINDS)}")
        if fault := _misfit(kind, value):
            raise DataError("facts", f"{place}: the value of {kind} is {fault}", "see the lines that explore.py wrote")
        columns = record.get("columns", [record["column"]] if record.get("column") is not None else [])
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise DataError("facts", f"{place}: columns are names", hint)
        edited = record.get("mark") != _mark(value) or record.get("source") not in SOURCES
        confidence = record.get("confidence", 1.0)
        return cls(
            subject=Subject(record["table"], tuple(columns), record.get("refers"), record.get("of")),
            kind=kind,
            value=value,
            source="person" if edited else record["source"],
            confidence=1.0 if edited or not isinstance(confidence, int | float) else float(confidence),
        )


_TEXTS: frozenset[Kind] = frozenset({"spoken", "meaning", "role", "unit", "format", "code", "key_role"})
_LISTS: frozenset[Kind] = frozenset({"synonyms", "label", "determines", "verbs"})


def _misfit(kind: Kind, value: Any) -> str | None:
    """Say what a value lacks to be one of its kind."""
    if value is None:
        return None
    if kind in _TEXTS:
        return None if isinstance(value, str) and value.strip() else "no text"
    if kind in _LISTS:
        return None if _is_texts(value) else "no list of texts"
    if kind in ("null", "persons"):
        return None if isinstance(value, bool) else "neither true nor false"
    if kind == "hierarchies":
        return None if isinstance(value, list) and all(map(_is_texts, value)) else "no list of lists of columns"
    return None if isinstance(value, dict) else "no object"


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _mark(value: Json) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
