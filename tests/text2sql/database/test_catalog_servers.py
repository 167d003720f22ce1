"""Catalogs of DuckDB (a file) and PostgreSQL (a server that the test starts, where one is installed)."""

import re
import sqlite3
from pathlib import Path

import duckdb
import psycopg
import pytest

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.store import Store
from tutelage.text2sql.database.address import DatabaseUrl, parse_database
from tutelage.text2sql.database.catalog import Catalog, ForeignKey, read_catalog
from tutelage.text2sql.database.snapshot import snapshot

SCRIPT = """
CREATE TABLE "Owners" (id INTEGER PRIMARY KEY, "full name" VARCHAR NOT NULL, born DATE);
CREATE TABLE visits (
    day DATE, nr INTEGER, owner INTEGER REFERENCES "Owners" (id), fee DECIMAL(8, 2), paid BOOLEAN,
    PRIMARY KEY (day, nr));
CREATE TABLE bills (day DATE, nr INTEGER, vet INTEGER, FOREIGN KEY (day, nr) REFERENCES visits (day, nr));
CREATE TABLE vets (id INTEGER PRIMARY KEY);
CREATE VIEW dear AS SELECT * FROM visits WHERE fee > 10;
INSERT INTO "Owners" VALUES (1, 'Ann', '1990-05-01'), (2, 'Bo', NULL);
INSERT INTO visits VALUES
    ('2024-01-01', 1, 1, 20, true), ('2024-01-01', 2, 1, 20, false), ('2024-01-02', 1, 2, 7.5, NULL);
INSERT INTO vets VALUES (5), (6);
INSERT INTO bills VALUES ('2024-01-01', 1, 5);
COMMENT ON TABLE visits IS 'one row a visit';
COMMENT ON COLUMN visits.fee IS 'in euros';
"""


def assert_is_the_clinic(catalog: Catalog) -> None:
    assert sorted(table.name for table in catalog.tables) == ["Owners", "bills", "dear", "vets", "visits"]
    visits = catalog.table("visits")
    assert (visits.primary_key, visits.num_rows, visits.is_view) == (("day", "nr"), 3, False)
    assert catalog.table("dear").is_view and catalog.table("dear").num_rows == 2
    assert set(catalog.foreign_keys) == {
        ForeignKey("visits", ("owner",), "Owners", ("id",)),
        ForeignKey("bills", ("day", "nr"), "visits", ("day", "nr")),
        ForeignKey("bills", ("vet",), "vets", ("id",), inferred=True),
    }
    assert visits.comment == "one row a visit"
    fee = catalog.column("visits", "fee")
    assert (fee.comment, fee.num_distinct, fee.num_null, fee.minimum, fee.maximum) == ("in euros", 2, 0, 7.5, 20)
    assert fee.frequent == (20, 7.5)
    born = catalog.column("Owners", "born")
    assert (born.num_null, born.frequent) == (1, ("1990-05-01",))
    assert not catalog.column("Owners", "full name").nullable
    assert set(catalog.column("visits", "paid").frequent) == {"true", "false"}


def _address(url: str) -> DatabaseUrl:
    address = parse_database(url)
    assert isinstance(address, DatabaseUrl)
    return address


def assert_snapshot_holds_the_clinic(url: str, folder: Path) -> None:
    catalog = read_catalog(url)
    copy = snapshot(_address(url), catalog, store=Store(folder), max_rows=2)
    assert copy.catalog.dialect == "sqlite"
    assert any(re.search("visits: [23] of 3 rows", note) for note in copy.catalog.notes)
    connection = sqlite3.connect(copy.path)
    assert connection.execute('SELECT "full name", born FROM "Owners" ORDER BY id').fetchall() == [
        ("Ann", "1990-05-01"),
        ("Bo", None),
    ]
    assert connection.execute("SELECT DISTINCT typeof(fee) FROM visits WHERE fee = 20").fetchone() == ("integer",)
    assert connection.execute("SELECT count(*) FROM bills JOIN visits USING (day, nr)").fetchone() == (1,)
    connection.close()


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    path = tmp_path / "clinic.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(SCRIPT)
    return path


