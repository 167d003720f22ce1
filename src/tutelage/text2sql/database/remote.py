"""Running a query on a DuckDB file, PostgreSQL or MySQL, where it can only read.

Three guards in a row: the statement is parsed and must be one query; the transaction is read-only; the server
itself stops it at the time limit. A server has more doors than SQLite, so give an account that may only read.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

import sqlalchemy as sa
import sqlglot
from sqlglot import exp

from tutelage.text2sql.database.introspect_server import connect
from tutelage.text2sql.database.schema import Dialect
from tutelage.text2sql.database.session import Limits, Result, Status, TooLarge, collect, failure

_SQLGLOT = {"postgresql": "postgres", "mysql": "mysql", "duckdb": "duckdb"}
# Functions that act on more than the tables, from inside a SELECT.
_FORBIDDEN_FUNCTIONS = (
    "pg_read", "pg_write", "pg_ls", "pg_stat_file", "pg_terminate", "pg_cancel", "pg_reload", "pg_rotate", "pg_switch",
    "pg_advisory", "pg_try_advisory", "pg_notify", "pg_logical", "pg_create", "pg_drop", "lo_", "loread", "lowrite",
    "dblink", "set_config", "setval", "nextval", "query_to_xml", "database_to_xml",
    "load_file", "get_lock", "release_lock", "sys_exec", "sys_eval",
    "getenv", "read_blob", "read_text", "glob", "sniff_csv",
)  # fmt: skip
# What the three servers say of a statement that ran out of time: query_canceled, ER_QUERY_TIMEOUT, interrupt().
_TIMEOUTS = ("statement timeout", "maximum statement execution time exceeded", "INTERRUPT")
_READ_ONLY = ("read-only", "read only", "permission denied", "disabled by configuration")
_ACTING = (exp.DML, exp.DDL, exp.Into, exp.Lock, exp.Command)


class RemoteExecutor:
    """Executes read-only SQL on the database that a URL names. To be used as a context manager, from one thread."""

    def __init__(self, url: str, *, limits: Limits) -> None:
        """Connect.

        Args:
            url: Such as ``postgresql://user@host/name`` or ``duckdb:////data/shop.duckdb``.
            limits: Memory is held on DuckDB only: a server minds its own.

        Raises:
            ConfigError: The URL is of no known kind, or its driver is not installed.
            DataError: The database cannot be reached.
        """
        self._limits = limits
        self._open = ExitStack()
        self._connection, self._dialect = self._open.enter_context(connect(url))
        if self._dialect == "duckdb":
            self._connection.exec_driver_sql("SET enable_external_access = false")  # no other files, no extensions
            if limits.memory_mb is not None:
                self._connection.exec_driver_sql(f"SET memory_limit = '{limits.memory_mb}MiB'")
            self._connection.exec_driver_sql("SET lock_configuration = true")
        self._connection.rollback()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect."""
        self._open.close()

    def run(self, sql: str) -> Result:
        """Execute one query; whatever is wrong with it stands in the result, and nothing is raised."""
        if refusal := _refusal(sql, self._dialect):
            return failure(*refusal, 0.0)
        begin = time.perf_counter()
        try:
            with self._stopped_in_time():
                cursor = self._connection.exec_driver_sql(
                    # Streamed: what is over the limits never arrives. No parameters: a % in the SQL is a %.
                    sql,
                    execution_options={"stream_results": True, "no_parameters": True},
                )
                columns, rows = tuple(cursor.keys()), collect(cursor, self._limits)
        except TooLarge as error:
            return failure("too_large", str(error), time.perf_counter() - begin)
        except sa.exc.DBAPIError as error:
            return failure(*_verdict(error, self._limits), time.perf_counter() - begin)
        finally:
            self._connection.rollback()
        return Result("ok", columns, rows, "", time.perf_counter() - begin)

    @contextmanager
    def _stopped_in_time(self) -> Iterator[None]:
        milliseconds = max(1, round(self._limits.seconds * 1000))
        match self._dialect:
            case "postgresql":
                self._connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
                yield
            case "mysql":
                self._connection.exec_driver_sql(f"SET SESSION max_execution_time = {milliseconds}")
                yield
            case _:
                timer = threading.Timer(self._limits.seconds, self._interrupt)
                timer.start()
                try:
                    yield
                finally:
                    timer.cancel()

    def _interrupt(self) -> None:
        driver = self._connection.connection.driver_connection
        assert driver is not None
        driver.interrupt()


def _refusal(sql: str, dialect: Dialect) -> tuple[Status, str] | None:
    """Say what keeps a text from being run at all."""
    try:
        statements = [tree for tree in sqlglot.parse(sql, dialect=_SQLGLOT[dialect]) if tree is not None]
    except (sqlglot.errors.SqlglotError, RecursionError) as error:
        return "error", str(error).splitlines()[0]
    if not statements:
        return "error", "no statement"
    if len(statements) > 1:
        return "refused", "more than one statement"
    (tree,) = statements
    if not isinstance(tree, exp.Query) or tree.find(*_ACTING):
        return "refused", "not a query that only reads"
    for function in tree.find_all(exp.Func):
        name = function.name if isinstance(function, exp.Anonymous) else function.sql_name()
        if name.lower().startswith(_FORBIDDEN_FUNCTIONS):
            return "refused", f"not authorized to use function: {name}"
    return None


def _verdict(error: sa.exc.DBAPIError, limits: Limits) -> tuple[Status, str]:
    message = " ".join(str(error.orig).split())
    if any(phrase in message for phrase in _TIMEOUTS):
        return "timeout", f"longer than {limits.seconds:g} s"
    if any(phrase in message for phrase in _READ_ONLY):
        return "refused", message
    return ("too_large" if "Out of Memory" in message else "error"), message
