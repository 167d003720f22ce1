"""What the gold queries give, kept between runs.

On large databases the golds take most of the time, and every prediction file needs them again. One SQLite file holds
them, each by what it depends on: the database's bytes, the query, the limits, and the SQLite that ran it.
"""

import hashlib
import json
import marshal
import sqlite3
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from tutelage.core.store import Store, file_hash
from tutelage.text2sql.database.address import Database, file_of
from tutelage.text2sql.database.executor import Executor, Limits, Query, Result

_BUSY_SECONDS = 60.0
_RECENT = 4


class GoldResults:
    """Results of gold queries, from the store or from the executor. To be used as a context manager."""

    def __init__(self, store: Store, *, executor: Executor, limits: Limits, text_errors: str) -> None:
        """Open the store's file of gold results.

        Args:
            store: Where it lies.
            executor: Runs what is not there yet.
            limits: Of the executor.
            text_errors: Of the executor.
        """
        folder = store.root / "gold_results"
        folder.mkdir(parents=True, exist_ok=True)
        self._executor = executor
        # Each write is its own transaction: a second scorer never waits long, and a kill costs one query.
        self._connection = sqlite3.connect(folder / "results.sqlite", timeout=_BUSY_SECONDS, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")  # in this mode, writes wait for no disk
        self._connection.execute("CREATE TABLE IF NOT EXISTS kept (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self._depends_on = [
            limits.seconds,
            limits.rows,
            limits.bytes,
            limits.memory_mb,
            text_errors,
            sqlite3.sqlite_version,
            marshal.version,
        ]
        self._others: dict[tuple[Database, str], Result] = {}
        self._hashes: dict[Database, str] = {}
        # Nothing tells whether a server has changed since: what it gave is only good for this process.
        self._this_process = uuid4().hex
        # What a gold gives; it is run if that is not known. Judging one item asks several times.
        self.result = lru_cache(maxsize=_RECENT)(self._result)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def fill(self, queries: Iterable[tuple[Database, str]]) -> int:
        """Run what is not there yet, in parallel.

        Returns:
            How many were run.
        """
        distinct = [query for query in dict.fromkeys(queries) if query not in self._others]
        absent = [query for query in distinct if not self._has(self._key(*query))]
        results = self._executor.map(Query(database, sql) for database, sql in absent)
        for query, result in zip(absent, results, strict=True):
            self._keep_result(query, result)
        return len(absent)

    def _result(self, database: Database, sql: str) -> Result:
        if (database, sql) in self._others:
            return self._others[database, sql]
        kept = self._read(self._key(database, sql))
        if kept is not None:
            status, columns, rows, error, seconds = kept
            return Result(status, columns, rows, error, seconds)
        result = self._executor.run(database, sql)
        self._keep_result((database, sql), result)
        return result

    def note(self, database: Database, sql: str, kind: str, find: Callable[[], list[str]]) -> list[str]:
        """Remember something that was found out about a gold; ``find`` is only called the first time."""
        key = self._key(database, sql, kind)
        kept: list[str] | None = self._read(key)
        if kept is None:
            kept = find()
            self._write(key, kept)
        return kept

    def _key(self, database: Database, sql: str, kind: str = "result") -> bytes:
        if database not in self._hashes:
            file = file_of(database)
            self._hashes[database] = file_hash(file) if file is not None else f"{database} {self._this_process}"
        inputs = json.dumps([kind, self._hashes[database], sql, *self._depends_on])
        return hashlib.sha256(inputs.encode()).digest()

    def _keep_result(self, query: tuple[Database, str], result: Result) -> None:
        # A crash may have come from outside, such as the system's memory running out. What marshal cannot write (dates,
        # decimals) SQLite does not give; elsewhere it is kept in memory alone.
        if not _plain(result):
            self._others[query] = result
        elif result.status != "crashed":
            value = (result.status, result.columns, result.rows, result.error, result.seconds)
            self._write(self._key(*query), value)

    def _has(self, key: bytes) -> bool:
        return self._connection.execute("SELECT 1 FROM kept WHERE key = ?", (key,)).fetchone() is not None

    def _read(self, key: bytes) -> Any:
        row = self._connection.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
        return None if row is None else marshal.loads(row[0])

    def _write(self, key: bytes, value: Any) -> None:
        self._connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (key, marshal.dumps(value)))


def _plain(result: Result) -> bool:
    return all(cell is None or type(cell) in (int, float, str, bytes) for row in result.rows for cell in row)
