"""Doubtful golds on a database small enough to see why."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tutelage.core.store import Store
from tutelage.text2sql.database.executor import Executor, Limits
from tutelage.text2sql.evaluation.gold_results import GoldResults
from tutelage.text2sql.evaluation.suspicion import ALL_NULL, EMPTY, TIE, TIMES_OUT, UNORDERED_LIMIT, suspicions

SCRIPT = "CREATE TABLE t (a, b, c); INSERT INTO t VALUES (1, 1, NULL), (2, 1, NULL), (3, 2, NULL), (4, 2, NULL);"
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


@pytest.fixture(scope="module")
def golds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoldResults]:
    limits = Limits(seconds=0.5)
    store = Store(tmp_path_factory.mktemp("store"))
    with (
        Executor(workers=0, limits=limits) as executor,
        GoldResults(store, executor=executor, limits=limits, text_errors="ignore") as golds,
    ):
        yield golds


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM t", []),
        ("SELECT a FROM t WHERE a > 9", [EMPTY]),
        ("SELECT c FROM t", [ALL_NULL]),
        ("SELECT max(a) FROM t WHERE a > 9", [ALL_NULL]),
        (ENDLESS, [TIMES_OUT]),
        ("SELECT x FROM t", ["it fails: no such column: x"]),
        ("SELECT a FROM t LIMIT 1", [UNORDERED_LIMIT]),
        ("SELECT a FROM t LIMIT 9", []),
        ("SELECT count(*) FROM t LIMIT 1", []),
        ("SELECT a FROM t ORDER BY a LIMIT 1", []),
        ("SELECT a FROM t ORDER BY b LIMIT 1", [TIE]),
        ("SELECT a FROM t ORDER BY b LIMIT 2", []),
        ("SELECT a FROM t ORDER BY b DESC, a LIMIT 1", []),
        ("SELECT b FROM t GROUP BY b ORDER BY count(*) DESC LIMIT 1", [TIE]),
        ("SELECT b, count(*) AS n FROM t GROUP BY b ORDER BY n DESC LIMIT 1", [TIE]),
        ("SELECT b, sum(a) FROM t GROUP BY b ORDER BY 2 LIMIT 1", []),
        ("SELECT a FROM t ORDER BY b LIMIT 4", []),
        ("SELECT 'limit' FROM t", []),
    ],
)
def test_suspicions(
    tmp_path: Path, make_database: Callable[[Path, str], Path], golds: GoldResults, sql: str, expected: list[str]
) -> None:
    assert suspicions(make_database(tmp_path / "t.sqlite", SCRIPT), sql, golds) == expected
