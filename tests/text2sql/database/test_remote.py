"""Queries on DuckDB, and on PostgreSQL where a server is installed."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.database.executor import Limits
from tutelage.text2sql.database.remote import RemoteExecutor

SCHEMA = """
    CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price DECIMAL(6, 2));
    INSERT INTO item SELECT i, 'item ' || i, i * 1.5 FROM generate_series(1, 300) AS g(i);
"""
LIMITS = Limits(seconds=0.5, rows=1000, bytes=1_000_000, memory_mb=500)


@pytest.fixture(scope="module")
def duckdb_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("remote") / "shop.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(SCHEMA)
    return f"duckdb:///{path}"


@pytest.fixture(scope="module")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, on a free loopback port, as a user that PostgreSQL accepts (never root)."""
    if not (shutil.which("initdb") and shutil.which("pg_ctl")):
        pytest.skip("no PostgreSQL server is installed (initdb, pg_ctl)")
    as_user: list[str] = []
    folder = tmp_path_factory.mktemp("postgres")
    if os.getuid() == 0:
        if not shutil.which("runuser") or subprocess.run(["id", "nobody"], capture_output=True).returncode:
            pytest.skip("PostgreSQL does not run as root, and there is no user nobody to run it")
        as_user = ["runuser", "-u", "nobody", "--"]
        # pytest's folders are private to their owner.
        folder = Path(subprocess.check_output([*as_user, "mktemp", "-d", "/tmp/postgres.XXXXXX"], text=True).strip())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(*command: str) -> None:
        done = subprocess.run([*as_user, *command], capture_output=True, text=True, cwd="/")
        if done.returncode:
            pytest.skip(f"PostgreSQL does not start here: {done.stderr.strip()[-300:]}")

    data = str(folder / "data")
    run("initdb", "-D", data, "-A", "trust", "-U", "tester", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    run("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        url = f"postgresql://tester@127.0.0.1:{port}/postgres"
        _fill(url)
        yield url
    finally:
        subprocess.run([*as_user, "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], capture_output=True, cwd="/")
        shutil.rmtree(folder, ignore_errors=True)


def _fill(url: str) -> None:
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SCHEMA)
        connection.execute("CREATE FUNCTION wipe() RETURNS INTEGER LANGUAGE sql AS 'DELETE FROM item RETURNING id'")


@pytest.fixture(scope="module", params=["duckdb_url", "postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def executor(url: str) -> Iterator[RemoteExecutor]:
    with RemoteExecutor(url, limits=LIMITS) as executor:
        yield executor


def test_a_query_is_answered(executor: RemoteExecutor) -> None:
    result = executor.run("SELECT id, name AS n FROM item WHERE name LIKE '%m 1%' AND id % 100 = 0 ORDER BY id")
    assert (result.status, result.columns, result.rows) == ("ok", ("id", "n"), [(100, "item 100")])
    assert result.seconds > 0


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM item",
        "INSERT INTO item VALUES (0, 'x', 1)",
        "UPDATE item SET name = 'x'",
        "DROP TABLE item",
        "CREATE TABLE x (a INTEGER)",
        "CREATE TEMP TABLE x AS SELECT 1",
        "TRUNCATE item",
        "ALTER TABLE item ADD COLUMN x INTEGER",
        "WITH gone AS (DELETE FROM item RETURNING *) SELECT * FROM gone",
        "SELECT * INTO copy FROM item",
        "SELECT * FROM item FOR UPDATE",
        "SELECT 1; DELETE FROM item",
        "COMMIT; DELETE FROM item",
        "COMMIT",
        "BEGIN",
        "SET TRANSACTION READ WRITE",
        "COPY item TO '/tmp/item.csv'",
        "COPY (SELECT 1) TO PROGRAM 'sh'",
        "ATTACH 'x.duckdb'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "PRAGMA database_list",
        "CALL pg_sleep(1)",
        "DO $$ BEGIN DELETE FROM item; END $$",
        "EXPLAIN ANALYZE DELETE FROM item",
        "VACUUM",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT set_config('default_transaction_read_only', 'off', false)",
        "SELECT lo_import('/etc/passwd')",
        "SELECT pg_terminate_backend(1)",
    ],
)
def test_what_would_do_more_than_read_is_refused(executor: RemoteExecutor, sql: str) -> None:
    # "error": words that the other dialect does not know
    assert executor.run(sql).status in {"refused", "error"}
    assert executor.run("SELECT count(*), sum(id) FROM item").rows == [(300, 45150)]


@pytest.mark.parametrize(
    "sql", ["", "-- nothing", "SELEC 1", "SELECT nothing FROM item", "SELECT FROM WHERE", "(" * 50]
)
def test_what_is_no_query_is_an_error(executor: RemoteExecutor, sql: str) -> None:
    result = executor.run(sql)
    assert result.status in {"error", "refused"}
    assert result.error
    assert executor.run("SELECT 1").rows == [(1,)]


def test_what_does_not_end_times_out(executor: RemoteExecutor) -> None:
    result = executor.run("SELECT count(*) FROM item a, item b, item c, item d WHERE a.id + b.id + c.id + d.id = 7")
    assert (result.status, result.error) == ("timeout", "longer than 0.5 s")
    assert executor.run("SELECT 1").rows == [(1,)]


def test_rows_and_bytes_are_limited(executor: RemoteExecutor) -> None:
    rows = executor.run("SELECT a.id FROM item AS a, item AS b")
    assert (rows.status, rows.rows, rows.error) == ("too_large", [], "more than 1,000 rows")
    assert executor.run("SELECT repeat('x', 10000) FROM item").error == "more than 1,000,000 bytes"


def test_a_function_that_writes_meets_the_read_only_transaction(postgres_url: str) -> None:
    with RemoteExecutor(postgres_url, limits=LIMITS) as executor:
        result = executor.run("SELECT wipe()")
        assert result.status == "refused"
        assert result.error.startswith("cannot execute DELETE in a read-only transaction")
        assert executor.run("SELECT count(*) FROM item").rows == [(300,)]


def test_duckdb_reads_no_other_file(duckdb_url: str, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with RemoteExecutor(duckdb_url, limits=LIMITS) as executor:
        for sql in (f"SELECT * FROM '{tmp_path}/secret.csv'", f"SELECT * FROM read_csv('{tmp_path}/secret.csv')"):
            assert executor.run(sql).status in {"refused", "error"}
        assert executor.run(f"SELECT * FROM read_text('{tmp_path}/secret.csv')").status == "refused"


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        RemoteExecutor("postgresql://tester@127.0.0.1:1/none", limits=LIMITS)
    with pytest.raises(DataError, match="cannot be read"):
        RemoteExecutor(f"duckdb:///{tmp_path}/none.duckdb", limits=LIMITS)
    with pytest.raises(ConfigError, match="not a known kind"):
        RemoteExecutor("oracle://x/y", limits=LIMITS)
