"""One process's part of the sandbox: run a query within limits, and say how it went."""

import resource
import sqlite3
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tutelage.core.errors import DataError
from tutelage.text2sql.database.address import Database
from tutelage.text2sql.database.guard import TextErrors, connect, connect_unchecked, forbid_writing

Status = Literal["ok", "error", "timeout", "refused", "too_large", "crashed"]
Scope = Literal["execute", "fetch"]

_MIB = 1024 * 1024
_LARGEST_VALUE = 1_000_000_000  # SQLite's own default for SQLITE_LIMIT_LENGTH
_OPEN_DATABASES = 8
# Virtual machine instructions between two looks at the clock: about 0.1 ms, and no cost that could be measured.
_CLOCK_EVERY = 10_000
# Refusals that SQLite and the sqlite3 module report without a code of their own.
_REFUSALS = ("one statement at a time", "not authorized", "may not be modified")
_NO_MEMORY = "out of memory"
_LONGEST_MESSAGE = 1_000  # SQLite quotes what it cannot read, all of it
# The error of an empty text, or of nothing but comments.
NO_STATEMENT = "no statement"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may use; None lifts a limit.

    Attributes:
        seconds: Wall time of execution and fetching together.
        rows: Rows of the result. One more, and there is no result at all: a cut one would compare wrongly.
        bytes: Size of the result's values, and of any single value on the way to it.
        memory_mb: Address space of the process that runs the query, in MiB. Linux only, and only where the
            query runs in a process of its own.
    """

    seconds: float = 30.0
    rows: int | None = 100_000
    bytes: int | None = 256 * _MIB
    memory_mb: int | None = 2048


@dataclass(frozen=True, slots=True)
class Query:
    """One statement for one database. ``limits`` None means the executor's."""

    database: Database
    sql: str
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How a query went.

    Attributes:
        status: ``ok``; ``error``: the statement or the database is wrong; ``timeout``; ``refused``: it would do
            more than read, or is more than one statement; ``too_large``: over the limit on rows, bytes or memory;
            ``crashed``: its process died.
        columns: Names as the statement gives them; empty unless ``ok``.
        rows: Empty unless ``ok``.
        error: Why there is no result; empty if ``ok``.
        seconds: Wall time of execution and fetching.
    """

    status: Status
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    error: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Repeated timings of some statements, taken in turn.

    Attributes:
        status: Of the first execution that was not ``ok``, or ``ok``.
        error: Why it stopped; empty if ``ok``.
        seconds: One tuple a repeat, one time a statement; what was measured before it stopped.
    """

    status: Status
    error: str
    seconds: list[tuple[float, ...]]


class TooLarge(Exception):
    """The result is over a limit."""


class Session:
    """Runs queries on SQLite files in this process, with every guard that does not need a second process."""

    def __init__(self, *, text_errors: TextErrors) -> None:
        self._text_errors = text_errors
        self._deadline = 0.0
        # A connection knows nothing of a file that was replaced: the file's identity is part of the key.
        self._connections: OrderedDict[tuple[str, int, int, int], sqlite3.Connection] = OrderedDict()

    def run(self, database: Path, sql: str, limits: Limits) -> Result:
        """Execute one statement and fetch all of its rows."""
        result = self._run(database, sql, limits)
        if result.status == "refused" or result.error == _NO_MEMORY:
            self.close()  # a refused VACUUM still forgets the schema; page caches hold memory
        return result

    def time(self, database: Path, statements: Sequence[str], *, scope: Scope, limits: Limits) -> Timing:
        """Time statements once each, in turn, each on a fresh connection, as the efficiency metrics do.

        Args:
            database: The file.
            statements: Usually the prediction and the gold.
            scope: ``execute``: of ``execute`` alone (VES). ``fetch``: execute, fetch all and close (R-VES).
            limits: For each statement. The result is not kept, so rows and bytes do not count.
        """
        try:
            seconds = tuple(self._time_once(database, sql, scope, limits) for sql in statements)
        except MemoryError:
            return Timing("too_large", _NO_MEMORY, [])
        except (sqlite3.Error, ValueError) as error:
            status, said = _verdict(error, limits)
            return Timing(status, message(said), [])
        except OSError as error:
            return Timing("error", f"{database}: {error.strerror}", [])
        return Timing("ok", "", [seconds])

    def close(self) -> None:
        """Close every database."""
        while self._connections:
            self._connections.popitem()[1].close()

    def _run(self, database: Path, sql: str, limits: Limits) -> Result:
        try:
            connection = self._connection(database)
        except DataError as error:
            return failure("error", str(error), 0.0)
        self._apply(connection, limits)
        begin = time.perf_counter()
        self._deadline = time.monotonic() + limits.seconds
        try:
            with closing(connection.execute(sql)) as cursor:
                if cursor.description is None:
                    return failure("error", NO_STATEMENT, time.perf_counter() - begin)
                columns = tuple(column[0] for column in cursor.description)
                rows = collect(cursor, limits)
        except TooLarge as error:
            return failure("too_large", str(error), time.perf_counter() - begin)
        except MemoryError:
            return failure("too_large", _NO_MEMORY, time.perf_counter() - begin)
        # ValueError: SQL that is no valid text (a lone surrogate, a null character).
        except (sqlite3.Error, ValueError) as error:
            return failure(*_verdict(error, limits), time.perf_counter() - begin)
        return Result("ok", columns, rows, "", time.perf_counter() - begin)

    def _time_once(self, database: Path, sql: str, scope: Scope, limits: Limits) -> float:
        connection = connect_unchecked(database, text_errors=self._text_errors)
        with closing(connection):
            forbid_writing(connection)
            self._watch(connection)
            self._deadline = time.monotonic() + limits.seconds
            begin = time.perf_counter()
            cursor = connection.execute(sql)
            if scope == "fetch":
                cursor.fetchall()
                connection.close()
            return time.perf_counter() - begin

    def _connection(self, database: Path) -> sqlite3.Connection:
        try:
            stat = database.stat()
            key = (str(database), stat.st_ino, stat.st_size, stat.st_mtime_ns)
        except OSError:
            key = (str(database), 0, 0, 0)  # `connect` says what is wrong with it
        connection = self._connections.get(key)
        if connection is None:
            connection = connect(database, text_errors=self._text_errors)
            forbid_writing(connection)
            self._watch(connection)
            self._connections[key] = connection
            if len(self._connections) > _OPEN_DATABASES:
                self._connections.popitem(last=False)[1].close()
        self._connections.move_to_end(key)
        return connection

    def _watch(self, connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(lambda: time.monotonic() > self._deadline, _CLOCK_EVERY)

    def _apply(self, connection: sqlite3.Connection, limits: Limits) -> None:
        largest = _LARGEST_VALUE if limits.bytes is None else min(limits.bytes, _LARGEST_VALUE)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, largest)


