"""What is known about a database: each filler on small material, the store, and a person's edits."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from concerts import facts_of, opened, written
from test_pipeline import quiet, settings_of

from tutelage.core.errors import DataError
from tutelage.core.store import Store
from tutelage.text2sql.data.own import Own
from tutelage.text2sql.database.catalog import Catalog
from tutelage.text2sql.database.schema import Column, ForeignKey, Value
from tutelage.text2sql.explore.facts.fact import Fact, Subject
from tutelage.text2sql.explore.facts.from_data import date_format, draw_sample, null_markers
from tutelage.text2sql.explore.facts.from_seeds import facts_from_seeds
from tutelage.text2sql.explore.facts.from_texts import facts_from_documents
from tutelage.text2sql.explore.facts.sentences import codes_in, nulls_in, unit_in
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.pair import read_pairs
from tutelage.text2sql.explore.pipeline import explore
from tutelage.text2sql.explore.seeds import Seed
from tutelage.text2sql.prompts.base import comment_of

FLEET = """
CREATE TABLE aircraft (aircraft_id INTEGER PRIMARY KEY, model TEXT);
CREATE TABLE pilots (
    pilot_id INTEGER PRIMARY KEY, pilot_name TEXT, gender TEXT, height_cm INTEGER, first_seen TEXT,
    reports_to INTEGER REFERENCES pilots(pilot_id)
);
CREATE TABLE contest (
    contest_id INTEGER PRIMARY KEY, contest INTEGER, town TEXT, region TEXT, directed_by TEXT, result TEXT,
    winning_aircraft INTEGER REFERENCES aircraft(aircraft_id), winner_id INTEGER REFERENCES pilots(pilot_id)
);
CREATE TABLE flies (pilot_id INTEGER REFERENCES pilots(pilot_id), aircraft_id INTEGER REFERENCES aircraft(aircraft_id));
"""
TOWNS = (("Lyon", "Rhone"), ("Nice", "Azur"), ("Cannes", "Azur"), ("Roanne", "Rhone"))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = written(tmp_path_factory.mktemp("fleet") / "fleet.sqlite", FLEET)
    with sqlite3.connect(path) as connection:
        connection.executemany("INSERT INTO aircraft VALUES (?, ?)", [(n, f"Model {n}") for n in range(1, 6)])
        pilots = [
            (n, f"Pilot {n}", "MF"[n % 2], n % 8 and 150 + n, f"{n % 12 + 1}/{n % 28 + 1}/2019", n // 2 or None)
            for n in range(1, 41)
        ]  # fmt: skip
        connection.executemany("INSERT INTO pilots VALUES (?, ?, ?, ?, ?, ?)", pilots)
        contests = [
            (n, 7 * n, *TOWNS[n % 4], f"Person {n % 7}", "WLX"[n % 3], n % 5 + 1, n % 40 + 1) for n in range(60)
        ]
        connection.executemany("INSERT INTO contest VALUES (?, ?, ?, ?, ?, ?, ?, ?)", contests)
        connection.executemany("INSERT INTO flies VALUES (?, ?)", [(n, n % 5 + 1) for n in range(1, 41)])
    connection.close()
    return path


@pytest.fixture(scope="module")
def known(fleet: Path) -> tuple[Catalog, Facts]:
    with opened(fleet) as (catalog, execute):
        return catalog, facts_of(catalog, execute)


def key_of(catalog: Catalog, table: str, column: str) -> ForeignKey:
    return next(key for key in catalog.table(table).foreign_keys if key.columns == (column,))


def test_names_roles_of_keys_and_verbs(known: tuple[Catalog, Facts]) -> None:
    catalog, facts = known
    said = {column.name: facts.spoken(column) for column in catalog.table("contest").columns}
    assert said == {
        "contest_id": "ID", "contest": "contest", "town": "town", "region": "region", "directed_by": "director",
        "result": "result", "winning_aircraft": "winning aircraft ID", "winner_id": "winner ID",
    }  # fmt: skip
    assert (
        facts.spoken(catalog.table("pilots")) == "pilot"
        and facts.spoken(catalog.column("pilots", "pilot_name")) == "name"
    )
    assert facts.label(catalog.table("pilots")) == ("pilot_name",)
    assert facts.key_role(key_of(catalog, "contest", "winning_aircraft")) == "winning aircraft"
    assert facts.key_role(key_of(catalog, "contest", "winner_id")) == "winner"
    assert facts.verbs(key_of(catalog, "pilots", "reports_to")) == ("reports to",)
    assert facts.verbs(key_of(catalog, "flies", "aircraft_id")) == ("flies",)
    assert facts.fan_out(key_of(catalog, "contest", "winning_aircraft")) == {"mean": 12.0, "without": 0.0}


def test_values(known: tuple[Catalog, Facts]) -> None:
    catalog, facts = known
    height = catalog.column("pilots", "height_cm")
    assert (facts.spoken(height), facts.unit(height), facts.nulls(height)) == ("height", "centimetres", (0,))
    assert facts.role(height) == "measure"
    assert facts.codes(catalog.column("pilots", "gender")) == {"F": "female", "M": "male"}
    assert facts.codes(catalog.column("contest", "result")) == {}
    assert facts.date_format(catalog.column("pilots", "first_seen")) == "%m/%d/%Y"
    assert facts.determines(catalog.column("contest", "town")) == ("region",)
    assert facts.hierarchies(catalog.table("contest")) == (("town", "region"),)
    assert facts.distribution(height)["rows"] == 40


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("The unit of height is centimeter.", "centimetres"),
        ("weight of the parcel (in pounds)", "pounds"),
        ("distance, measured in km", "kilometres"),
        ("total price in USD", "US dollars"),
        ("the month in which it was sold", None),
        ("cities in miles of forest", None),
    ],
)
def test_units_in_sentences(text: str, unit: str | None) -> None:
    assert unit_in(text) == unit


@pytest.mark.parametrize(
    ("text", "values", "codes", "nulls"),
    [
        ("M: male; F: female", ("M", "F"), {"M": "male", "F": "female"}, ()),
        ("0 means no, 1 means yes", (0, 1), {0: "no", 1: "yes"}, ()),
        ("'A' stands for active and 'C' stands for closed.", ("A", "C"), {"A": "active", "C": "closed"}, ()),
        ("status (P = paid, U = unpaid)", ("P", "U"), {"P": "paid", "U": "unpaid"}, ()),
        ("If the height_cm is NULL or 0, it means the height is missing.", (0, 170), {}, (0,)),
        ("-1 if not known; otherwise grams", (12, 14), {}, (-1,)),
        ("Good: these are kind. Bad: these are selfish.", ("Good", "Bad"), {}, ()),
        ("a number from 1 to 5", (1, 5), {}, ()),
    ],
)
def test_codes_and_null_markers_in_sentences(
    text: str, values: tuple[Value, ...], codes: dict[Value, str], nulls: tuple[Value, ...]
) -> None:
    assert dict(codes_in(text, values)) == codes
    assert nulls_in(text, values) == nulls


@pytest.mark.parametrize(
    ("name", "cells", "form"),
    [
        ("seen", ["2013-01-01T05:00:00Z", "2014-11-30T23:59:59Z"], "%Y-%m-%dT%H:%M:%SZ"),
        ("seen", ["2013-01-01 05:00:00+02:00"], "%Y-%m-%d %H:%M:%S%z"),
        ("seen", ["1/13/2019", "12/1/2020"], "%m/%d/%Y"),
        ("seen", ["13/1/2019", "1/12/2020"], "%d/%m/%Y"),
        ("born", ["Jan 3, 1990", "May 12, 2001"], "%b %d, %Y"),
        ("created_at", [1_600_000_000, 1_700_000_000], "epoch seconds"),
        ("created_at", [1_600_000_000_000], "epoch milliseconds"),
        ("yearmonth", [201301, 201412], "%Y%m"),
        ("day", ["20130131", "20141201"], "%Y%m%d"),
        ("start", ["08:30", "23:15"], "%H:%M"),
        ("price", [1_600_000_000, 1_700_000_000], None),
        ("name", ["May", "June"], None),
    ],
)
def test_formats_of_dates(name: str, cells: list[Value], form: str | None) -> None:
    found = date_format(Column(name, "", "t", True), cells)
    assert (found and found[0]) == form


def test_null_markers_are_no_answers() -> None:
    def markers(name: str, cells: list[Value]) -> dict[Value, float]:
        return null_markers(Column(name, "", "t", True), cells)

    assert markers("score", [*range(10, 60), -1, -1, -1]) == {-1: 0.7}
    assert markers("temperature", [-5, -1, -1, 3, 4, 5, 6, 7, 8]) == {}
    assert markers("height", [*range(150, 200), 0, 0, 0]) == {0: 0.8}
    assert markers("goals", [0, 0, 0, 1, 2, 3, 4, 5, 6]) == {}
    assert markers("price", [*range(40, 90), *[0] * 9])[0] < 0.5  # it may have been free
    assert markers("city", ["Oslo", "N/A", "Rome"]) == {"N/A": 0.95}
    assert markers("continent", ["NA", "EU", "AS", "AF"])["NA"] < 0.5
    assert markers("code", ["-"]) == {}  # nothing else is there


def test_a_large_table_is_sampled_at_random(tmp_path: Path) -> None:
    path = tmp_path / "many.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE sale (year INT, note TEXT)")
        connection.executemany("INSERT INTO sale VALUES (?, ?)", ((2015 + n // 500, "x" * 900) for n in range(5_000)))
        connection.execute("CREATE TABLE bare (year INT PRIMARY KEY, n INT) WITHOUT ROWID")
        connection.executemany("INSERT INTO bare VALUES (?, ?)", ((n, n // 500) for n in range(5_000)))
    with opened(path) as (catalog, execute):
        sample = draw_sample(catalog, execute, size=200)
        assert set(sample["sale", "year"]) == set(range(2015, 2025)) and len(sample["sale", "year"]) <= 200
        assert set(sample["bare", "n"]) == set(range(10)) and 150 <= len(sample["bare", "n"]) <= 200
        assert {len(str(note)) for note in sample["sale", "note"]} == {300}
        assert draw_sample(catalog, execute, size=200) == sample


def test_documents(known: tuple[Catalog, Facts], tmp_path: Path) -> None:
    catalog, _ = known
    notes = tmp_path / "notes.md"
    notes.write_text(
        "# Contests\nresult: W means won, L means lost. `first_seen` is the day a pilot was hired.\n\n"
        "| column | unit | description |\n|---|---|---|\n| `pilots.height_cm` | cm | how tall the pilot is |\n"
    )
    table = tmp_path / "dictionary.csv"
    table.write_text("table,field,label,description\naircraft,model,type of plane,The maker's name of it\n")
    facts = Facts(facts_from_documents(catalog, [notes, table]))
    assert facts.codes(catalog.column("contest", "result")) == {"W": "won", "L": "lost"}
    assert facts.meaning(catalog.column("pilots", "height_cm")) == "how tall the pilot is"
    assert facts.unit(catalog.column("pilots", "height_cm")) == "centimetres"
    assert facts.spoken(catalog.column("aircraft", "model")) == "type of plane"
    with pytest.raises(DataError, match="cannot be read"):
        list(facts_from_documents(catalog, [tmp_path / "gone.md"]))


def test_seeds(known: tuple[Catalog, Facts]) -> None:
    catalog, _ = known
    joined = "SELECT model FROM contest JOIN aircraft ON contest.winning_aircraft = aircraft.aircraft_id WHERE town = "
    won = "SELECT winner_id FROM contest WHERE result = 'W' AND town = "
    asked = (
        ("Which model triumphed in", joined),
        ("Who was victorious in", won),
        ("What is the region of", "SELECT region FROM contest WHERE town = "),
    )
    seeds = [Seed(f"{question} {town}?", f"{sql}'{town}'", None) for question, sql in asked for town, _ in TOWNS]
    facts = Facts(facts_from_seeds(catalog, seeds))
    assert facts.verbs(key_of(catalog, "contest", "winning_aircraft")) == ("triumphed",)
    assert facts.codes(catalog.column("contest", "result")) == {"W": "victorious"}


# ---- the store


def test_an_edit_wins_and_stays(tmp_path: Path) -> None:
    guess = Fact(Subject("t", ("a",)), "unit", "metres", "descriptions", 0.9)
    path = tmp_path / "facts.jsonl"
    Facts([guess]).write(path)
    assert [fact.source for fact in Facts.read(path)] == ["descriptions"]
    path.write_text(path.read_text().replace("metres", "feet") + '{"table": "t", "kind": "spoken", "value": "thing"}\n')
    edited = Facts.read(path)
    column = Column("a", "", "t", True)
    both = Facts([Fact(Subject("t", ("a",)), "unit", "metres", "descriptions", 0.99), *edited.of_persons()])
    assert both.unit(column) == "feet" and len(edited.of_persons()) == 2
    both.write(path)
    assert Facts.read(path).unit(column) == "feet"  # written again, it is still theirs
    assert Facts.read(path).of_persons() != []
    nothing = Facts([guess, Fact(Subject("t", ("a",)), "unit", None, "person", 1.0)])
    assert nothing.unit(column) is None


def test_what_is_doubted_is_kept_and_not_read() -> None:
    facts = Facts([Fact(Subject("t", ("a",), value=0), "null", True, "data", 0.35)])
    assert len(facts) == 1 and facts.nulls(Column("a", "", "t", True)) == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is not JSON"),
        ('{"column": "a", "kind": "unit", "value": "m"}', "is no fact"),
        ('{"table": "t", "kind": "colour", "value": "red"}', "'colour' is no kind of fact"),
        ('{"table": "t", "column": "a", "kind": "unit", "value": 3}', "the value of unit is no text"),
        ('{"table": "t", "column": ["a"], "kind": "unit", "value": "m"}', "columns are names"),
    ],
)
def test_lines_that_are_no_facts(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        Facts.read(path)


def test_an_exploration_writes_reads_and_shows_facts(fleet: Path, tmp_path: Path) -> None:
    out = explore(settings_of(fleet, walks=30, max_level=2), store=Store(tmp_path), out=tmp_path / "out", say=quiet)
    lines = (out / "facts.jsonl").read_text().splitlines()
    height: dict[str, Any] = next(
        record
        for line in lines
        if (record := json.loads(line)).get("column") == "height_cm" and record["kind"] == "unit"
    )
    assert {key: height[key] for key in ("table", "value", "source")} == {
        "table": "pilots", "value": "centimetres", "source": "catalog",
    }  # fmt: skip
    assert "winning aircraft" in (out / "report.html").read_text()
    sql = [pair for pair in read_pairs(out) if uses_heights(pair.sql)]
    assert sql and all("NULLIF(height_cm, 0)" in pair.sql for pair in sql)
    assert {pair.evidence for pair in sql} == {"height_cm = 0 means that it is not known"}
    edited = tmp_path / "edited.jsonl"
    edited.write_text('{"table": "pilots", "column": "height_cm", "kind": "spoken", "value": "stature"}\n')
    settings = settings_of(fleet, walks=30, max_level=2, facts=str(edited))
    pairs = read_pairs(explore(settings, store=Store(tmp_path), out=tmp_path / "again", say=quiet))
    assert any("stature" in pair.question for pair in pairs) and not any("height" in pair.question for pair in pairs)
    edited.write_text('{"table": "pilots", "column": "hight", "kind": "spoken", "value": "stature"}\n')
    with pytest.raises(DataError, match=r"pilots has no column hight"):
        explore(settings, store=Store(tmp_path), out=tmp_path / "wrong", say=quiet)


def test_training_prompts_show_facts_where_asked(fleet: Path, tmp_path: Path, known: tuple[Catalog, Facts]) -> None:
    known[1].write(tmp_path / "facts.jsonl")
    data = Own(database=str(fleet), store=str(tmp_path), facts=str(tmp_path / "facts.jsonl"))
    columns = {column.name: column for column in data.catalog("fleet").table("pilots").columns}
    assert comment_of(columns["height_cm"]) == "in centimetres; 0: not known"
    assert comment_of(columns["gender"]) == "'F': female; 'M': male"
    assert comment_of(columns["first_seen"]) == "as %m/%d/%Y"
    assert comment_of(columns["pilot_id"]) == ""
    plain = Own(database=str(fleet), store=str(tmp_path)).catalog("fleet").column("pilots", "height_cm")
    assert comment_of(plain) == ""


def uses_heights(sql: str) -> bool:
    """Whether heights are compared, ordered or reckoned with."""
    return any(
        f"{before}height_cm" in sql or f"{before}NULLIF(height_cm" in sql
        for before in ("AVG(", "WHERE ", "BY ", "MAX(", "MIN(")
    )
