"""Queries on real servers and on DuckDB: values, limits, errors, and statements that must do nothing."""

import datetime
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import duckdb
import hostile_statements
import psycopg
import pymysql
import pytest
import sqlalchemy as sa

from tutelage.core.errors import ConfigError
from tutelage.text2sql.database.address import Database, DatabaseUrl, parse_database
from tutelage.text2sql.database.executor import Executor, Limits, Query
from tutelage.text2sql.database.schema import Dialect
from tutelage.text2sql.database.servers.session import open_driver

SECONDS = 1.0
GRACE = 2.0
LIMITS = Limits(seconds=SECONDS, rows=1_000, bytes=20_000_000)
PATIENT = replace(LIMITS, seconds=30.0)
TABLES = """CREATE TABLE person (id INT, name VARCHAR(20));
INSERT INTO person VALUES (1, 'Ann'), (2, 'Bo');
CREATE TABLE big (n INT);"""
STATE = "SELECT count(*), min(id), max(id), min(name), max(name) FROM person"


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(workers=1, limits=LIMITS) as started:
        yield started


@pytest.fixture(scope="module")
def patient() -> Iterator[Executor]:
    """An executor with time enough on a machine that does other things, too."""
    with Executor(workers=1, limits=PATIENT) as started:
        yield started


@pytest.fixture(scope="module")
def postgres(postgres_url: str) -> DatabaseUrl:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE hostile")
        connection.execute("CREATE ROLE secretive LOGIN PASSWORD 'right-one'")
    url = postgres_url.replace("/postgres", "/hostile")
    with psycopg.connect(url) as connection:
        connection.execute(TABLES)
        connection.execute("INSERT INTO big SELECT generate_series(1, 2000)")
        connection.execute("CREATE SEQUENCE ticket; CREATE EXTENSION dblink")
        connection.execute(
            "CREATE FUNCTION rename_all() RETURNS int LANGUAGE sql AS $$UPDATE person SET name = 'x' RETURNING 1$$"
        )
    return DatabaseUrl(url, "postgresql")


@pytest.fixture(scope="module")
def mariadb(mariadb_url: str) -> DatabaseUrl:
    with _mysql(mariadb_url) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE DATABASE hostile")
        cursor.execute("USE hostile")
        for statement in TABLES.split(";")[:-1]:
            cursor.execute(statement)
        cursor.execute("INSERT INTO big SELECT seq FROM seq_1_to_2000")
        cursor.execute("CREATE SEQUENCE ticket")
        cursor.execute(
            "CREATE FUNCTION rename_all() RETURNS INT MODIFIES SQL DATA"
            " BEGIN UPDATE person SET name = 'x'; RETURN 1; END"
        )
        connection.commit()
    return DatabaseUrl(mariadb_url.replace("/clinic", "/hostile"), "mysql")


@pytest.fixture(scope="module")
def duck(tmp_path_factory: pytest.TempPathFactory) -> DatabaseUrl:
    path = tmp_path_factory.mktemp("duck") / "hostile.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(TABLES)
        connection.execute("INSERT INTO big SELECT range FROM range(2000)")
        connection.execute("CREATE SEQUENCE ticket")
    return DatabaseUrl(f"duckdb:///{path}", "duckdb")


@pytest.fixture(params=["postgresql", "mysql", "duckdb"])
def database(request: pytest.FixtureRequest) -> DatabaseUrl:
    names = {"postgresql": "postgres", "mysql": "mariadb", "duckdb": "duck"}
    found = request.getfixturevalue(names[request.param])
    assert isinstance(found, DatabaseUrl)
    return found


def _mysql(url: str) -> "pymysql.Connection[pymysql.cursors.Cursor]":
    parts = sa.make_url(url)
    return pymysql.connect(host="127.0.0.1", port=parts.port or 0, user=parts.username, database=parts.database)


def _state_of(database: DatabaseUrl) -> list[object]:
    """Everything that a hostile statement might change, as the server's owner sees it."""
    found: list[object] = [Path("/tmp/tutelage-hostile").exists()]
    if database.dialect == "postgresql":
        with psycopg.connect(database.url) as connection:
            for sql in (
                STATE,
                "SELECT count(*) FROM pg_class WHERE relpersistence <> 't'",
                "SELECT count(*) FROM pg_proc",
                "SELECT count(*) FROM pg_largeobject_metadata",
                "SELECT count(*) FROM pg_roles",
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
                "SELECT last_value, is_called FROM ticket",
                "SELECT count(*) FROM pg_settings WHERE pending_restart",
            ):
                found.append(connection.execute(sql).fetchall())
    elif database.dialect == "mysql":
        with _mysql(database.url) as connection, connection.cursor() as cursor:
            for sql in (
                STATE,
                "SHOW TABLES",
                "SHOW DATABASES",
                "SELECT count(*) FROM mysql.user",
                "SELECT next_not_cached_value FROM ticket",
                "SELECT count(*) FROM information_schema.routines",
                "SELECT count(*) FROM information_schema.events",
                "SELECT @@global.general_log",
            ):
                cursor.execute(sql)
                found.append(cursor.fetchall())
    else:
        path = Path(database.url.removeprefix("duckdb:///"))
        found += [path.read_bytes(), sorted(path.parent.iterdir())]
    return found