def collect(
    rows: Iterable[Sequence[Any]], limits: Limits, *, size_of: Callable[[object], int] = sys.getsizeof
) -> list[tuple[Any, ...]]:
    """Fetch all rows of a result.

    Raises:
        TooLarge: There are more of them, or they hold more, than the limits allow.
    """
    collected: list[tuple[Any, ...]] = []
    max_rows = sys.maxsize if limits.rows is None else limits.rows
    max_bytes = sys.maxsize if limits.bytes is None else limits.bytes
    size = 0
    for row in rows:
        if len(collected) == max_rows:
            raise TooLarge(f"more than {max_rows:,} rows")
        size += sum(map(size_of, row))
        if size > max_bytes:
            raise TooLarge(f"more than {max_bytes:,} bytes")
        collected.append(tuple(row))
    return collected


@contextmanager
def memory_limit(memory_mb: int | None) -> Iterator[None]:
    """Hold this process to an address space of so many MiB for a while; nothing where that is unknown.

    Temporary files, which SQLite sorts in, are held to the same size.
    """
    if memory_mb is None or sys.platform != "linux":
        yield
        return
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_FSIZE)
    before = [resource.getrlimit(kind) for kind in kinds]
    for kind, (_, hard) in zip(kinds, before, strict=True):
        limit = memory_mb * _MIB
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        for kind, limits in zip(kinds, before, strict=True):
            resource.setrlimit(kind, limits)


def failure(status: Status, error: str, seconds: float) -> Result:
    """A result without rows."""
    return Result(status, (), [], message(error), seconds)


def message(error: str) -> str:
    """Cut an error's text to what a reader takes in, without bytes that no file of text can hold."""
    text = error if len(error) <= _LONGEST_MESSAGE else f"{error[: _LONGEST_MESSAGE - 1]}…"
    return text.encode(errors="backslashreplace").decode()


def _verdict(error: Exception, limits: Limits) -> tuple[Status, str]:
    status = _status(error)
    return status, f"longer than {limits.seconds:g} s" if status == "timeout" else str(error)


def _status(error: Exception) -> Status:
    # Only errors that SQLite itself raised have a code; the sqlite3 module's own have none.
    code: int = vars(error).get("sqlite_errorcode", 0)
    match code & 0xFF:
        case sqlite3.SQLITE_INTERRUPT:
            return "timeout"
        case sqlite3.SQLITE_AUTH | sqlite3.SQLITE_READONLY:
            return "refused"
        case sqlite3.SQLITE_TOOBIG | sqlite3.SQLITE_NOMEM | sqlite3.SQLITE_FULL:
            return "too_large"
    if code == sqlite3.SQLITE_IOERR_WRITE:
        return "too_large"  # the only writes are temporary files, and their size is limited
    message = str(error)
    if any(phrase in message for phrase in _REFUSALS):
        return "refused"
    return "too_large" if message == "query string is too large" else "error"
