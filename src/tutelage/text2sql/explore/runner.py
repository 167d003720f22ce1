"""Runs an exploration's queries in the sandbox: ahead of the checks that want them, and none of them twice."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tutelage.text2sql.database.address import Database
from tutelage.text2sql.database.executor import Executor, Query, Result

_KEPT = 4096  # results
_KEPT_ROWS = 1000  # a larger result is not kept


class Runner:
    """One database in one executor; ``run`` may be called from several threads."""

    def __init__(self, executor: Executor, database: Path) -> None:
        self._executor = executor
        self._database = database
        self._lock = threading.Lock()  # an executor is for one thread; API synthesizers propose from several
        self._kept: OrderedDict[str, Result] = OrderedDict()
        self._coming: Iterator[tuple[str, Result]] = iter(())
        self._waiting: set[str] = set()

    def run(self, sql: str) -> Result:
        """Run a query, or say what it gave before."""
        with self._lock:
            # What was asked for ahead comes in order; checks ask in the same order, and may leave some out.
            while sql in self._waiting and sql not in self._kept:
                name, result = next(self._coming)
                self._waiting.discard(name)
                if name == sql:
                    return self._keep(name, result)
                self._keep(name, result)
            known = self._kept.get(sql)
            return known if known is not None else self._keep(sql, self._executor.run(self._database, sql))

    def run_on(self, database: Database, sql: str) -> Result:
        """Run a query on another database, such as the one that was copied; nothing is kept."""
        with self._lock:
            return self._executor.run(database, sql)

    def run_all(self, database: Path, statements: Sequence[str]) -> list[Result]:
        """Run statements on a file of ours, such as a copy, together within the time of one; nothing is kept."""
        with self._lock:
            return self._executor.run_all(database, statements)

    @contextmanager
    def ahead(self, statements: Iterable[str]) -> Iterator[None]:
        """Run queries in the executor's processes while the first of them are being looked at."""
        wanted = [sql for sql in dict.fromkeys(statements) if sql not in self._kept]
        queries = (Query(self._database, sql) for sql in wanted)
        self._coming, self._waiting = zip(wanted, self._executor.map(queries), strict=True), set(wanted)
        try:
            yield
        finally:
            # Nobody holds the map any more: the executor forgets what is left of it.
            self._coming, self._waiting = iter(()), set()

    def _keep(self, sql: str, result: Result) -> Result:
        if len(result.rows) <= _KEPT_ROWS:
            self._kept[sql] = result
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return result