HOSTILE: list[tuple[Dialect, list[str]]] = [
    ("postgresql", hostile_statements.ANYWHERE + hostile_statements.POSTGRESQL),
    ("mysql", hostile_statements.ANYWHERE + hostile_statements.MYSQL),
    ("duckdb", hostile_statements.ANYWHERE + hostile_statements.DUCKDB),
]


@pytest.mark.parametrize("database", ["postgresql", "mysql", "duckdb"], indirect=True)
def test_hostile_statements_do_nothing(database: DatabaseUrl, executor: Executor) -> None:
    statements = dict(HOSTILE)[database.dialect]
    assert len(set(statements)) >= 60
    before = _state_of(database)
    assert executor.run(database, "SELECT count(*) FROM person").rows == [(2,)]
    for sql in statements:
        result = executor.run(database, sql)
        assert result.status != "ok", sql
        assert result.seconds < SECONDS + GRACE, sql
    assert _state_of(database) == before
    assert executor.run(database, "SELECT count(*) FROM person").rows == [(2,)]


@pytest.mark.parametrize("sql", hostile_statements.BOMBS)
def test_bombs_end_on_the_server_too(database: DatabaseUrl, executor: Executor, sql: str) -> None:
    result = executor.run(database, sql)
    # MariaDB ends a recursion itself, after 1,000 steps.
    assert result.status != "ok" or (database.dialect == "mysql" and "RECURSIVE" in sql)
    assert result.seconds < SECONDS + GRACE
    assert _queries_of(database) == 0


def _queries_of(database: DatabaseUrl) -> int:
    """How many queries run on the server beside the one that asks."""
    for _ in range(20):  # the server may need a moment to end one
        if database.dialect == "postgresql":
            with psycopg.connect(database.url) as connection:
                (count,) = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
                ).fetchone() or (0,)
        elif database.dialect == "mysql":
            with _mysql(database.url) as connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FROM information_schema.processlist"
                    " WHERE command = 'Query' AND id <> connection_id()"
                )
                (count,) = cursor.fetchone() or (0,)
        else:
            return 0  # it lives in the process that ran it
        if not count:
            return 0
        time.sleep(0.1)
    return int(count)


@pytest.mark.parametrize(
    "sql", ["DELETE FROM person", "CREATE TABLE x (a INT)", "INSERT INTO person VALUES (9, 'x')", "DROP TABLE person"]
)
def test_the_server_refuses_writes_that_the_list_would_let_through(database: DatabaseUrl, sql: str) -> None:
    before = _state_of(database)
    driver = open_driver(database)
    with pytest.raises(Exception, match=r"(?i)read.only|syntax error|only one query") as error:
        list(driver.begin(sql, 1.0).rows)
    assert driver.verdict(error.value)[0] in ("refused", "error")
    driver.close()
    assert _state_of(database) == before


def test_interrupt_ends_the_query_on_the_server(database: DatabaseUrl) -> None:
    with Executor(workers=1, limits=Limits(seconds=60.0)) as executor:
        assert executor.run(database, "SELECT 1").rows == [(1,)]
        timer = threading.Timer(0.5, executor.interrupt)
        timer.start()
        assert executor.run(database, hostile_statements.BOMBS[2]).status in ("crashed", "timeout", "error")
        timer.join()
        assert _queries_of(database) == 0


def test_limits_on_rows_and_bytes(database: DatabaseUrl, patient: Executor) -> None:
    assert patient.run(database, "SELECT n FROM big WHERE n <= 900").status == "ok"
    many = patient.run(database, "SELECT n FROM big")
    assert (many.status, many.error) == ("too_large", "more than 1,000 rows")
    long = patient.run(database, "SELECT repeat('x', 1000000) FROM big WHERE n BETWEEN 1 AND 100")
    assert (long.status, long.error) == ("too_large", "more than 20,000,000 bytes")
    assert patient.run(database, "SELECT count(*) FROM person").rows == [(2,)]


def test_map_keeps_the_order_over_several_databases(
    postgres: DatabaseUrl, duck: DatabaseUrl, tmp_path: Path, make_database: Callable[[Path, str], Path]
) -> None:
    sqlite = make_database(tmp_path / "a.sqlite", TABLES)
    databases: list[Database] = [postgres, sqlite, duck]
    with Executor(workers=2, limits=PATIENT) as executor:
        queries = [Query(databases[n % 3], f"SELECT {n} + count(*) FROM person") for n in range(30)]
        assert [result.rows for result in executor.map(queries)] == [[(n + 2,)] for n in range(30)]
        timing = executor.time(postgres, ["SELECT 1", "SELECT 2"], repeats=3, scope="fetch")
        assert timing.status == "ok" and [len(seconds) for seconds in timing.seconds] == [2, 2, 2]


