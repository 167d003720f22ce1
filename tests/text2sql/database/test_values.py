"""Values of a database that a question speaks of."""

import json
import re
import sqlite3
from pathlib import Path

import pytest

from tutelage.core.errors import DataError
from tutelage.core.store import Store
from tutelage.text2sql.database import values
from tutelage.text2sql.database.catalog import read_catalog
from tutelage.text2sql.database.values import Entry, ValueIndex


@pytest.fixture
def airline_file(tmp_path: Path) -> Path:
    path = tmp_path / "air.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            CREATE TABLE airline (code TEXT, name TEXT, fleet INTEGER);
            INSERT INTO airline VALUES ('US', 'US Airways Inc.', 3), ('UA', 'United Air Lines Inc.', 9),
                ('B6', 'JetBlue Airways', 2), ('XX', '2013-01-01', 5), (NULL, NULL, NULL);
            CREATE TABLE airport (name TEXT);
            INSERT INTO airport VALUES ('La Guardia'), ('Miami Intl'), ('John F Kennedy Intl'), ('Bad');
            CREATE VIEW names AS SELECT name FROM airport;
            """
        )
    connection.close()
    return path


def index_of(path: Path) -> ValueIndex:
    return ValueIndex.open(read_catalog(path), store=None)


def test_only_text_with_letters_is_indexed_and_views_are_not(airline_file: Path) -> None:
    index = index_of(airline_file)
    assert len(index.entries) == 4 + 3 + 4
    assert Entry("airline", "name", "2013-01-01") not in index.entries
    assert {entry.table for entry in index.entries} == {"airline", "airport"}
    assert index.left_out == {}


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("How many flights does JetBlue Airways have?", {("airline", "name"): ["JetBlue Airways", "US Airways Inc."]}),
        ("flights of jetblue", {("airline", "name"): ["JetBlue Airways"]}),
        ("flights from LaGuardia", {("airport", "name"): ["La Guardia"]}),  # written as one word
        ("flights from la guardia", {("airport", "name"): ["La Guardia"]}),
        ("flights of United", {("airline", "name"): ["United Air Lines Inc."]}),  # cut short to its first word
        ("flights to Miami", {("airport", "name"): ["Miami Intl"]}),
        ("tell us of flights", {}),  # us is a word, US a code
        ("flights of US", {("airline", "code"): ["US"]}),
        ("which are bad?", {("airport", "name"): ["Bad"]}),
        ("how many flights were there?", {}),
        ("", {}),
        ("?!", {}),
    ],
)
def test_matches(airline_file: Path, question: str, found: dict[tuple[str, str], list[str]]) -> None:
    assert index_of(airline_file).match(question) == found


def test_the_best_covered_value_comes_first_and_three_are_kept() -> None:
    names = ["Air France", "Air France Cargo", "Air France Regional", "France Air", "France Air Hop"]
    index = ValueIndex([Entry("t", "name", name) for name in names], left_out={})
    (found,) = index.match("flights of Air France").values()
    assert found[0] == "Air France"
    assert len(found) == 3


def test_a_kept_index_answers_like_a_new_one(airline_file: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    catalog = read_catalog(airline_file)
    first = ValueIndex.open(catalog, store=store)
    assert len(list((tmp_path / "store" / "values").glob("*/manifest.json"))) == 1
    again = ValueIndex.open(catalog, store=store)
    assert again.entries == first.entries
    assert again.match("Miami and JetBlue") == first.match("Miami and JetBlue") != {}
    with sqlite3.connect(airline_file) as connection:
        connection.execute("INSERT INTO airport VALUES ('Boston Logan')")
    connection.close()
    assert ValueIndex.open(catalog, store=store).match("Boston") == {("airport", "name"): ["Boston Logan"]}


def test_a_database_without_text(tmp_path: Path) -> None:
    path = tmp_path / "numbers.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a INTEGER, b BLOB)")
        connection.execute("INSERT INTO t VALUES (1, x'ff00')")
    connection.close()
    index = ValueIndex.open(read_catalog(path), store=Store(tmp_path / "store"))
    assert index.entries == []
    assert index.match("anything") == {}


def test_text_that_is_not_utf8_and_prose_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "odd.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute('CREATE TABLE "odd ""name""" ("a b" TEXT)')
        connection.execute(
            'INSERT INTO "odd ""name""" VALUES (CAST(x\'636166e9\' AS TEXT)), (\'Café\'), (?)', ["x" * 81]
        )
    connection.close()
    assert index_of(path).entries == [Entry('odd "name"', "a b", "Café")]


def test_a_column_with_too_many_values_is_reported(airline_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MOST_OF_A_COLUMN", 3)
    index = index_of(airline_file)
    assert index.left_out == {"airline.code": 3, "airport.name": 3}


def test_a_database_that_vanished(airline_file: Path) -> None:
    catalog = read_catalog(airline_file)
    airline_file.unlink()
    with pytest.raises(DataError, match="no file"):
        ValueIndex.open(catalog, store=None)


@pytest.mark.parametrize(("benchmark", "least"), [("bird", 1.0), ("spider", 0.88)])
def test_recall_of_the_golds_values(shared_data: Path, benchmark: str, least: float) -> None:
    """Nearly all text literals of gold queries that are in the database are found from the question."""
    root = shared_data / benchmark
    if not (root / "dev.json").is_file():
        pytest.skip(f"no {benchmark} at {root}")
    folder = root / ("dev_databases" if benchmark == "bird" else "database")
    indexes: dict[str, ValueIndex] = {}
    found = total = shown = asked = 0
    for item in json.loads((root / "dev.json").read_text()):
        path = folder / item["db_id"] / f"{item['db_id']}.sqlite"
        if not path.is_file():
            continue
        if item["db_id"] not in indexes:
            indexes[item["db_id"]] = ValueIndex.open(read_catalog(path, statistics=False), store=None)
        index = indexes[item["db_id"]]
        matches = index.match(f"{item['question']} {item.get('evidence', '')}")
        known = {entry.value for entry in index.entries}
        literals = [a or b for a, b in re.findall(r"'([^']*)'|\"([^\"]*)\"", item.get("SQL") or item["query"])]
        literals = [literal for literal in literals if literal in known]
        found += sum(any(literal in column for column in matches.values()) for literal in literals)
        total, shown, asked = total + len(literals), shown + sum(map(len, matches.values())), asked + 1
    assert total > 100
    assert found / total >= least
    assert shown / asked < 5  # and few others beside them
