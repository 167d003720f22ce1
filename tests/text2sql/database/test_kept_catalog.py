"""A kept catalog is the one that was read."""

import sqlite3
from pathlib import Path

import pytest

from tutelage.core.errors import DataError
from tutelage.core.store import Store
from tutelage.text2sql.database import kept_catalog as module
from tutelage.text2sql.database.catalog import read_catalog
from tutelage.text2sql.database.kept_catalog import kept_catalog


def make(path: Path) -> Path:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            CREATE TABLE place (id INTEGER PRIMARY KEY, name TEXT NOT NULL, height REAL);
            CREATE TABLE trip (place_id INTEGER REFERENCES place (id), "day of" TEXT);
            INSERT INTO place VALUES (1, 'Å', 1.5), (2, 'B', NULL);
            INSERT INTO trip VALUES (1, 'Monday'), (1, 'Monday'), (2, x'00');
            CREATE VIEW high AS SELECT * FROM place WHERE height > 1;
            """
        )
    connection.close()
    return path


def test_it_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, store = make(tmp_path / "one" / "d.sqlite"), Store(tmp_path / "store")
    fresh = read_catalog(path, db_id="d")
    assert kept_catalog(path, db_id="d", descriptions=None, store=store) == fresh
    monkeypatch.setattr(module, "read_catalog", None)  # whoever reads again fails
    assert kept_catalog(path, db_id="d", descriptions=None, store=store) == fresh
    moved = path.rename(tmp_path / "d.sqlite")
    assert kept_catalog(moved, db_id="d", descriptions=None, store=store).database == str(moved)


def test_a_change_of_rows_or_of_meanings_is_seen(tmp_path: Path) -> None:
    path, store = make(tmp_path / "one" / "d.sqlite"), Store(tmp_path / "store")
    kept_catalog(path, db_id="d", descriptions=None, store=store)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO place VALUES (3, 'C', 0)")
    connection.close()
    assert kept_catalog(path, db_id="d", descriptions=None, store=store).table("place").num_rows == 3
    folder = path.parent / "database_description"
    folder.mkdir()
    (folder / "place.csv").write_text("original_column_name,column_name,column_description\nname,,what it is called\n")
    column = kept_catalog(path, db_id="d", descriptions=None, store=store).column("place", "name")
    assert column.description == "what it is called"


def test_a_file_that_vanished(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        kept_catalog(tmp_path / "d.sqlite", db_id="d", descriptions=None, store=Store(tmp_path / "store"))
