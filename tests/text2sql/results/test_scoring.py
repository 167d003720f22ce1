"""Scores of a run: which queries are run, and how often."""

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.database.executor import Executor, Limits, Query, Result
from tutelage.text2sql.results.scoring import ExecutionScorer


class Recording(Executor):
    """Remembers what it was asked to run."""

    def __init__(self, *, workers: int) -> None:
        super().__init__(workers=workers, limits=Limits(seconds=30.0, rows=100))
        self.ran: list[str] = []

    def map(self, queries: Iterable[Query]) -> Iterator[Result]:
        def recorded() -> Iterator[Query]:
            for query in queries:
                self.ran.append(query.sql)
                yield query

        return super().map(recorded())


@pytest.mark.parametrize("workers", [0, 2])
def test_equal_queries_run_once(workers: int, tmp_path: Path) -> None:
    databases = {}
    for name, prices in (("shop", (5, 7)), ("store", (5, 9))):
        databases[name] = tmp_path / f"{name}.sqlite"
        with sqlite3.connect(databases[name]) as connection:
            connection.execute("CREATE TABLE item (price INTEGER)")
            connection.executemany("INSERT INTO item VALUES (?)", [(price,) for price in prices])
        connection.close()
    low, high, wrong = ("SELECT min(price) FROM item", "SELECT max(price) FROM item", "SELECT cost FROM item")
    asked = [("shop", low, low), ("shop", high, low), ("store", high, high), ("store", low, wrong), ("shop", high, "")]
    examples = [Example(str(n), db_id, "?", gold) for n, (db_id, gold, _) in enumerate(asked)]
    with Recording(workers=workers) as executor:
        scorer = ExecutionScorer(databases, executor=executor)
        items = scorer.score(examples, [predicted for *_, predicted in asked])
        assert [item.right for item in items] == [True, False, True, False, False]
        assert [item.status for item in items] == ["ok", "ok", "ok", "error", items[4].status]
        assert [item.sql for item in items] == [predicted for *_, predicted in asked]
        assert sorted(executor.ran) == sorted([low, high, high, low, wrong, ""])  # of two databases
        # Golds are known from now on.
        executor.ran.clear()
        again = scorer.score(examples, [high] * 5)
        assert [item.right for item in again] == [False, True, True, False, True]
        assert executor.ran == []
