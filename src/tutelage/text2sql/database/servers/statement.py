"""Which statements may run on a server: one query, as sqlglot reads it in the server's dialect.

This is the first of three guards. The server itself is told that the transaction, or the file, is read-only; and its
interface takes a single query (PostgreSQL: a cursor; DuckDB: its own parser is asked as well).
"""

import logging
import re

import sqlglot
from sqlglot import exp

from tutelage.text2sql.database.schema import DIALECTS, Dialect
from tutelage.text2sql.database.servers.functions import ALLOWED

# It says that it does not know a statement; we refuse those, and say so in the result.
logging.getLogger("sqlglot").setLevel(logging.ERROR)
# sqlglot is written in Python: a longer text would use up the time of its query.
_MAX_CHARACTERS = 100_000
_FORBIDDEN_NODES = (
    exp.DDL,
    exp.DML,
    exp.Command,
    exp.Copy,
    exp.Into,
    exp.Lock,
    exp.Parameter,  # variables of the session
    exp.SessionParameter,
    exp.Placeholder,
    exp.Pragma,
    exp.Set,
    exp.Describe,
    exp.Show,
    exp.Use,
    # Functions that sqlglot has a class for and that do more than compute.
    exp.ReadCSV,
    exp.ReadParquet,
    exp.NextValueFor,
    exp.ToFile,
)
# Text that the server reads as something else than sqlglot does.
_READ_DIFFERENTLY: dict[Dialect, tuple[tuple[re.Pattern[str], str], ...]] = {
    "postgresql": ((re.compile(r"\bU&[\"']", re.IGNORECASE), "names and text with Unicode escapes (U&) are refused"),),
    "mysql": ((re.compile(r"/\*M?!|/\*\+"), "comments that the server executes (/*! … */) are refused"),),
    "duckdb": (),
}
# Settings, other sessions, files and passwords stand there; questions are about the user's own tables.
_SYSTEM_SCHEMAS = {"pg_catalog", "information_schema", "mysql", "performance_schema", "sys", "pg_toast"}


def why_refused(sql: str, dialect: Dialect) -> str | None:
    """Say why a statement may not run; None if it may.

    What sqlglot cannot parse is refused: nobody knows what it does.
    """
    if len(sql) > _MAX_CHARACTERS:
        return f"the statement is longer than {_MAX_CHARACTERS:,} characters"
    if "\0" in sql:
        return "the statement holds a null character"
    for pattern, reason in _READ_DIFFERENTLY[dialect]:
        if pattern.search(sql):
            return reason
    try:
        parsed = [tree for tree in sqlglot.parse(sql, dialect=DIALECTS[dialect].sqlglot) if tree is not None]
    except sqlglot.errors.SqlglotError as error:
        first = str(error).split("\n", 1)[0]
        return f"it cannot be parsed as {DIALECTS[dialect].display} ({first})"
    except RecursionError:
        return "it is nested too deeply to be parsed"
    if len(parsed) != 1:
        return "more than one statement at a time" if parsed else "no statement"
    tree = parsed[0]
    if not isinstance(tree, exp.Query | exp.Values):
        return f"only a query may run, and this is {type(tree).__name__.upper()}"
    for node in tree.walk():
        if (reason_of_node := _why_refused(node, dialect)) is not None:
            return reason_of_node
    return None


def _why_refused(node: exp.Expr, dialect: Dialect) -> str | None:
    if isinstance(node, _FORBIDDEN_NODES):
        return f"{type(node).__name__.upper()} does more than read"
    if isinstance(node, exp.Anonymous | exp.AnonymousAggFunc) and node.name.lower() not in ALLOWED[dialect]:
        return f"the function {node.name} is not on the list of functions that only compute"
    if isinstance(node, exp.Table):
        schemas = {part.name.lower() for part in node.parts[:-1]} if isinstance(node.this, exp.Identifier) else set()
        if schemas & _SYSTEM_SCHEMAS or (dialect == "postgresql" and node.name.lower().startswith("pg_")):
            return f"{node.sql()} belongs to the server, not to the database"
        if dialect == "duckdb" and node.name.lower().startswith(("duckdb_", "pragma_", "sqlite_")):
            return f"{node.sql()} belongs to DuckDB, not to the database"
    return None
