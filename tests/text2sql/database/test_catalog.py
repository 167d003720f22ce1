import sqlite3
from pathlib import Path

import pytest

from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.database.catalog import ForeignKey, read_catalog


def make(path: Path, script: str) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.commit()
    connection.close()
    return path


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return make(
        tmp_path / "shop.sqlite",
        """
        CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT, photo BLOB);
        CREATE TABLE orders (
            shop INTEGER, number INTEGER, customer INTEGER REFERENCES Customers, total REAL,
            PRIMARY KEY (number, shop));
        CREATE TABLE lines (
            shop INTEGER, number INTEGER, line INTEGER, twice INTEGER AS (line * 2),
            FOREIGN KEY (shop, number) REFERENCES orders (shop, number));
        CREATE VIEW big AS SELECT * FROM orders WHERE total > 10;
        CREATE VIRTUAL TABLE notes USING fts5 (body);
        INSERT INTO customers VALUES (1, 'Ann', 'Oslo', x'00'), (2, 'Bo', 'Oslo', NULL), (3, 'Cy', NULL, NULL);
        INSERT INTO orders VALUES (1, 1, 1, 5.0), (1, 2, 1, 20.5), (2, 1, 3, NULL);
        INSERT INTO lines (shop, number, line) VALUES (1, 1, 1);
        INSERT INTO notes VALUES ('called');
        """,
    )


def test_tables_keys_and_views(shop: Path) -> None:
    catalog = read_catalog(shop)
    assert [table.name for table in catalog.tables] == ["customers", "orders", "lines", "big", "notes"]
    assert (catalog.db_id, catalog.dialect, catalog.notes) == ("shop", "sqlite", ())
    assert catalog.table("ORDERS").primary_key == ("number", "shop")
    assert catalog.foreign_keys == (
        # The implied key of customers is filled in, and its name spelled as it was made.
        ForeignKey("orders", ("customer",), "customers", ("id",)),
        ForeignKey("lines", ("shop", "number"), "orders", ("shop", "number")),
    )
    assert catalog.table("big").is_view and catalog.table("big").num_rows == 1
    assert [column.name for column in catalog.table("lines").columns] == ["shop", "number", "line", "twice"]
    assert not catalog.column("customers", "name").nullable
    with pytest.raises(KeyError):
        catalog.column("customers", "age")


def test_statistics(shop: Path) -> None:
    catalog = read_catalog(shop)
    city = catalog.column("customers", "city")
    assert (city.num_distinct, city.num_null, city.minimum, city.maximum) == (1, 1, "Oslo", "Oslo")
    assert city.frequent == ("Oslo",)
    total = catalog.column("orders", "total")
    assert (total.num_distinct, total.num_null, total.minimum, total.maximum) == (2, 1, 5.0, 20.5)
    photo = catalog.column("customers", "photo")
    assert (photo.num_distinct, photo.num_null, photo.frequent) == (1, 2, ())
    assert catalog.table("orders").num_rows == 3
    bare = read_catalog(shop, statistics=False)
    assert bare.table("orders").num_rows is None and bare.column("customers", "city").num_distinct is None


def test_statistics_equal_a_slow_count(shared_data: Path) -> None:
    path = shared_data / "bird/dev_databases/superhero/superhero.sqlite"
    catalog = read_catalog(path)
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    for table in catalog.tables:
        for column in table.columns:
            values = [row[0] for row in connection.execute(f'SELECT "{column.name}" FROM "{table.name}"')]
            present = [value for value in values if value is not None]
            assert column.num_null == len(values) - len(present)
            assert column.num_distinct == len(set(present))
            assert (column.minimum, column.maximum) == (min(present), max(present))
            counts = [present.count(value) for value in column.frequent]
            assert counts == sorted(counts, reverse=True)
            assert len(column.frequent) == min(20, len(set(present)))
    connection.close()


def test_bird_descriptions(shared_data: Path) -> None:
    catalog = read_catalog(shared_data / "bird/dev_databases/superhero/superhero.sqlite")
    height = catalog.column("superhero", "height_cm")
    assert height.description == "the height of the superhero"
    assert height.value_description.startswith("commonsense evidence:\nThe unit of height is centimeter.")
    assert catalog.column("superhero", "full_name").spoken_name == "full name"
    assert len(catalog.foreign_keys) == 11
    assert catalog.notes == ()


