"""Opening an SQLite file so that nothing can be written through it."""

import sqlite3
from pathlib import Path
from typing import Literal

from tutelage.text2sql.database.sqlite_file import check_file, explain, sqlite_uri

TextErrors = Literal["strict", "ignore", "replace"]

# Another process may hold the lock for a moment; a longer wait would only hide it.
LOCK_SECONDS = 2.0

_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_FORBIDDEN_FUNCTIONS = {"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"}
# Asked by FTS3 and FTS5 themselves while they read; without an argument they change nothing.
_HARMLESS_PRAGMAS = {"page_size", "data_version"}


def _authorize(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    """Allow what reads, deny the rest: a list of what is forbidden would miss the next SQLite's news."""
    if action in _READING:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_DENY if (second or "").lower() in _FORBIDDEN_FUNCTIONS else sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and first in _HARMLESS_PRAGMAS and second is None:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_UPDATE and first == "sqlite_master":
        # Asked when json_each and its like are first named. The statement that it seems to allow fails all the
        # same: SQLite keeps that table to itself.
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def connect_unchecked(database: Path, *, text_errors: TextErrors = "ignore") -> sqlite3.Connection:
    """Open with every guard on, without reading the file yet: its faults show at the first query.

    This is what timing needs: published scorers count the reading of the schema into a query's time.
    """
    connection = sqlite3.connect(
        sqlite_uri(database),
        uri=True,
        timeout=LOCK_SECONDS,
        isolation_level=None,  # no implicit BEGIN
        check_same_thread=False,  # one thread at a time is enough
    )
    if text_errors != "strict":
        connection.text_factory = lambda raw: raw.decode("utf-8", text_errors)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA trusted_schema = OFF")  # no dangerous functions out of views
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 1_000_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0)
    return connection


def connect(database: Path, *, text_errors: TextErrors = "ignore") -> sqlite3.Connection:
    """Open an SQLite file that can be read, and say what is wrong with one that cannot.

    Before anybody else's statement runs on the connection, `forbid_writing`.

    Args:
        database: The file. It, and the folder it lies in, stay as they are.
        text_errors: What happens to text that is not UTF-8. ``strict`` makes the query fail.

    Raises:
        DataError: It is not a database that can be read here; the message says why and what to do.
    """
    check_file(database)
    connection = connect_unchecked(database, text_errors=text_errors)
    try:
        # Virtual tables prepare their own statements, some of them writes, when they are first named.
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL%'"
        ).fetchall():
            _touch(connection, name)
    except sqlite3.Error as error:
        connection.close()
        raise explain(error, database) from error
    return connection


def forbid_writing(connection: sqlite3.Connection) -> None:
    """Let a connection read tables and do nothing else, from now on."""
    connection.set_authorizer(_authorize)


def _touch(connection: sqlite3.Connection, table: str) -> None:
    quoted = table.replace('"', '""')
    try:
        connection.execute(f'SELECT * FROM "{quoted}" LIMIT 0').close()
    except sqlite3.OperationalError:
        return  # its module is not in this SQLite: only the queries that name it fail
