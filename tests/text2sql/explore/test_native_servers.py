"""Exploring, and what follows, in a server's own dialect: names, schemas and types that SQLite does not have."""

from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pymysql
import pytest
import sqlalchemy as sa

from tutelage.core.store import Store
from tutelage.text2sql.data.explored import example_of
from tutelage.text2sql.data.own import Own
from tutelage.text2sql.database.address import DatabaseUrl, parse_database
from tutelage.text2sql.database.catalog import read_catalog
from tutelage.text2sql.database.executor import Executor, Limits
from tutelage.text2sql.database.values import ValueIndex
from tutelage.text2sql.explore.config import explore_settings
from tutelage.text2sql.explore.pair import Pair, read_pairs
from tutelage.text2sql.explore.pipeline import explore
from tutelage.text2sql.prompts.ddl import Ddl
from tutelage.text2sql.results.scoring import ExecutionScorer

# Mixed case, a reserved name, a second schema, an enum, an array, JSON, a moment with its zone, truth values, a view.
POSTGRESQL = """
CREATE SCHEMA sales;
CREATE TYPE mood AS ENUM ('calm', 'cross', 'glad');
CREATE TABLE "Keeper" ("Id" INT PRIMARY KEY, "FullName" TEXT, "order" INT, mood mood, tags TEXT[], extra JSONB);
CREATE TABLE sales.ticket (
    id INT PRIMARY KEY, keeper INT REFERENCES "Keeper" ("Id"), price NUMERIC(8, 2), paid BOOLEAN, city TEXT,
    sold TIMESTAMPTZ);
CREATE VIEW sales.dear AS SELECT id, price, city FROM sales.ticket WHERE price > 50;
CREATE TABLE sales."Keeper" (other INT);
INSERT INTO "Keeper" SELECT n, 'Name ' || n, n % 7, (ARRAY['calm', 'cross', 'glad'])[n % 3 + 1]::mood, ARRAY['a', 'b'],
    '{"a": 1}' FROM generate_series(1, 20) n;
INSERT INTO sales.ticket SELECT n, n * n % 20 + 1, (n * 37 % 200) / 2.0, n % 3 = 0,
    (ARRAY['Rome', 'Oslo', 'Bern', 'Lima'])[n % 4 + 1], TIMESTAMPTZ '2024-01-01 12:00:00+02' + n * INTERVAL '1 day'
    FROM generate_series(1, 150) n;
"""
SQL = """
CREATE TABLE keeper (id INT PRIMARY KEY, fullname VARCHAR(40), mood VARCHAR(10));
CREATE TABLE ticket (id INT PRIMARY KEY, keeper INT, price DECIMAL(8, 2), city VARCHAR(20), sold DATE,
    FOREIGN KEY (keeper) REFERENCES keeper (id));
"""


@pytest.fixture(scope="module")
def zoo(postgres_url: str) -> str:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE zoo")
        connection.execute("CREATE ROLE visitor LOGIN PASSWORD 'only-i-know'")
    url = postgres_url.replace("/postgres", "/zoo")
    with psycopg.connect(url) as connection:
        connection.execute(POSTGRESQL)
        connection.execute(
            "GRANT USAGE ON SCHEMA sales TO visitor; GRANT SELECT ON ALL TABLES IN SCHEMA sales TO visitor"
        )
        connection.execute('GRANT SELECT ON "Keeper" TO visitor')
    return url.replace("tutor@", "visitor:only-i-know@")


def rows_of_keepers() -> list[tuple[Any, ...]]:
    return [(n, f"Name {n}", ("calm", "cross", "glad")[n % 3]) for n in range(1, 21)]


def rows_of_tickets() -> list[tuple[Any, ...]]:
    cities = ("Rome", "Oslo", "Bern", "Lima")
    return [
        (n, n * n % 20 + 1, (n * 37 % 200) / 2, cities[n % 4], f"2024-{n % 12 + 1:02d}-{n % 28 + 1:02d}")
        for n in range(1, 151)
    ]


@pytest.fixture(scope="module")
def mariadb_zoo(mariadb_url: str) -> str:
    parts = sa.make_url(mariadb_url)
    with pymysql.connect(host="127.0.0.1", port=parts.port or 0, user="root") as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE DATABASE zoo")
        cursor.execute("USE zoo")
        for statement in SQL.split(";\n")[:-1]:
            cursor.execute(statement)
        cursor.executemany("INSERT INTO keeper VALUES (%s, %s, %s)", rows_of_keepers())
        cursor.executemany("INSERT INTO ticket VALUES (%s, %s, %s, %s, %s)", rows_of_tickets())
        connection.commit()
    return mariadb_url.replace("/clinic", "/zoo")