def test_descriptions_in_another_encoding_and_of_unknown_columns(shop: Path, tmp_path: Path) -> None:
    folder = tmp_path / "meanings"
    folder.mkdir()
    text = "original_column_name,column_name,column_description,value_description\ncity,,caf\u00e9,\nage,,,\n"
    (folder / "Customers.csv").write_bytes(text.encode("cp1252"))
    (folder / "gone.csv").write_text("original_column_name\n")
    catalog = read_catalog(shop, descriptions=folder)
    assert catalog.column("customers", "city").description == "café"
    assert catalog.notes == (
        "description Customers.csv: customers has no column age",
        "description gone.csv left out: no such table",
    )
    (folder / "orders.csv").write_text("name,meaning\ntotal,money\n")
    with pytest.raises(DataError, match="has no column original_column_name"):
        read_catalog(shop, descriptions=folder)


def test_odd_names(tmp_path: Path) -> None:
    path = make(
        tmp_path / "odd.sqlite",
        """
        CREATE TABLE "order" ("group" TEXT, "two words" INTEGER, "quo""te" TEXT, "Straße 🚲" TEXT, "a.b" TEXT);
        CREATE TABLE "it's; DROP TABLE x" ("select" INTEGER REFERENCES "order" ("two words"));
        INSERT INTO "order" VALUES ('g', 1, 'q', 'ü', 'd');
        """,
    )
    catalog = read_catalog(path)
    assert [column.name for column in catalog.table("order").columns] == [
        "group", "two words", 'quo"te', "Straße 🚲", "a.b",
    ]  # fmt: skip
    assert catalog.column("order", "straSSe 🚲").frequent == ("ü",)
    assert catalog.foreign_keys == (ForeignKey("it's; DROP TABLE x", ("select",), "order", ("two words",)),)


def test_what_does_not_fit_is_left_out_with_a_note(tmp_path: Path) -> None:
    path = make(
        tmp_path / "broken.sqlite",
        """
        CREATE TABLE a (id INTEGER PRIMARY KEY, b INTEGER REFERENCES gone (id), c INTEGER REFERENCES pair);
        CREATE TABLE pair (x INTEGER, y INTEGER, PRIMARY KEY (x, y));
        CREATE VIEW v AS SELECT lost FROM pair;
        INSERT INTO a VALUES (1, 2, 3);
        """,
    )
    catalog = read_catalog(path)
    assert [table.name for table in catalog.tables] == ["a", "pair"]
    assert catalog.foreign_keys == ()
    assert catalog.notes == (
        "view v left out: no such column: lost",
        "foreign key a(b) → gone left out: no such table",
        "foreign key a(c) → pair left out: its columns do not fit (count differs)",
    )


def test_huge_cells_and_bad_text_are_counted_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "huge.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (prose TEXT)")
    connection.executemany("INSERT INTO t VALUES (?)", [("x" * 20_000_000,), ("short",)])
    connection.execute("INSERT INTO t VALUES (CAST(x'ff41' AS TEXT))")
    connection.commit()
    connection.close()
    prose = read_catalog(path).column("t", "prose")
    assert prose.num_distinct == 3
    assert prose.frequent == ("short",)
    assert prose.minimum == "short"