def test_duckdb(clinic: Path, tmp_path: Path) -> None:
    before = clinic.read_bytes()
    by_url = read_catalog(f"duckdb:///{clinic}", infer_keys=True)
    assert_is_the_clinic(by_url)
    assert (by_url.db_id, by_url.dialect) == ("clinic", "duckdb")
    assert read_catalog(clinic, infer_keys=True) == by_url  # the file is known by its first bytes
    assert_snapshot_holds_the_clinic(f"duckdb:///{clinic}", tmp_path / "store")
    assert clinic.read_bytes() == before


@pytest.fixture(scope="module")
def postgres(postgres_url: str) -> str:
    """A database of its own."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE clinic")
    url = postgres_url.replace("/postgres", "/clinic")
    with psycopg.connect(url) as connection:
        connection.execute(SCRIPT)
        connection.execute("CREATE ROLE reader LOGIN; GRANT SELECT ON visits TO reader")
        connection.execute("CREATE TABLE odd (shape POINT, doc JSON); INSERT INTO odd VALUES ('(1,2)', '{}')")
    return url


def test_postgresql(postgres: str, tmp_path: Path) -> None:
    catalog = read_catalog(postgres, db_id="clinic", infer_keys=True)
    odd = catalog.table("odd")
    assert odd.num_rows == 1 and {column.num_distinct for column in odd.columns} == {None}
    assert sum(note.startswith("statistics of odd.") for note in catalog.notes) == 2
    without_odd = Catalog("clinic", "", "postgresql", tuple(t for t in catalog.tables if t.name != "odd"))
    assert_is_the_clinic(without_odd)
    assert_snapshot_holds_the_clinic(postgres, tmp_path / "store")


def test_postgresql_is_only_read(postgres: str) -> None:
    from tutelage.text2sql.database.introspect_server import connect

    with pytest.raises(DataError, match="read-only transaction"), connect(_address(postgres)) as connection:
        connection.exec_driver_sql("INSERT INTO vets VALUES (9)")


def test_postgresql_says_what_may_not_be_read(postgres: str) -> None:
    catalog = read_catalog(postgres.replace("tutor", "reader"))
    assert [table.name for table in catalog.tables] == ["visits"]
    assert any(note.startswith("vets left out: permission denied") for note in catalog.notes)
    assert any(note.startswith("foreign key visits → Owners left out") for note in catalog.notes)
    with pytest.raises(DataError, match=r'database "gone" does not exist'):
        read_catalog(postgres.replace("/clinic", "/gone"))


def test_urls_that_cannot_work() -> None:
    with pytest.raises(ConfigError, match="oracle:// is not a known kind of database"):
        read_catalog("oracle://scott@host/x")
    with pytest.raises(DataError, match="cannot be opened") as error:
        read_catalog("postgresql://tutor:secret@127.0.0.1:1/x")
    assert "secret" not in str(error.value)


def test_a_cut_copy_is_random_whole_and_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE maker (id INTEGER PRIMARY KEY, land VARCHAR)")
        connection.execute("CREATE TABLE thing (id INTEGER PRIMARY KEY, maker INTEGER REFERENCES maker(id))")
        connection.execute("CREATE TABLE sale (id INTEGER PRIMARY KEY, thing INTEGER REFERENCES thing(id))")
        connection.execute("INSERT INTO maker SELECT n, 'L' || n % 7 FROM range(300) t(n)")
        connection.execute("INSERT INTO thing SELECT n, (n * 7) % 300 FROM range(400) t(n)")
        connection.execute("INSERT INTO sale SELECT n, (n * 11) % 400 FROM range(500) t(n)")
    url = f"duckdb:///{path}"
    copies = []
    for folder in ("first", "second"):
        copy = snapshot(_address(url), read_catalog(url), store=Store(tmp_path / folder), max_rows=50)
        with sqlite3.connect(copy.path) as file:
            copies.append([file.execute(f"SELECT * FROM {name}").fetchall() for name in ("maker", "thing", "sale")])
    makers, things, sales = copies[0]
    assert copies[0] == copies[1] and len(sales) == 50
    assert max(sale[0] for sale in sales) > 400  # not the first ones
    assert {sale[1] for sale in sales} <= {thing[0] for thing in things}
    assert {thing[1] for thing in things} <= {maker[0] for maker in makers}
    assert f"thing: {len(things)} of 400 rows are copied" in copy.catalog.notes
