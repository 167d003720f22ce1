"""Limits, order, and workers that hang or die."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tutelage.text2sql.database import executor as executor_module
from tutelage.text2sql.database.executor import Executor, Limits, Query, Result
from tutelage.text2sql.database.session import message

# An idle worker takes no CPU time: once it has taken a second, it is inside the query.
KILL_WHEN_BUSY = """
import os, signal, subprocess, sys, time
def taken():
    return subprocess.run(["ps", "-o", "time=", "-p", sys.argv[1]], capture_output=True, text=True).stdout
before = taken()
while taken() == before:
    time.sleep(0.1)
os.kill(int(sys.argv[1]), signal.SIGSEGV)
"""
STUCK = "SELECT instr(hex(zeroblob(1000000)), hex(zeroblob(500000)) || '1')"
LIMITS = Limits(seconds=60.0)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("executor") / "numbers.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE number (n INTEGER, word TEXT)")
        connection.executemany("INSERT INTO number VALUES (?, ?)", [(n, f"word {n}") for n in range(1000)])
        connection.execute("CREATE TABLE latin (word TEXT)")
        connection.execute("INSERT INTO latin VALUES (CAST(x'636166e9' AS TEXT))")  # café in latin-1
    connection.close()
    return path


@pytest.fixture(scope="module", params=[0, 1, 2], ids="workers={}".format)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with Executor(workers=request.param, limits=LIMITS) as executor:
        yield executor


def _queries(database: Path) -> list[Query]:
    """300 queries of very different length, and every way to fail that leaves the process alive."""
    queries = []
    for i in range(300):
        match i % 6:
            case 0:
                queries.append(Query(database, f"SELECT n, word FROM number WHERE n >= {i} ORDER BY n LIMIT 3"))
            case 1:
                queries.append(Query(database, f"SELECT count(*) FROM number a, number b WHERE a.n = b.n + {i}"))
            case 2:
                queries.append(Query(database, f"SELECT nothing_{i} FROM number"))
            case 3:
                queries.append(Query(database, f"DELETE FROM number WHERE n = {i}"))
            case 4:
                queries.append(Query(database, "SELECT n FROM number", Limits(rows=i)))
            case _:
                queries.append(Query(database.with_name("missing.sqlite"), "SELECT 1"))
    return queries


def _without_time(result: Result) -> tuple[object, ...]:
    return (result.status, result.columns, result.rows, result.error)


def test_results_do_not_depend_on_the_pool(executor: Executor, database: Path) -> None:
    queries = _queries(database)
    results = list(executor.map(queries))
    with Executor(workers=0, limits=LIMITS) as reference:
        expected = [_without_time(result) for result in reference.map(queries)]
    assert [_without_time(result) for result in results] == expected
    assert [result.status for result in results[:6]] == ["ok", "ok", "error", "refused", "too_large", "error"]
    assert results[6].rows == [(6, "word 6"), (7, "word 7"), (8, "word 8")]
    assert results[7].rows == [(993,)]


def test_a_result_says_what_it_is(executor: Executor, database: Path) -> None:
    result = executor.run(database, "SELECT n, word AS w, n / 2.0, NULL FROM number WHERE n = 3")
    assert result.status == "ok"
    assert result.columns == ("n", "w", "n / 2.0", "NULL")
    assert result.rows == [(3, "word 3", 1.5, None)]
    assert result.error == ""
    assert result.seconds > 0


def test_rows_up_to_the_limit_and_not_one_more(executor: Executor, database: Path) -> None:
    limits = Limits(rows=10)
    within, over = executor.map(
        [
            Query(database, "SELECT n FROM number LIMIT 10", limits),
            Query(database, "SELECT n FROM number LIMIT 11", limits),
        ]
    )
    assert (within.status, len(within.rows)) == ("ok", 10)
    assert (over.status, over.rows, over.error) == ("too_large", [], "more than 10 rows")


def test_an_error_is_short_and_can_be_written(executor: Executor, database: Path) -> None:
    unknown = executor.run(database, "SELECT " + "x" * 500_000)
    assert (unknown.status, len(unknown.error), unknown.error[-2:]) == ("error", 1000, "x…")
    assert message("at most \udcff") == "at most \\udcff"


def test_bytes_of_a_result_are_limited(executor: Executor, database: Path) -> None:
    limits = Limits(bytes=1_000_000)
    within, over, one_value = executor.map(
        [
            Query(database, "SELECT zeroblob(10000) FROM number LIMIT 90", limits),
            Query(database, "SELECT zeroblob(10000) FROM number LIMIT 110", limits),
            Query(database, "SELECT length(zeroblob(1000001))", limits),
        ]
    )
    assert (within.status, len(within.rows)) == ("ok", 90)
    assert (over.status, over.error) == ("too_large", "more than 1,000,000 bytes")
    assert (one_value.status, one_value.error) == ("too_large", "string or blob too big")


def test_the_time_limit_is_the_query_s_own(executor: Executor, database: Path) -> None:
    slow = "SELECT count(*) FROM number a, number b, number c"
    (result,) = executor.map([Query(database, slow, Limits(seconds=0.1))])
    assert result.status == "timeout"
    assert result.seconds >= 0.1


@pytest.mark.parametrize(
    ("text_errors", "status", "rows"),
    [("ignore", "ok", [("caf",)]), ("replace", "ok", [("caf\ufffd",)]), ("strict", "error", [])],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_text_that_is_not_utf8(database: Path, workers: int, text_errors, status, rows) -> None:
    with Executor(workers=workers, limits=LIMITS, text_errors=text_errors) as executor:
        result = executor.run(database, "SELECT word FROM latin")
    assert (result.status, result.rows) == (status, rows)


def test_a_query_may_run_while_a_map_is_read(executor: Executor, database: Path) -> None:
    queries = [Query(database, f"SELECT {i}") for i in range(100)]
    seen = []
    for result in executor.map(queries):
        (within,) = executor.map([Query(database, "SELECT 'in between'")])
        assert within.rows == [("in between",)]
        assert executor.run(database, f"SELECT {result.rows[0][0]} + 1").rows == [(result.rows[0][0] + 1,)]
        seen.append(result.rows[0][0])
    assert seen == list(range(100))


def test_a_map_need_not_be_read_to_its_end(executor: Executor, database: Path) -> None:
    def endless() -> Iterator[Query]:
        i = 0
        while True:
            yield Query(database, f"SELECT {i}")
            i += 1

    for _ in range(3):
        results = executor.map(endless())
        assert [next(results).rows for _ in range(5)] == [[(i,)] for i in range(5)]
        results.close()
    assert executor.run(database, "SELECT 'still here'").rows == [("still here",)]


@pytest.mark.parametrize("workers", [1, 2])
def test_results_that_wait_to_be_read_are_few_where_they_are_large(
    database: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "_HELD_BYTES", 2_000_000)
    with Executor(workers=workers, limits=LIMITS) as executor:
        most = 0
        queries = [Query(database, f"SELECT {i}, zeroblob(1000000)") for i in range(20)]
        for i, result in enumerate(executor.map(queries)):
            assert (result.rows[0][0], len(result.rows[0][1])) == (i, 1_000_000)
            # A query in between is answered, however much is held.
            assert executor.run(database, "SELECT 'in between'").rows == [("in between",)]
            most = max(most, len(executor._done))
    assert most <= 3 + workers  # of the 16 that may wait for each worker


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stuck_worker_is_replaced_and_the_batch_goes_on(database: Path, workers: int) -> None:
    short = Limits(seconds=0.2)
    queries = [Query(database, STUCK, short) if i == 3 else Query(database, f"SELECT {i}") for i in range(40)]
    with Executor(workers=workers, limits=LIMITS) as executor:
        results = list(executor.map(queries))
    assert results[3].status == "timeout"
    assert "killed" in results[3].error
    assert [result.rows for i, result in enumerate(results) if i != 3] == [[(i,)] for i in range(40) if i != 3]


def test_a_worker_that_dies_is_replaced_and_the_batch_goes_on(database: Path) -> None:
    others = _workers()
    with Executor(workers=1, limits=Limits(seconds=60)) as executor:
        assert executor.run(database, "SELECT 1").status == "ok"
        (worker,) = _workers() - others
        killer = subprocess.Popen([sys.executable, "-c", KILL_WHEN_BUSY, f"{worker}"])
        queries = [Query(database, STUCK), Query(database, "SELECT 2")]
        died, after = executor.map(queries)
        killer.wait()
    assert (died.status, died.rows) == ("crashed", [])
    assert after.rows == [(2,)]


def test_a_worker_that_died_between_queries_is_not_noticed(database: Path) -> None:
    others = _workers()
    with Executor(workers=1, limits=LIMITS) as executor:
        assert executor.run(database, "SELECT 1").status == "ok"
        (worker,) = _workers() - others
        os.kill(worker, signal.SIGKILL)
        os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
        assert executor.run(database, "SELECT 2").rows == [(2,)]


def test_no_process_outlives_the_executor(database: Path) -> None:
    others = _workers()
    with Executor(workers=2, limits=LIMITS) as executor:
        assert executor.run(database, "SELECT 1").status == "ok"
        assert len(_workers() - others) == 2
        next(executor.map([Query(database, "SELECT 1"), Query(database, STUCK)]))
    assert _workers() == others


def test_a_path_is_meant_from_where_the_caller_is(
    executor: Executor, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert executor.run(database, "SELECT 1").status == "ok"
    monkeypatch.chdir(database.parent)
    assert executor.run(Path(database.name), "SELECT count(*) FROM number").rows == [(1000,)]


def test_a_replaced_file_is_read_anew(tmp_path: Path, executor: Executor) -> None:
    path = tmp_path / "changing.sqlite"
    for value in (1, 2, 3):
        new = tmp_path / "new.sqlite"
        with sqlite3.connect(new) as connection:
            connection.execute(f"CREATE TABLE t AS SELECT {value} AS a")
        connection.close()
        new.replace(path)
        assert executor.run(path, "SELECT a FROM t").rows == [(value,)]


@pytest.mark.parametrize("scope", ["execute", "fetch"])
def test_statements_are_timed_in_turn(executor: Executor, database: Path, scope) -> None:
    statements = ["SELECT 1", "SELECT count(*) FROM number a, number b WHERE a.n + b.n = 7"]
    timing = executor.time(database, statements, repeats=4, scope=scope)
    assert (timing.status, timing.error) == ("ok", "")
    assert len(timing.seconds) == 4
    # 1 row against 1,000,000; the least of four, since a busy machine may halt either.
    assert min(short for short, _ in timing.seconds) < min(long for _, long in timing.seconds)


def test_a_timing_that_fails_says_how(executor: Executor, database: Path) -> None:
    ways = {
        "SELECT nothing FROM number": "error",
        "DROP TABLE number": "refused",
        "SELECT count(*) FROM number a, number b, number c": "timeout",
    }
    for sql, status in ways.items():
        limits = Limits(seconds=0.1) if status == "timeout" else LIMITS
        timing = executor.time(database, ["SELECT 1", sql], repeats=3, scope="execute", limits=limits)
        assert (timing.status, timing.seconds) == (status, [])
    missing = executor.time(database.with_name("no.sqlite"), ["SELECT 1"], repeats=1, scope="fetch")
    assert missing.status == "error"


def test_a_timing_that_hangs_is_killed_at_its_first_round(database: Path) -> None:
    with Executor(workers=1, limits=LIMITS) as executor:
        timing = executor.time(database, ["SELECT 1", STUCK], repeats=100, scope="execute", limits=Limits(seconds=0.1))
        assert (timing.status, timing.seconds) == ("timeout", [])
        assert executor.time(database, ["SELECT 1"], repeats=2, scope="fetch").status == "ok"


def test_threads_may_take_turns(database: Path) -> None:
    with Executor(workers=0, limits=LIMITS) as executor, ThreadPoolExecutor(1) as thread:
        assert executor.run(database, "SELECT 1").rows == [(1,)]
        assert thread.submit(executor.run, database, "SELECT 2").result().rows == [(2,)]


def test_the_executor_starts_from_a_script_without_a_main_guard(database: Path) -> None:
    script = f"""
from pathlib import Path
from tutelage.text2sql.database.executor import Executor, Limits
with Executor(workers=2, limits=Limits()) as executor:
    print(executor.run(Path({str(database)!r}), "SELECT count(*) FROM number").rows)
"""
    ran = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, check=True)
    assert ran.stdout == "[(1000,)]\n"
    assert ran.stderr == ""


def _workers() -> set[int]:
    """Process ids of this process's workers, those of other fixtures too."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    processes = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    return {int(pid) for pid, parent, args in processes if int(parent) == os.getpid() and "database.worker" in args}