def test_two_thousand_tables_take_a_few_statements_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tutelage.text2sql.database import introspect_sqlite

    script = "".join(
        f"CREATE TABLE t{i} (id INTEGER PRIMARY KEY, p INTEGER REFERENCES t{i // 2});" for i in range(2000)
    )
    path = make(tmp_path / "many.sqlite", "BEGIN;" + script + "COMMIT;")
    statements = 0
    kept = introspect_sqlite.open_readonly

    def count(_: str) -> None:
        nonlocal statements
        statements += 1

    def traced(path: Path) -> sqlite3.Connection:
        connection = kept(path)
        connection.set_trace_callback(count)
        return connection

    monkeypatch.setattr(introspect_sqlite, "open_readonly", traced)
    catalog = read_catalog(path)
    assert len(catalog.tables) == 2000 and len(catalog.foreign_keys) == 2000
    assert statements <= 10 * 2000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"name,age\nAnn,3\n", "is not a SQLite database, or it is encrypted"),
        (bytes(range(256)) * 16, "is not a SQLite database, or it is encrypted"),
    ],
    ids=["empty", "csv", "encrypted"],
)
def test_not_a_database(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_catalog(path)


def test_missing_and_folder_and_no_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        read_catalog(tmp_path / "gone.sqlite")
    with pytest.raises(DataError, match="is a folder"):
        read_catalog(tmp_path)
    with pytest.raises(DataError, match="has no tables"):
        read_catalog(make(tmp_path / "bare.sqlite", "CREATE TABLE t (a); DROP TABLE t;"))


def test_truncated(shop: Path, tmp_path: Path) -> None:
    whole = shop.read_bytes()
    cut = tmp_path / "cut.sqlite"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is truncated"):
        read_catalog(cut)
    # The header agrees, the pages behind it do not.
    plain = make(tmp_path / "plain.sqlite", "CREATE TABLE t (a); INSERT INTO t VALUES (1);").read_bytes()
    cut.write_bytes(plain[:4096] + b"\xff" * (len(plain) - 4096))
    with pytest.raises(DataError, match="damaged, truncated or encrypted"):
        read_catalog(cut)


def test_locked(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tutelage.text2sql.database import introspect_sqlite

    impatient = introspect_sqlite.open_readonly
    monkeypatch.setattr(introspect_sqlite, "open_readonly", lambda path: impatient(path, seconds=0.05))
    writer = sqlite3.connect(shop)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DataError, match="locked by another program"):
        read_catalog(shop)
    writer.close()
    assert len(read_catalog(shop).tables) == 5


def test_wal_without_its_companion_is_read_and_nothing_is_made(shop: Path, tmp_path: Path) -> None:
    writer = sqlite3.connect(shop)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("INSERT INTO customers (id, name) VALUES (9, 'late')")
    writer.commit()
    lone = tmp_path / "lone" / "shop.sqlite"
    lone.parent.mkdir()
    lone.write_bytes(shop.read_bytes())  # without shop.sqlite-wal
    assert read_catalog(shop).table("customers").num_rows == 4  # the companion is there: it is read
    writer.close()
    assert read_catalog(lone).table("customers").num_rows == 3
    assert [path.name for path in lone.parent.iterdir()] == ["shop.sqlite"]


def test_reading_changes_no_byte(shop: Path) -> None:
    before = shop.read_bytes()
    read_catalog(shop, infer_keys=True)
    assert shop.read_bytes() == before
    assert sorted(path.name for path in shop.parent.iterdir()) == ["shop.sqlite"]


def test_infer_keys(tmp_path: Path) -> None:
    path = make(
        tmp_path / "undeclared.sqlite",
        """
        CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE cities (city_code TEXT PRIMARY KEY, mayor TEXT);
        CREATE TABLE orders (
            order_id INTEGER PRIMARY KEY, customer_id INTEGER, city_code TEXT, agent_id INTEGER, name TEXT);
        CREATE TABLE agents (id INTEGER PRIMARY KEY);
        CREATE TABLE invoices (order_id INTEGER PRIMARY KEY, amount REAL);
        INSERT INTO customers VALUES (1, 'a'), (2, 'b');
        INSERT INTO cities VALUES ('o', 'x'), ('p', 'y');
        INSERT INTO agents VALUES (7);
        INSERT INTO orders VALUES (1, 1, 'o', 8, 'a'), (2, 2, NULL, 7, 'b'), (3, 1, 'p', 7, 'a');
        INSERT INTO invoices VALUES (1, 2.5), (3, 7.0);
        """,
    )
    assert read_catalog(path).foreign_keys == ()
    assert read_catalog(path, infer_keys=True).foreign_keys == (
        ForeignKey("orders", ("customer_id",), "customers", ("id",), inferred=True),
        ForeignKey("orders", ("city_code",), "cities", ("city_code",), inferred=True),
        # agent_id 8 has no agent; name is no key; invoices holds a part of the orders, not the other way round.
        ForeignKey("invoices", ("order_id",), "orders", ("order_id",), inferred=True),
    )
    with pytest.raises(ConfigError, match="inferred from values"):
        read_catalog(path, infer_keys=True, statistics=False)


@pytest.mark.parametrize("db_id", ["dog_kennels", "student_transcripts_tracking", "orchestra"])
def test_declared_keys_of_spider_are_inferred_again(shared_data: Path, tmp_path: Path, db_id: str) -> None:
    """Take the foreign keys out of a real schema: all come back, and no other."""
    path = shared_data / f"spider/database/{db_id}/{db_id}.sqlite"
    catalog = read_catalog(path)
    copy = tmp_path / f"{db_id}.sqlite"
    source, target = sqlite3.connect(f"file:{path}?mode=ro", uri=True), sqlite3.connect(copy)
    for table in catalog.tables:
        key = f", PRIMARY KEY ({', '.join(table.primary_key)})" if table.primary_key else ""
        declared = ", ".join(f'"{column.name}" {column.type}' for column in table.columns)
        target.execute(f'CREATE TABLE "{table.name}" ({declared}{key})')
        marks = ", ".join("?" * len(table.columns))
        target.executemany(
            f'INSERT INTO "{table.name}" VALUES ({marks})', source.execute(f'SELECT * FROM "{table.name}"')
        )
    target.commit()
    target.close()
    source.close()
    assert read_catalog(copy).foreign_keys == ()
    inferred = read_catalog(copy, infer_keys=True).foreign_keys
    assert all(key.inferred for key in inferred)
    assert {(key.table, key.columns) for key in inferred} == {(key.table, key.columns) for key in catalog.foreign_keys}