def test_values_come_as_python_values(postgres: DatabaseUrl, duck: DatabaseUrl, patient: Executor) -> None:
    when = datetime.datetime(2024, 1, 1, 11, 30, tzinfo=datetime.UTC)
    sql = """SELECT TIMESTAMPTZ '2024-01-01 12:30:00+01', 0.10::numeric(5, 2), true, NULL, DATE '2024-02-29'"""
    expected = (when, Decimal("0.10"), True, None, datetime.date(2024, 2, 29))
    assert patient.run(postgres, sql).rows == [expected]
    assert patient.run(duck, sql).rows == [expected]
    lists = patient.run(postgres, """SELECT ARRAY[1, 2], '{"a": [1]}'::jsonb, 'infinity'::date""")
    assert lists.rows == [([1, 2], {"a": [1]}, "infinity")]
    assert patient.run(duck, "SELECT [1, 2], {'a': [1]}").rows == [([1, 2], {"a": [1]})]


def test_a_folder_of_files_is_a_database(tmp_path: Path, patient: Executor) -> None:
    (tmp_path / "shops.csv").write_text("id,city\n1,Bonn\n2,Graz\n")
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 1 AS shop, 2.5 AS amount) TO '{tmp_path}/sales.parquet'")
    folder = DatabaseUrl(f"duckdb:///{tmp_path}", "duckdb")
    joined = patient.run(folder, "SELECT city, amount FROM shops JOIN sales ON shops.id = sales.shop")
    assert joined.rows == [("Bonn", Decimal("2.5"))]
    assert patient.run(folder, "SELECT * FROM '/etc/hosts'").status == "error"
    assert patient.run(folder, "SELECT * FROM read_csv('/etc/hosts')").status == "refused"


def test_errors_say_what_to_do_and_no_password(postgres: DatabaseUrl, patient: Executor) -> None:
    parts = sa.make_url(postgres.url)
    for changed, said in (
        (parts.set(username="secretive", password="wrong-one"), "password authentication failed"),
        (parts.set(port=1, password="wrong-one"), "Connection refused"),
        (parts.set(database="gone", password="wrong-one"), "does not exist"),
    ):
        database = DatabaseUrl(changed.render_as_string(hide_password=False), "postgresql")
        result = patient.run(database, "SELECT 1")
        assert result.status == "error" and said in result.error
        assert "wrong-one" not in result.error and "wrong-one" not in repr(database)
    right = parts.set(username="secretive", password="right-one").render_as_string(hide_password=False)
    assert patient.run(DatabaseUrl(right, "postgresql"), "SELECT 1").rows == [(1,)]
    denied = patient.run(DatabaseUrl(right, "postgresql"), "SELECT * FROM person")
    assert denied.status == "refused" and "permission denied for table person" in denied.error


def test_a_lock_is_waited_for_and_named(postgres: DatabaseUrl) -> None:
    with (
        psycopg.connect(postgres.url) as other,
        Executor(workers=1, limits=PATIENT) as patient,
    ):
        other.execute("LOCK TABLE person")
        result = patient.run(postgres, "SELECT * FROM person")
        assert result.status == "error" and "another session's lock" in result.error
        other.rollback()
        assert patient.run(postgres, "SELECT count(*) FROM person").rows == [(2,)]


def test_a_server_that_drops_us_is_named_and_connected_to_again(postgres: DatabaseUrl, patient: Executor) -> None:
    assert patient.run(postgres, "SELECT 1").rows == [(1,)]
    with psycopg.connect(postgres.url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert patient.run(postgres, "SELECT 1").status == "crashed"
    assert patient.run(postgres, "SELECT 1").rows == [(1,)]


def test_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_URL", "postgresql://ann:secret@host/shop")
    assert str(parse_database("$SHOP_URL")) == "postgresql://ann:***@host/shop"
    with pytest.raises(ConfigError, match=r"data\.database: the environment has no NOTHING_URL"):
        parse_database("$NOTHING_URL", where="data.database")
    known = parse_database("postgres://ann:secret@host:5433/shop")
    assert isinstance(known, DatabaseUrl) and (known.dialect, known.name) == ("postgresql", "shop")
    assert str(known) == "postgresql://ann:***@host:5433/shop" and "secret" not in repr(known)
    assert parse_database("mariadb://ann@host/shop") == DatabaseUrl("mysql://ann@host/shop", "mysql")
    assert parse_database("a.sqlite") == Path("a.sqlite")
    for wrong in ("oracle://ann:secret@host/x", "postgresql://ann:secret@host:port/x", "mysql://ann:secret@host"):
        with pytest.raises(ConfigError) as error:
            parse_database(wrong)
        assert "secret" not in str(error.value)