@pytest.fixture(scope="module")
def duckdb_zoo(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("duck") / "zoo.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(SQL)
        connection.executemany("INSERT INTO keeper VALUES (?, ?, ?)", rows_of_keepers())
        connection.executemany("INSERT INTO ticket VALUES (?, ?, ?, ?, ?)", rows_of_tickets())
    return str(path)


def explored_of(database: str, folder: Path, *, walks: int = 12) -> list[Pair]:
    base = "tutelage.text2sql.explore"
    settings = explore_settings(
        {
            "database": database,
            "walks": walks,
            "max_level": 3,
            "limits": {"workers": 0},
            "sampler": {"_target_": f"{base}.samplers.join_tree.JoinTree", "size": 6, "max_tables": 2},
            "synthesizer": {"_target_": f"{base}.synthesizers.offline.Offline", "width": 3},
        }
    )
    return read_pairs(explore(settings, store=Store(folder / "store"), say=lambda _: None))


def assert_pairs_run(database: str, pairs: list[Pair]) -> None:
    address = parse_database(database)
    assert len(pairs) >= 10
    with Executor(workers=0, limits=Limits()) as executor:
        examples = [example_of(pair) for pair in pairs]
        assert {executor.run(address, example.sql or "").status for example in examples} == {"ok"}
        scorer = ExecutionScorer({pairs[0].db_id: address}, executor=executor)
        assert {item.right for item in scorer.score(examples, [example.sql or "" for example in examples])} == {True}
        wrong = scorer.score(examples[:3], ["SELECT 'nothing like it'"] * 3)
        assert [item.right for item in wrong] == [False] * 3


def test_postgresql(zoo: str, tmp_path: Path) -> None:
    catalog = read_catalog(zoo)
    assert [table.name for table in catalog.tables] == ["Keeper", "ticket", "dear"]
    assert any(note.startswith("sales.Keeper left out") for note in catalog.notes)
    assert "only-i-know" not in repr(catalog)
    keeper, ticket = catalog.table("Keeper"), catalog.table("ticket")
    assert keeper.column("mood").frequent == ("cross", "glad", "calm")
    assert [key.referred_table for key in ticket.foreign_keys] == ["Keeper"]
    assert ticket.column("paid").frequent == ("false", "true")
    assert str(ticket.column("sold").minimum).startswith("2024-01-02 10:00:00")
    pairs = explored_of(zoo, tmp_path, walks=24)
    assert_pairs_run(zoo, pairs)
    written = " ".join(pair.native_sql for pair in pairs)
    assert '"Keeper"' in written and "FROM ticket" in written
    for file in tmp_path.rglob("*.json*"):
        assert "only-i-know" not in file.read_text()


def test_postgresql_in_prompts_and_values(zoo: str, tmp_path: Path) -> None:
    own = Own(database=zoo, store=str(tmp_path))
    assert own.notes["dialect"] == "postgresql" and "only-i-know" not in repr(vars(own))
    catalog = own.catalog("zoo")
    prompt = Ddl(template="chatml", comments=True, samples=2, max_values=2, max_tokens=4096)
    example = example_of(Pair("1", "zoo", 1, "Who?", "", (), "mix", None, 0, (), (), {}, native_sql="SELECT 1"))
    said = "\n".join(message["content"] for message in prompt.messages(example, catalog, matches={}))
    assert "one PostgreSQL query" in said and 'CREATE TABLE "Keeper" (' in said and '    "order" INTEGER' in said
    index = ValueIndex.open(catalog, database=own.databases["zoo"], store=None)
    assert index.match("Which tickets were sold in Rome?") == {("dear", "city"): ["Rome"]} or index.match(
        "Which tickets were sold in Rome?"
    ) == {("ticket", "city"): ["Rome"]}


def test_mariadb(mariadb_zoo: str, tmp_path: Path) -> None:
    catalog = read_catalog(mariadb_zoo)
    assert [(table.name, table.num_rows) for table in catalog.tables] == [("keeper", 20), ("ticket", 150)]
    assert_pairs_run(mariadb_zoo, explored_of(mariadb_zoo, tmp_path))


def test_duckdb(duckdb_zoo: str, tmp_path: Path) -> None:
    assert_pairs_run(duckdb_zoo, explored_of(duckdb_zoo, tmp_path))


def test_a_role_that_may_write_is_named_once(zoo: str, recwarn: pytest.WarningsRecorder) -> None:
    from tutelage.text2sql.database.check import check_database

    owner = DatabaseUrl(zoo.replace("visitor:only-i-know@", "tutor@"), "postgresql")
    for _ in range(2):
        check_database(owner)
        check_database(parse_database(zoo))
    (said,) = [str(warning.message) for warning in recwarn if "can do more than read" in str(warning.message)]
    assert "it is a superuser" in said
    with Executor(workers=0, limits=Limits()) as executor:
        assert executor.run(owner, "DELETE FROM sales.ticket").status == "refused"
