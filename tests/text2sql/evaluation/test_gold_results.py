"""Gold results are found again exactly when nothing that they depend on has changed."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tutelage.core.store import Store
from tutelage.text2sql.database.executor import Executor, Limits
from tutelage.text2sql.evaluation.gold_results import GoldResults


def make(path: Path, value: int) -> Path:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a, b)")
        connection.execute("INSERT INTO t VALUES (?, ?)", (value, b"\x00\xff"))
        connection.execute("INSERT INTO t VALUES (2.5, NULL), ('é', 1e400)")
        connection.commit()
    return path


def test_kept_and_run_again(tmp_path: Path) -> None:
    database, store = make(tmp_path / "a.sqlite", 1), Store(tmp_path / "store")
    query, bad = (database, "SELECT * FROM t"), (database, "SELECT nothing FROM t")

    def ran(limits: Limits, text_errors: str = "ignore") -> int:
        with (
            Executor(workers=0, limits=limits) as executor,
            GoldResults(store, executor=executor, limits=limits, text_errors=text_errors) as golds,
        ):
            number = golds.fill([query, query, bad])
            assert golds.result(*query).rows[1:] == [(2.5, None), ("é", float("inf"))]
            assert golds.result(*query).rows[0][1] == b"\x00\xff"
            assert golds.result(*query).columns == ("a", "b")
            assert golds.result(*bad).status == "error"
            return number

    assert ran(Limits()) == 2
    assert ran(Limits()) == 0
    assert ran(Limits(seconds=29)) == 2
    assert ran(Limits(), "strict") == 2
    make(database, 7)
    assert ran(Limits()) == 2
    assert ran(Limits()) == 0


def test_notes_are_found_once(tmp_path: Path) -> None:
    database = make(tmp_path / "a.sqlite", 1)
    calls: list[int] = []

    def find() -> list[str]:
        calls.append(1)
        return ["doubtful"]

    for _ in range(2):
        with (
            Executor(workers=0, limits=Limits()) as executor,
            GoldResults(Store(tmp_path), executor=executor, limits=Limits(), text_errors="ignore") as golds,
        ):
            assert golds.note(database, "SELECT 1", "kind", find) == ["doubtful"]
    assert len(calls) == 1
