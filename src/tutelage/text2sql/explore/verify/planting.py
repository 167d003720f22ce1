"""Puts the values that a query compares with into the tables it reads, without writing: so that > and >= differ.

A copy of a database has few rows, and seldom one that stands exactly on a query's boundary. A common table expression
of a table's own name stands in front of it; in it every third row holds the value, and every third one that is one
further, independently for each column.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlglot import exp

from tutelage.text2sql.database.schema import Catalog, Column
from tutelage.text2sql.database.sql_text import literal as written
from tutelage.text2sql.database.sql_text import quote
from tutelage.text2sql.explore.spoken import resolve
from tutelage.text2sql.explore.verify.perturb import affinity

_VALUES = 2  # planted in one column


@dataclass(frozen=True, slots=True)
class Planting:
    """Values to find in the columns of tables, as the text that goes before a query."""

    prefix: str  # common table expressions without WITH; empty where there is nothing to plant

    def into(self, sql: str) -> str:
        """Make a query read the tables with the values in them."""
        if not self.prefix:
            return sql
        start = sql.lstrip()
        if start[:5].upper() != "WITH ":
            return f"WITH {self.prefix} {sql}"
        if start[5:].lstrip()[:10].upper() == "RECURSIVE ":
            return sql
        return f"WITH {self.prefix}, {start[5:]}"


def planting(tree: exp.Query, catalog: Catalog) -> Planting:
    """Collect what a qualified query compares columns with."""
    values: dict[str, dict[str, list[str]]] = {}
    for node in tree.find_all(exp.Binary, exp.In, exp.Between):
        column = node.this.this if isinstance(node.this, exp.Cast) else node.this
        if not isinstance(column, exp.Column):
            continue
        known = resolve(column, catalog)
        if known is None or catalog.table(known.table).primary_key == (known.name,):
            continue
        own = values.setdefault(known.table, {}).setdefault(known.name, [])
        for side in _literals(node):
            for value in (side, _beyond(node, side), _another(node, side, known)):
                text = _as_stored(value, known) if value is not None else None
                if text is not None and text not in own and len(own) < _VALUES:
                    own.append(text)
    steps = {step.alias_or_name.casefold() for step in tree.find_all(exp.CTE)}
    parts = [
        _shadow(catalog, table, {name: texts for name, texts in columns.items() if texts})
        for table, columns in values.items()
        if any(columns.values()) and table.casefold() not in steps
    ]
    return Planting(", ".join(parts))


def _literals(node: exp.Expr) -> list[exp.Literal]:
    match node:
        case exp.EQ() | exp.NEQ() | exp.GT() | exp.GTE() | exp.LT() | exp.LTE() | exp.Like():
            sides = [node.expression]
        case exp.In():
            sides = list(node.expressions)
        case exp.Between():
            sides = [node.args["low"], node.args["high"]]
        case _:
            sides = []
    return [side for side in sides if isinstance(side, exp.Literal)]


def _beyond(node: exp.Expr, literal: exp.Literal) -> exp.Literal | None:
    """A number one further, on the side that the comparison takes."""
    step = 1 if isinstance(node, exp.GT | exp.GTE) else -1 if isinstance(node, exp.LT | exp.LTE) else 0
    try:
        number = int(literal.this) + step
    except ValueError:
        return None
    return exp.Literal(this=str(number), is_string=literal.is_string) if step else None


def _another(node: exp.Expr, literal: exp.Literal, column: Column) -> exp.Literal | None:
    """A value that is not the one denied."""
    if not isinstance(node, exp.NEQ) and not isinstance(node.parent, exp.Not):
        return None
    values = [value for value in column.frequent if isinstance(value, str) == literal.is_string]
    other = next((str(value) for value in values if str(value) != literal.this), None)
    return None if other is None else exp.Literal(this=other, is_string=literal.is_string)


def _as_stored(literal: exp.Literal, column: Column) -> str | None:
    """The literal as a cell of the column would be written; None for a number's column that it does not fit."""
    kind = affinity(column)
    if literal.is_string:
        return None if kind in ("INTEGER", "REAL") else written(literal.this.strip("%"))
    if kind == "TEXT":
        return written(str(literal.this))
    return repr(float(literal.this)) if kind == "REAL" else str(literal.this)


def _shadow(catalog: Catalog, table: str, values: Mapping[str, list[str]]) -> str:
    cells = []
    digit = 1
    for column in catalog.table(table).columns:
        name = quote(column.name)
        if column.name not in values:
            cells.append(name)
            continue
        cases = " ".join(f"WHEN {place} THEN {text}" for place, text in enumerate(values[column.name]))
        cell = f"CASE (rowid - 1) / {digit} % 3 {cases} ELSE {name} END"
        if affinity(column) == "TEXT":
            cell = f"CAST({cell} AS TEXT)"  # an expression has no affinity: '5' = 5 would no longer hold
        cells.append(f"{cell} AS {name}")
        digit *= 3
    return f"{quote(table)} AS (SELECT {', '.join(cells)} FROM main.{quote(table)})"
