"""What the prompt templates are filled with: the part of the database that a request is about, and shapes to follow."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tutelage.text2sql.database.catalog import Catalog, Column, Table
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.knowledge import JoinShape, Knowledge, Skeleton
from tutelage.text2sql.explore.pair import OPERATORS, Json, Operator, Pair, Walk

_MAX_COLUMNS = 24  # of a table; the walk's own come first
_MAX_TABLES = 6
_NUM_VALUES, _MAX_VALUE = 5, 60  # examples of a column, and characters of each

MEANINGS: Mapping[Operator, str] = {
    "filter": "a condition on rows (WHERE)",
    "join": "something of another table (JOIN … ON)",
    "aggregate": "a count, sum, average, minimum or maximum instead of the rows themselves",
    "group": "one row for each value of something (GROUP BY)",
    "having": "a condition on groups (HAVING)",
    "order": "an order of the rows (ORDER BY)",
    "limit": "only the first rows in that order (LIMIT)",
    "nesting": "a condition that needs a query of its own (a subquery)",
    "set_operation": "a second query whose rows are added, shared or taken away (UNION, INTERSECT, EXCEPT)",
    "cte": "a named step of its own before the query (WITH)",
    "window": "a rank, running total or comparison with other rows (a window function)",
}
# What an operator stands on.
_NEEDS: Mapping[str, str] = {"group": "aggregate", "having": "group", "limit": "order"}
# A query inside a query has clauses of its own.
BRINGS_A_QUERY = frozenset({"nesting", "set_operation", "cte"})


# A query, its question in stiff words, and as people ask it: turns before the request of ``speak.jinja``. They are of
# no database that anything is measured on.
SPOKEN = (
    (
        "SELECT name FROM shop WHERE city = 'Bonn' AND opened > 2005",
        "What are the names of the shops whose city is 'Bonn' and whose opened is greater than 2005?",
        "What are the names of the shops in Bonn that opened after 2005?",
    ),
    (
        "SELECT T2.city, COUNT(*) FROM sale AS T1 JOIN shop AS T2 ON T1.shop_id = T2.id GROUP BY T2.city",
        "For each city of the shops, what is the number of sales?",
        "How many sales were made in each city?",
    ),
    (
        "SELECT AVG(amount), MAX(amount) FROM sale WHERE paid = 'N'",
        "What are the average amount and the maximum amount of the sales whose paid is 'N'?",
        "What are the average and the largest amount of the sales that are not paid?",
    ),
    (
        "SELECT name, city FROM shop ORDER BY opened DESC LIMIT 1",
        "What are the name and the city of the shop with the highest opened?",
        "What is the name of the newest shop, and in which city is it?",
    ),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A mined skeleton, and the operator that it adds."""

    operator: str
    text: str


@dataclass(frozen=True, slots=True)
class ShownColumn:
    """A column as a prompt shows it; empty where nothing is known."""

    name: str
    type: str
    is_key: bool
    meaning: str
    examples: tuple[str, ...]
    values: str  # unit, codes, null markers


@dataclass(frozen=True, slots=True)
class ShownTable:
    """A table as a prompt shows it: the columns that matter."""

    name: str
    comment: str
    num_rows: int | None
    columns: tuple[ShownColumn, ...]


class Templates:
    """The templates in ``prompts/``, one a stage."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("tutelage.text2sql.explore.synthesizers", "prompts"),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
        )

    def fill(self, name: str, values: Mapping[str, Any]) -> list[dict[str, str]]:
        """Make the messages of a request."""
        return [{"role": "user", "content": self.write(name, values)}]

    def write(self, name: str, values: Mapping[str, Any]) -> str:
        """Fill a template."""
        return self._environment.get_template(f"{name}.jinja").render(values).strip()


class Sight:
    """The part of a database that a request shows."""

    def __init__(self, catalog: Catalog, facts: Facts, knowledge: Knowledge) -> None:
        self._catalog, self._facts = catalog, facts
        self._joins = knowledge.joins
        self._skeletons = knowledge.skeletons

    def of_walk(self, walk: Walk) -> list[ShownTable]:
        """Show the walk's columns and their tables' keys."""
        return [self._show(name, walk, said={}, limit=0) for name in walk.tables]

    def around(self, parent: Pair, walk: Walk) -> list[ShownTable]:
        """Show the tables of a pair, those of its walk, and what can be joined to them.

        What semantic exploration said of columns stands in the pair's state, and is shown where nothing else is known.
        """
        names = dict.fromkeys((*parent.tables, *walk.tables))
        for join in self._joins:
            tables = _tables(join)
            if names.keys() & tables:
                names |= dict.fromkeys(sorted(tables))
        said = parent.state.get("meanings")
        assert isinstance(said, dict)
        return [self._show(name, walk, said=said, limit=_MAX_COLUMNS) for name in list(names)[:_MAX_TABLES]]

    def joins(self, shown: Iterable[ShownTable]) -> list[str]:
        """Write how the shown tables are joined."""
        names = {table.name for table in shown}
        return [
            " AND ".join(f"{a[0]}.{a[1]} = {b[0]}.{b[1]}" for a, b in join.on)
            for join in self._joins
            if _tables(join) <= names
        ]

    def next_operators(self, parent: Pair, shown: Iterable[ShownTable]) -> list[Operator]:
        """Name the operators that can be added to a pair."""
        impossible = {*parent.operators} if self.joins(shown) else {*parent.operators, "join"}
        impossible |= {operator for operator, need in _NEEDS.items() if need not in parent.operators}
        return [operator for operator in OPERATORS if operator not in impossible]

    def shapes(self, parent: Pair, operators: Collection[str]) -> list[Skeleton]:
        """Return the mined shapes that have a pair's operators and one of these besides, most frequent first."""
        wanted = [frozenset((*parent.operators, operator)) for operator in operators]
        return [skeleton for skeleton in self._skeletons if frozenset(skeleton.operators) in wanted]

    def _show(self, name: str, walk: Walk, *, said: Mapping[str, Json], limit: int) -> ShownTable:
        """Show a table: the walk's columns, its keys, and others up to the limit."""
        table = self._catalog.table(name)
        keys = {*table.primary_key, *(column for key in table.foreign_keys for column in key.columns)}
        chosen = keys | {column for of_table, column in walk.columns if of_table == name}
        for column in table.columns:
            if len(chosen) >= limit:
                break
            chosen.add(column.name)
        columns = tuple(self._show_column(table, column, said) for column in table.columns if column.name in chosen)
        return ShownTable(table.name, table.comment, table.num_rows, columns)

    def _show_column(self, table: Table, column: Column, said: Mapping[str, Json]) -> ShownColumn:
        return ShownColumn(
            name=column.name,
            type=column.type,
            is_key=column.name in table.primary_key,
            meaning=self._facts.meaning(column) or str(said.get(f"{table.name}.{column.name}", "")),
            examples=tuple(repr(value) for value in column.frequent[:_NUM_VALUES] if len(str(value)) <= _MAX_VALUE),
            values=self._facts.values_described(column) or " ".join(column.value_description.split()),
        )


def _tables(join: JoinShape) -> set[str]:
    return {table for side in join.on for table, _ in side}
