"""Queries on servers and DuckDB files, with the promises of the SQLite sandbox."""

import importlib
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from types import ModuleType
from typing import Any

from tutelage.core.errors import ConfigError, DataError, UserError
from tutelage.text2sql.database.address import DatabaseUrl
from tutelage.text2sql.database.schema import DIALECTS, Dialect
from tutelage.text2sql.database.servers.driver import Driver, size_of
from tutelage.text2sql.database.servers.statement import why_refused
from tutelage.text2sql.database.session import Limits, Result, Timing, TooLarge, collect, failure

_OPEN_DATABASES = 8
# The module of each driver, and the extra that brings the package it needs.
_DRIVERS: dict[Dialect, tuple[str, str, str]] = {
    "postgresql": ("postgres", "Postgres", "postgres"),
    "mysql": ("mysql", "MySQL", "mysql"),
    "duckdb": ("duck", "DuckDB", ""),
}


def open_driver(database: DatabaseUrl) -> Driver:
    """Connect to a database, to run queries.

    Raises:
        ConfigError: The driver's package is not installed.
        DataError: The server is not there, does not let us in, or the file cannot be opened; no password is shown.
    """
    driver: Driver = _open(database, vars(_module(database))[_DRIVERS[database.dialect][1]])
    return driver


def open_connection(database: DatabaseUrl) -> Any:
    """Connect to a database, as Python's database API (PEP 249) has it; raises as ``open_driver`` does."""
    connection = _open(database, vars(_module(database))["connect"])
    if database.dialect == "duckdb":
        from duckdb_engine import ConnectionWrapper  # it loads DuckDB, which processes for other databases do not need

        return ConnectionWrapper(connection)
    return connection


@cache
def check_server(database: DatabaseUrl) -> None:
    """Connect once, to find what is wrong before the long part; warn, once, of a role that may write.

    Raises as ``open_driver`` does.
    """
    connection = _open(database, vars(_module(database))["connect"])
    try:
        if database.dialect != "duckdb" and (rights := vars(_module(database))["what_it_may_write"](connection)):
            warnings.warn(
                f"{database}: the role can do more than read ({rights}). All that runs here is read-only; a role that "
                "may only read is safer: docs/use_your_own_database.md says how to make one",
                stacklevel=2,
            )
    finally:
        connection.close()


def _module(database: DatabaseUrl) -> ModuleType:
    module, _, extra = _DRIVERS[database.dialect]
    try:
        return importlib.import_module(f"{__package__}.{module}")
    except ImportError as error:
        raise ConfigError(
            "database",
            f"the driver for {DIALECTS[database.dialect].display} is not installed ({error})",
            f"pip install -e '.[{extra}]'",
        ) from error


def _open(database: DatabaseUrl, connect: Callable[[DatabaseUrl], Any]) -> Any:
    try:
        return connect(database)
    except Exception as error:
        # Each driver's library has errors of its own; none of them shows a password.
        what = " ".join(str(error).split())
        raise DataError("database", f"{database} cannot be opened ({what})", _hint(what)) from None


def _hint(said: str) -> str:
    said = said.lower()
    if "password" in said or "access denied" in said or "authentication" in said:
        return "check the user and the password: they may stand in ~/.pgpass, PGPASSWORD, or the URL"
    if "lock on file" in said:
        return "close the program that writes to it, or give a copy"
    return "check the address, that the server runs, and the user's right to connect"


class ServerSession:
    """Runs queries in this process. Only ``cancel`` may be called from another thread."""

    def __init__(self) -> None:
        self._drivers: OrderedDict[DatabaseUrl, Driver] = OrderedDict()
        self._running: Driver | None = None

    def run(self, database: DatabaseUrl, sql: str, limits: Limits) -> Result:
        """Execute one query and fetch all of its rows; whatever is wrong stands in the result."""
        begin = time.perf_counter()
        reason = why_refused(sql, database.dialect)
        if reason == "no statement":
            return failure("error", reason, time.perf_counter() - begin)
        if reason is not None:
            return failure("refused", reason, time.perf_counter() - begin)
        try:
            driver = self._driver(database)
        except UserError as error:
            return failure("error", str(error), time.perf_counter() - begin)
        result = self._run(driver, sql, limits)
        if result.status != "ok" and not self._ended(driver):
            self._drop(database)
        return result

    def time(self, database: DatabaseUrl, statements: Sequence[str], *, limits: Limits) -> Timing:
        """Time statements once each, in turn: executed and fetched, without connecting."""
        seconds = []
        for sql in statements:
            result = self.run(database, sql, limits)
            if result.status != "ok":
                return Timing(result.status, result.error, [])
            seconds.append(result.seconds)
        return Timing("ok", "", [tuple(seconds)])

    def cancel(self) -> None:
        """End what is running, on the server."""
        if (driver := self._running) is not None:
            with suppress(Exception):
                driver.cancel()

    def close(self) -> None:
        """Close every connection."""
        for database in list(self._drivers):
            self._drop(database)

    def _run(self, driver: Driver, sql: str, limits: Limits) -> Result:
        begin = time.perf_counter()
        timer = threading.Timer(limits.seconds, self.cancel)
        timer.daemon = True
        self._running = driver
        timer.start()
        try:
            reading = driver.begin(sql, limits.seconds)
            rows = collect(reading.rows, limits, size_of=size_of)
            driver.end()
        except TooLarge as error:
            return failure("too_large", str(error), time.perf_counter() - begin)
        except MemoryError:
            return failure("too_large", "out of memory", time.perf_counter() - begin)
        except Exception as error:
            status, said = driver.verdict(error)
            seconds = time.perf_counter() - begin
            if status == "timeout" or seconds >= limits.seconds:
                return failure("timeout", f"longer than {limits.seconds:g} s", seconds)
            return failure(status, said, seconds)
        finally:
            timer.cancel()
            timer.join()  # a late cancel must not meet the next query
            self._running = None
        return Result("ok", reading.columns, rows, "", time.perf_counter() - begin)

    def _ended(self, driver: Driver) -> bool:
        """Whether the connection can be used again after a query that failed."""
        try:
            driver.end()
        except Exception:
            return False
        return True

    def _driver(self, database: DatabaseUrl) -> Driver:
        if database not in self._drivers:
            self._drivers[database] = open_driver(database)
            if len(self._drivers) > _OPEN_DATABASES:
                self._drop(next(iter(self._drivers)))
        self._drivers.move_to_end(database)
        return self._drivers[database]

    def _drop(self, database: DatabaseUrl) -> None:
        with suppress(Exception):
            self._drivers.pop(database).close()
