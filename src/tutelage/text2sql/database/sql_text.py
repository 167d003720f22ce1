"""Names and values as SQL."""

import re
from functools import lru_cache

from tutelage.text2sql.database.schema import Dialect, Value

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Words that SQLite, DuckDB, PostgreSQL or MySQL may not take for a name, or that read badly as one.
_RESERVED = {
    "abort", "action", "add", "after", "all", "alter", "always", "analyze", "and", "as", "asc", "attach",
    "autoincrement", "before", "begin", "between", "by", "cascade", "case", "cast", "check", "collate", "column",
    "commit", "conflict", "constraint", "create", "cross", "current", "current_date", "current_time",
    "current_timestamp", "database", "default", "deferrable", "deferred", "delete", "desc", "detach", "distinct",
    "do", "drop", "each", "else", "end", "escape", "except", "exclude", "exclusive", "exists", "explain", "fail",
    "false", "filter", "first", "following", "for", "foreign", "from", "full", "generated", "glob", "group", "groups",
    "having", "if", "ignore", "immediate", "in", "index", "indexed", "initially", "inner", "insert", "instead",
    "intersect", "into", "is", "isnull", "join", "key", "last", "left", "like", "limit", "match", "materialized",
    "natural", "no", "not", "nothing", "notnull", "null", "nulls", "of", "offset", "on", "or", "order", "others",
    "outer", "over", "partition", "plan", "pragma", "preceding", "primary", "query", "raise", "range", "recursive",
    "references", "regexp", "reindex", "release", "rename", "replace", "restrict", "returning", "right", "rollback",
    "row", "rows", "savepoint", "select", "set", "table", "temp", "temporary", "then", "ties", "to", "transaction",
    "trigger", "true", "unbounded", "union", "unique", "update", "user", "using", "vacuum", "values", "view", "virtual",
    "when", "where", "window", "with", "without", "show",
}  # fmt: skip


def quote(name: str) -> str:
    """Quote a name, for a query that nobody reads."""
    return '"' + name.replace('"', '""') + '"'


@lru_cache(maxsize=50_000)
def identifier(name: str, dialect: Dialect = "sqlite") -> str:
    """Quote a name where SQL needs it, for a query or a schema that a person or a model reads.

    PostgreSQL makes an unquoted name lower case, so one with capitals is quoted there.

    >>> identifier("city"), identifier("Free Meal Count (K-12)"), identifier("order")
    ('city', '"Free Meal Count (K-12)"', '"order"')
    >>> identifier("City", "postgresql"), identifier("order", "mysql")
    ('"City"', '`order`')
    """
    plain = _PLAIN.fullmatch(name) and name.lower() not in _RESERVED
    if plain and not (dialect == "postgresql" and name != name.lower()):
        return name
    return "`" + name.replace("`", "``") + "`" if dialect == "mysql" else quote(name)


def literal(value: Value) -> str:
    """Write a value as SQL."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return repr(value)
