"""A database of one's own."""

import json
import sqlite3
from pathlib import Path

import pytest

from tutelage.core.errors import DataError
from tutelage.text2sql.data.own import Own
from tutelage.text2sql.explore.pair import Pair


def write_pairs(folder: Path, *db_ids: str) -> None:
    """Write pairs about databases, in their order."""
    pairs = [
        Pair(f"{number}", db_id, 1, "Which?", "SELECT name FROM item", (), "mix", None, 0, (), ("item",), {})
        for number, db_id in enumerate(db_ids)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair.to_json()) + "\n" for pair in pairs))


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
    write_pairs(explored, "shop")
    questions = tmp_path / "test.jsonl"
    questions.write_text(json.dumps({"question": "How many items?", "sql": "SELECT count(*) FROM item"}) + "\n")
    source = Own(database=str(shop), store=str(tmp_path / "store"), explored=str(explored), test=str(questions))
    assert source.explored == explored
    assert source.split("train") == []
    (example,) = source.split("test")
    assert (example.id, example.db_id, example.sql) == ("own/test/0", "shop", "SELECT count(*) FROM item")
    assert source.catalog("shop").tables[0].name == "item"
    assert source.fingerprint != Own(database=str(shop), store=str(tmp_path / "store")).fingerprint


def test_what_was_explored_is_part_of_the_fingerprint(shop: Path, tmp_path: Path) -> None:
    def fingerprint(count: int) -> str:
        write_pairs(tmp_path, *["shop"] * count)
        return Own(database=str(shop), store=str(tmp_path / "store"), explored=str(tmp_path)).fingerprint

    assert fingerprint(1) == fingerprint(1) != fingerprint(2)


def test_pairs_of_another_database_are_refused(shop: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path, "shop", "zoo", "zoo")
    with pytest.raises(DataError, match=r"data\.explored: .*pairs\.jsonl asks about zoo, but data\.database is shop"):
        Own(database=str(shop), store=str(tmp_path / "store"), explored=str(tmp_path))


def test_a_damaged_line_is_named(shop: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path, "shop", "shop")
    for damage in ("{}", "[1]", '{"id": "1", "db_id"', "7"):
        with (tmp_path / "pairs.jsonl").open("a") as file:
            file.write(damage + "\n")
        with pytest.raises(DataError, match=r"line 3 of .*pairs\.jsonl is no pair"):
            Own(database=str(shop), store=str(tmp_path / "store"), explored=str(tmp_path))
        write_pairs(tmp_path, "shop", "shop")


def test_validation_questions_of_ones_own(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "val.jsonl").write_text(json.dumps({"question": "Q?", "sql": "SELECT 1"}) + "\n")
    source = Own(database=str(shop), store=str(tmp_path / "store"), val=str(tmp_path / "val.jsonl"))
    assert [example.id for example in source.split("val")] == ["own/val/0"]


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
