"""What one must know of a database to turn a question into its query, and cannot read in the question."""

from collections.abc import Iterator

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from tutelage.text2sql.database.schema import Catalog, Column, Value
from tutelage.text2sql.database.sql_text import identifier, literal
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.pair import Candidate


def evidence_for(candidate: Candidate, catalog: Catalog, facts: Facts) -> str:
    """Name the codes and null markers that a query uses and its question does not say, as BIRD's evidence does."""
    try:
        tree = sqlglot.parse_one(candidate.sql, dialect="sqlite")
    except (SqlglotError, RecursionError):
        return ""
    known: dict[str, None] = {}
    for column, value in _compared(tree, catalog):
        name = f"{identifier(column.name)} = {literal(value)}"
        if value in facts.nulls(column):
            known[f"{name} means that it is not known"] = None
        elif (meaning := facts.codes(column).get(value)) and str(value) not in candidate.question.split():
            known[f"{meaning} refers to {name}"] = None
    return "; ".join(known)


def _compared(tree: exp.Expr, catalog: Catalog) -> Iterator[tuple[Column, Value]]:
    """The values that a query compares columns with."""
    tables = {table.name.lower(): table for table in catalog.tables}
    aliases = {table.alias_or_name.lower(): table.name.lower() for table in tree.find_all(exp.Table)}
    for node in tree.find_all(exp.Column):
        names = [aliases.get(node.table.lower(), "")] if node.table else list(aliases.values())
        found = [
            column
            for name in dict.fromkeys(names)
            if name in tables
            for column in tables[name].columns
            if column.name.lower() == node.name.lower()
        ]
        around = node.find_ancestor(exp.Predicate, exp.In, exp.Nullif, exp.Select)
        if len(found) == 1 and around is not None and not isinstance(around, exp.Select):
            for said in around.find_all(exp.Literal):
                number = None if said.is_string else float(said.this)
                yield found[0], said.this if number is None else int(number) if number == int(number) else number
