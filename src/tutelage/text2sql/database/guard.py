"""Opening an SQLite file so that nothing can be written through it."""

import sqlite3
from pathlib import Path
from typing import Literal

from tutelage.core.errors import DataError

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
    # Nobody has it open and nothing waits in its log: an ordinary connection, even a read-only one, would
    # leave -wal and -shm files beside a database in WAL mode.
    quiet = _in_wal_mode(database) and not _size(_log(database)) and not _log_index(database).exists()
    immutable = "&immutable=1" if quiet else ""
    connection = sqlite3.connect(
        f"{database.absolute().as_uri()}?mode=ro{immutable}",
        uri=True,
        timeout=LOCK_SECONDS,
        isolation_level=None,  # no implicit BEGIN
    )
    if text_errors != "strict":
        connection.text_factory = lambda raw: raw.decode("utf-8", text_errors)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA trusted_schema = OFF")  # no dangerous functions out of views
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 1_000_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0)
    return connection


def forbid_writing(connection: sqlite3.Connection) -> None:
    """Let a connection read tables and do nothing else, from now on."""
    connection.set_authorizer(_authorize)


def connect(database: Path, *, text_errors: TextErrors = "ignore") -> sqlite3.Connection:
    """Open an SQLite file for reading with statements of our own, PRAGMA included.

    Before anybody else's statement runs on it, `forbid_writing`.

    Args:
        database: The file. It, and the folder it lies in, stay as they are.
        text_errors: What happens to text that is not UTF-8. ``strict`` makes the query fail.

    Raises:
        DataError: It is not a database that can be read here; the message says why and what to do.
    """
    _check_file(database)
    connection = connect_unchecked(database, text_errors=text_errors)
    try:
        # Virtual tables prepare their own statements, some of them writes, when they are first named.
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL%'"
        ).fetchall():
            _touch(connection, name)
    except sqlite3.Error as error:
        connection.close()
        raise _explain(database, error) from error
    return connection


def _touch(connection: sqlite3.Connection, table: str) -> None:
    quoted = table.replace('"', '""')
    try:
        connection.execute(f'SELECT * FROM "{quoted}" LIMIT 0').close()
    except sqlite3.OperationalError:
        return  # its module is not in this SQLite: only the queries that name it fail


def _log(database: Path) -> Path:
    return database.with_name(database.name + "-wal")


def _log_index(database: Path) -> Path:
    return database.with_name(database.name + "-shm")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _in_wal_mode(database: Path) -> bool:
    with database.open("rb") as file:
        return file.read(20)[18:20] == b"\x02\x02"


def _check_file(database: Path) -> None:
    where = str(database)
    if database.is_dir():
        raise DataError(where, "is a folder", "name the database file inside it")
    if not database.exists():
        raise DataError(where, "no such file", "check the path of the database")
    try:
        with database.open("rb") as file:
            magic = file.read(16)
    except OSError as error:
        raise DataError(where, f"cannot be read ({error.strerror})", "check its permissions") from error
    if not magic:
        raise DataError(where, "is empty (0 bytes)", "copy the database again")
    if magic != b"SQLite format 3\x00":
        raise DataError(
            where,
            "is not an SQLite database, or an encrypted one",
            "give an SQLite 3 file; decrypt it first if it is encrypted",
        )
    log, index = _log(database), _log_index(database)
    if _size(log) and not index.exists():
        raise DataError(
            where,
            f"its last changes stand in {log.name}, which has lost its companion {index.name}: "
            "they can only be merged by writing",
            f'on a copy, run: sqlite3 {database.name} "PRAGMA wal_checkpoint(TRUNCATE)"',
        )


def _explain(database: Path, error: sqlite3.Error) -> DataError:
    where = str(database)
    match error.sqlite_errorcode & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DataError(where, "is locked by another program", "close that program, or explore a copy")
        case sqlite3.SQLITE_CORRUPT:
            return DataError(where, f"is truncated or damaged ({error})", "copy it again, or restore it")
        case sqlite3.SQLITE_NOTADB:
            return DataError(where, f"cannot be read as a database ({error})", "decrypt or restore it first")
        case sqlite3.SQLITE_READONLY:
            return DataError(
                where,
                "holds a transaction that was never finished, which only writing can roll back",
                f"on a copy together with {database.name}-journal, run: sqlite3 {database.name} .tables",
            )
        case _:
            return DataError(where, f"cannot be opened ({error})", "check the file and its folder")
