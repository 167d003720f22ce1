"""What the tests of text-to-SQL share: a store, a small Spider and a small BIRD, made on the spot."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from servers import mariadb_server, postgres_server

SHOP = """
CREATE TABLE shop (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE sale (id INTEGER PRIMARY KEY, shop_id INTEGER REFERENCES shop (id), amount REAL, value INTEGER);
INSERT INTO shop VALUES (1, 'Ada', 'Bonn'), (2, 'Bob', 'Bonn'), (3, 'Cy', 'Graz');
INSERT INTO sale VALUES (1, 1, 2.0, 5), (2, 1, 2.5, 5), (3, 2, 2.0, 7), (4, 3, 9.0, 7);
"""
SPIDER = (
    ("shop", "How many shops?", "SELECT count(*) FROM shop"),
    ("shop", "Which cities?", "SELECT DISTINCT city FROM shop"),
    ("shop", "Names by name?", "SELECT name FROM shop ORDER BY name"),
    ("shop", "Sales above 100?", "SELECT id FROM sale WHERE amount > 100"),
    ("shop", "Shops of Bonn?", "SELECT name , id FROM shop WHERE city = 'Bonn'"),
)


@pytest.fixture(scope="session")
def embedded_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give one store to the whole session, so that the embedded database is made once."""
    return tmp_path_factory.mktemp("embedded_store")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server of this session's own, by the URL of its superuser."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    """A MariaDB server of this session's own, by the URL of its superuser."""
    with mariadb_server() as url:
        yield url


def _make_database(path: Path, script: str = SHOP) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


@pytest.fixture
def make_database() -> Callable[[Path, str], Path]:
    """Makes an SQLite file from a script, and its folder."""
    return _make_database


@pytest.fixture
def spider_root(tmp_path: Path) -> Path:
    """Spider's layout with one database and five questions."""
    root = tmp_path / "spider"
    _make_database(root / "database" / "shop" / "shop.sqlite")
    questions = [{"db_id": db, "question": question, "query": sql} for db, question, sql in SPIDER]
    (root / "dev.json").write_text(json.dumps(questions))
    tables = {
        "db_id": "shop",
        "table_names_original": ["shop", "sale"],
        "column_names_original": [
            [-1, "*"],
            [0, "id"],
            [0, "name"],
            [0, "city"],
            [1, "id"],
            [1, "shop_id"],
            [1, "amount"],
            [1, "value"],
        ],
        "foreign_keys": [[5, 1]],
    }
    (root / "tables.json").write_text(json.dumps([tables]))
    return root


@pytest.fixture
def bird_root(tmp_path: Path) -> Path:
    """BIRD's layout with four questions, one of them on a database that is not there."""
    root = tmp_path / "bird"
    script = SHOP + "CREATE TABLE raw (a TEXT); INSERT INTO raw VALUES (CAST(x'ff41' AS TEXT));"
    _make_database(root / "dev_databases" / "shop" / "shop.sqlite", script)
    golds = [
        ("shop", "SELECT name FROM shop", "simple"),
        ("absent", "SELECT 1", "simple"),
        ("shop", "SELECT city, COUNT(*) FROM shop GROUP BY city", "moderate"),
        ("shop", "SELECT a FROM raw", "challenging"),
    ]
    questions = [
        {"question_id": 10 + number, "db_id": db, "question": "?", "evidence": "", "SQL": sql, "difficulty": difficulty}
        for number, (db, sql, difficulty) in enumerate(golds)
    ]
    (root / "dev.json").write_text(json.dumps(questions))
    return root
