"""PostgreSQL, through psycopg."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import errors
from psycopg.abc import Buffer
from psycopg.types.datetime import DateLoader, TimestampLoader, TimestamptzLoader

from tutelage.text2sql.database.address import DatabaseUrl
from tutelage.text2sql.database.servers.driver import CONNECT_SECONDS, LOCK_SECONDS, Rows, ServerTooOld, in_batches
from tutelage.text2sql.database.session import Status

# What every session of ours starts with.
_SETTINGS = {
    "default_transaction_read_only": "on",
    "timezone": "UTC",  # so that the same query gives the same rows wherever it is asked
    "lock_timeout": f"{int(LOCK_SECONDS * 1000)}",
    "idle_in_transaction_session_timeout": "60000",
    "max_parallel_workers_per_gather": "0",  # sums of floats come out the same each time
    "cursor_tuple_fraction": "1.0",  # all rows are read: plan for all of them
    "standard_conforming_strings": "on",
}
# Ends a query whose asker has died. PostgreSQL 14 or newer.
_WATCH_CLIENT = "SET client_connection_check_interval = 1000"
_OLDEST = 120000  # older ones get no fixes any more, and are not tested
_MAY_WRITE = """SELECT CASE WHEN rolsuper THEN 'it is a superuser' ELSE (
SELECT 'it may write to ' || min(relname) FROM pg_class
WHERE relkind IN ('r', 'p') AND relnamespace::regnamespace::text = ANY (current_schemas(false)::text[])
AND has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE')) END FROM pg_roles WHERE rolname = current_user"""
_SCHEMAS = """SELECT nspname FROM pg_namespace
WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_(toast|temp)'
AND has_schema_privilege(oid, 'USAGE') ORDER BY nspname <> 'public', nspname"""


class _Date(DateLoader):
    """Dates that Python does not have, such as infinity, stay text."""

    def load(self, data: Buffer) -> Any:
        try:
            return super().load(data)
        except psycopg.DataError:
            return bytes(data).decode()


class _Timestamp(TimestampLoader):
    def load(self, data: Buffer) -> Any:
        try:
            return super().load(data)
        except psycopg.DataError:
            return bytes(data).decode()


class _Timestamptz(TimestamptzLoader):
    def load(self, data: Buffer) -> Any:
        try:
            return super().load(data)
        except psycopg.DataError:
            return bytes(data).decode()


def connect(database: DatabaseUrl) -> psycopg.Connection[Any]:
    """Connect, so that all transactions are read-only.

    Raises:
        psycopg.Error: The server is not there, or does not let us in.
        ServerTooOld: It is older than we know.
    """
    url = sa.make_url(database.url).set(drivername="postgresql+psycopg")
    arguments, named = url.get_dialect()().create_connect_args(url)
    named = {"connect_timeout": CONNECT_SECONDS, **named, "autocommit": True}
    connection: psycopg.Connection[Any] = psycopg.connect(*arguments, **named)
    version = connection.info.server_version
    if version < _OLDEST:
        connection.close()
        raise ServerTooOld(f"it is PostgreSQL {version // 10000}, and {_OLDEST // 10000} is the oldest that is known")
    settings = [f"SET {name} = '{value}'" for name, value in _SETTINGS.items()]
    if version >= 140000:
        settings.append(_WATCH_CLIENT)
    connection.execute("; ".join(settings))
    connection.execute(_set_search_path(connection, "search_path" in str(named.get("options", ""))))
    for name, loader in (("date", _Date), ("timestamp", _Timestamp), ("timestamptz", _Timestamptz)):
        connection.adapters.register_loader(name, loader)
    connection.autocommit = False
    return connection


def what_it_may_write(connection: psycopg.Connection[Any]) -> str:
    """Name the rights that the role has and does not need; empty for none."""
    row = connection.execute(_MAY_WRITE).fetchone()
    connection.rollback()
    return str(row[0]) if row is not None and row[0] else ""


class Postgres:
    """A read-only session."""

    def __init__(self, database: DatabaseUrl) -> None:
        """Connect; see ``connect``."""
        self._connection = connect(database)
        self._connection.autocommit = True

    def begin(self, sql: str, seconds: float) -> Rows:
        """Open a cursor: that takes one query, and none that writes in its WITH."""
        milliseconds = max(1, int(seconds * 1000))
        self._connection.execute(f"BEGIN READ ONLY; SET LOCAL statement_timeout = {milliseconds}")
        cursor = self._connection.cursor("tutelage")
        cursor.execute(sql.encode())
        columns = tuple(column.name for column in cursor.description or ())

        def fetch(count: int) -> Sequence[Sequence[Any]]:
            return cursor.fetchmany(count)

        return Rows(columns, in_batches(fetch))

    def end(self) -> None:
        """Roll back, which closes the cursor, too."""
        self._connection.execute("ROLLBACK")

    def cancel(self) -> None:
        """End the query on the server, through a connection of its own."""
        self._connection.cancel_safe(timeout=timedelta(seconds=1).total_seconds())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def verdict(self, error: Exception) -> tuple[Status, str]:
        """Read the error's SQLSTATE."""
        said = " ".join(str(error).split())
        if not isinstance(error, psycopg.Error):
            return "error", said
        match error:
            case errors.QueryCanceled():
                return "timeout", said
            case errors.LockNotAvailable():
                return "error", f"waited {LOCK_SECONDS:g} s for another session's lock: ask again later"
            case errors.ReadOnlySqlTransaction() | errors.InsufficientPrivilege():
                return "refused", said
        state = error.sqlstate or ""
        if state[:2] in ("53", "54"):  # out of memory or disk; over a limit of the server
            return "too_large", said
        if self._connection.closed or state[:3] == "57P":
            return "crashed", f"the server closed the connection ({said})"
        return "error", said


def _set_search_path(connection: psycopg.Connection[Any], given: bool) -> str:
    """Find tables of all schemas without their schema's name, public's first; as the URL says where it says so."""
    schemas = [row[0] for row in connection.execute("SELECT unnest(current_schemas(false))" if given else _SCHEMAS)]
    quoted = ", ".join('"' + schema.replace('"', '""') + '"' for schema in schemas)
    return f"SET search_path = {quoted or 'public'}"
