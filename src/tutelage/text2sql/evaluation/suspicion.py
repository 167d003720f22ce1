"""Golds that a score should not rest on without a word: where a right answer can be wrong, or any answer right."""

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from tutelage.text2sql.database.address import Database
from tutelage.text2sql.evaluation.gold_results import GoldResults

FAILS = "it fails"
TIMES_OUT = "it takes longer than the limit"
EMPTY = "its result is empty: every query with an empty result is right"
ALL_NULL = "its result is nothing but NULL"
UNORDERED_LIMIT = "LIMIT without ORDER BY: which rows it gives is up to the database"
TIE = "a tie at LIMIT: which of the equals it gives is up to the database"


def suspicions(database: Database, sql: str, golds: GoldResults) -> list[str]:
    """What is doubtful about a gold query, from its text, its result, and sometimes another query."""
    result = golds.result(database, sql)
    if result.status == "timeout":
        return [TIMES_OUT]
    if result.status != "ok":
        return [f"{FAILS}: {result.error}"]
    if not result.rows:
        return [EMPTY]
    found = [ALL_NULL] if all(cell is None for row in result.rows for cell in row) else []
    limited = _limit(sql)
    if limited is None:
        return found
    query, rows = limited
    if not query.args.get("order"):
        more = golds.result(database, query.limit(rows + 1).sql(dialect="sqlite"))
        return [*found, UNORDERED_LIMIT] if len(more.rows) > rows else found
    if (tied := _sort_keys(query, rows)) is not None:
        keys = golds.result(database, tied)
        if keys.status == "ok" and len(keys.rows) > rows and keys.rows[rows - 1] == keys.rows[rows]:
            found.append(TIE)
    return found


def _limit(sql: str) -> tuple[exp.Select, int] | None:
    """The query and its limit, if it is a plain SELECT with LIMIT n."""
    if "limit" not in sql.lower():
        return None
    try:
        query = sqlglot.parse_one(sql, dialect="sqlite")
    except (SqlglotError, RecursionError):
        return None
    limit = query.args.get("limit")
    if not isinstance(query, exp.Select) or limit is None or query.args.get("offset"):
        return None
    count = limit.expression
    return (
        (query, int(count.name))
        if isinstance(count, exp.Literal) and count.name.isdigit() and count.name != "0"
        else None
    )


def _sort_keys(query: exp.Select, rows: int) -> str | None:
    """The query that gives what a query sorts by, one row past its limit."""
    if query.args.get("distinct"):
        return None  # the keys beside them would make other rows distinct
    named = {item.alias.lower(): item.this for item in query.expressions if isinstance(item, exp.Alias)}
    keys: list[exp.Expr] = []
    for ordered in query.args["order"].expressions:
        key = ordered.this
        if isinstance(key, exp.Literal):  # ORDER BY 2
            place = int(key.name) if key.name.isdigit() else 0
            if not 0 < place <= len(query.expressions):
                return None
            key = query.expressions[place - 1].unalias()
        elif isinstance(key, exp.Column) and not key.table:
            key = named.get(key.name.lower(), key)
        keys.append(key.copy())
    changed = query.copy()
    changed.set("expressions", keys)
    changed.set(
        "order",
        exp.Order(
            expressions=[_ordered(old, key) for old, key in zip(query.args["order"].expressions, keys, strict=True)]
        ),
    )
    return changed.limit(rows + 1).sql(dialect="sqlite")


def _ordered(old: exp.Expr, key: exp.Expr) -> exp.Expr:
    new = old.copy()
    new.set("this", key.copy())
    return new
