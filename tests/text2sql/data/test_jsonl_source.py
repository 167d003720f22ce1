"""Questions of one's own about several databases."""

import json
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.data.jsonl import Jsonl
from tutelage.text2sql.data.own import Own
from tutelage.text2sql.database.address import DatabaseUrl


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("shop", "zoo"):
        path = tmp_path / "databases" / (f"{name}/{name}.sqlite" if name == "shop" else f"{name}.sqlite")
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE item (name TEXT)")
    return tmp_path


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return str(path)


def question(sql: str = "SELECT 1", **more: str) -> dict[str, str]:
    return {"question": "Which  one?", "sql": sql, **more}


def test_questions_over_two_databases(folder: Path) -> None:
    source = Jsonl(
        store=str(folder / "store"),
        train=write(folder / "train.jsonl", question(db_id="shop"), question(db_id="zoo", evidence="one is 1")),
        val=write(folder / "val.jsonl", question(database="databases/zoo.sqlite")),
        test=write(folder / "test.jsonl", question("SELECT name FROM item", db_id="shop", difficulty="easy")),
        databases=str(folder / "databases"),
    )
    assert [e.db_id for e in source.split("train")] == ["shop", "zoo"]
    assert source.split("train")[1].evidence == "one is 1"
    assert source.split("val")[0].db_id == "zoo"
    (example,) = source.split("test")
    assert (example.id, example.question, example.sql) == ("jsonl/test/1", "Which one?", "SELECT name FROM item")
    assert source.catalog("zoo").tables[0].name == "item"
    assert source.notes["questions"] == {"train": 2, "val": 1, "test": 1}
    mapped = Jsonl(
        store=str(folder / "store"), test=str(folder / "test.jsonl"), databases={"shop": str(source.databases["shop"])}
    )
    assert mapped.databases == {"shop": source.databases["shop"]}
    assert mapped.fingerprint != source.fingerprint


def test_bad_rows_are_counted_and_named(folder: Path) -> None:
    file = write(
        folder / "test.jsonl",
        question(db_id="shop"),
        "no json",
        question(sql=" ", db_id="shop"),
        question(),
        question(db_id="lost"),
        question(db_id="shop", database="databases/zoo.sqlite"),
        {"question": 7, "sql": "SELECT 1", "db_id": "shop"},
    )
    with pytest.warns(UserWarning, match="6 of 7 questions are left out: test.jsonl, row 2 is no JSON object; .*; …"):
        source = Jsonl(store=str(folder / "store"), test=file, databases=str(folder / "databases"))
    assert [e.id for e in source.split("test")] == ["jsonl/test/1"]
    assert [text.split(", ", 1)[1].split(":")[0] for text in source.notes["left_out"]] == [
        "row 2 is no JSON object",
        "row 3 has no sql",
        "row 7",
        "row 4",
        "row 5",
        "row 6",
    ]
    assert source.notes["missing_databases"] == ["lost"]


def test_what_cannot_be_used_at_all(folder: Path) -> None:
    with pytest.raises(ConfigError, match="data: no questions"):
        Jsonl(store="store")
    with pytest.raises(ConfigError, match=r"data\.databases: no folder"):
        Jsonl(store="store", test="x", databases=str(folder / "nowhere"))
    with pytest.raises(DataError, match=r"data\.train: no file"):
        Jsonl(store="store", train=str(folder / "nothing.jsonl"))
    with pytest.raises(DataError, match=r"data\.test: no question can be used in .*: row 1: neither db_id"):
        Jsonl(store="store", test=write(folder / "test.jsonl", question()))


def test_what_is_no_sqlite_file_keeps_its_dialect(folder: Path) -> None:
    with closing(duckdb.connect(str(folder / "farm.duckdb"))) as connection:
        connection.execute("CREATE TABLE cow (name VARCHAR); INSERT INTO cow VALUES ('Ada')")
    url = f"duckdb:///{folder / 'farm.duckdb'}"
    source = Jsonl(store=str(folder / "store"), test=write(folder / "t.jsonl", question(database=url)))
    assert source.databases["farm"] == DatabaseUrl(url, "duckdb")
    assert source.notes["dialects"] == {"farm": "duckdb"}
    assert source.catalog("farm").dialect == "duckdb"


def test_own_leaves_bad_rows_out(folder: Path) -> None:
    rows = write(folder / "train.jsonl", question(), "broken", question(db_id="zoo"))
    with pytest.warns(UserWarning, match="1 of 3 questions are left out: train.jsonl, row 2"):
        own = Own(database=str(folder / "databases/shop/shop.sqlite"), store=str(folder / "store"), train=rows)
    assert [e.db_id for e in own.split("train")] == ["shop"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Own(database=str(folder / "databases/zoo.sqlite"), store="store", val=write(folder / "val.jsonl", question()))
