"""A database of one's own."""

import json
import sqlite3
from pathlib import Path

import pytest

from tutelage.core.errors import DataError
from tutelage.text2sql.data.own import Own


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE item (name TEXT, price INTEGER)")
    connection.close()
    return path


def test_own(shop: Path, tmp_path: Path) -> None:
    explored = tmp_path / "explored"
    explored.mkdir()
    (explored / "pairs.jsonl").write_text("{}\n")
    questions = tmp_path / "test.jsonl"
    questions.write_text(json.dumps({"question": "How many items?", "sql": "SELECT count(*) FROM item"}) + "\n")
    source = Own(database=str(shop), store=str(tmp_path / "store"), explored=str(explored), test=str(questions))
    assert source.explored == explored
    assert source.split("train") == []
    (example,) = source.split("test")
    assert (example.id, example.db_id, example.sql) == ("own/test/0", "shop", "SELECT count(*) FROM item")
    assert source.catalog("shop").tables[0].name == "item"
    assert source.fingerprint != Own(database=str(shop), store=str(tmp_path / "store")).fingerprint


@pytest.mark.parametrize(
    ("key", "make", "message"),
    [
        ("explored", lambda folder: None, "no folder"),
        ("explored", lambda folder: folder.mkdir(), r"no pairs\.jsonl"),
        ("explored", lambda folder: (folder.mkdir(), (folder / "pairs.jsonl").touch()), "is empty"),
        ("test", lambda folder: None, "no file"),
        (
            "test",
            lambda folder: folder.write_text('{"question": "Q?", "sql": "SELECT 1", "db_id": "other"}'),
            "no question about shop",
        ),
        ("descriptions", lambda folder: None, "no folder"),
    ],
)
def test_what_is_wrong_is_said_at_once(shop: Path, tmp_path: Path, key: str, make, message: str) -> None:
    make(tmp_path / "given")
    with pytest.raises(DataError, match=message):
        Own(database=str(shop), store=str(tmp_path / "store"), **{key: str(tmp_path / "given")})


def test_a_database_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.database: no file"):
        Own(database=str(tmp_path / "nothing.sqlite"), store="store")
    (tmp_path / "text.sqlite").write_text("hello")
    with pytest.raises(DataError, match="is not a SQLite database"):
        Own(database=str(tmp_path / "text.sqlite"), store="store")
