"""A small database for the tests of synthesis: stadiums, concerts, singers, and who sang where."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tutelage.text2sql.database.catalog import Catalog, read_catalog
from tutelage.text2sql.database.executor import Executor, Limits, Result
from tutelage.text2sql.explore.facts.gather import gather_facts
from tutelage.text2sql.explore.facts.store import Facts

SCHEMA = """
CREATE TABLE stadium (
    stadium_id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL, capacity INTEGER NOT NULL
);
CREATE TABLE singer (
    singer_id INTEGER PRIMARY KEY, name TEXT NOT NULL, country TEXT NOT NULL, age INTEGER NOT NULL,
    debut_year INTEGER NOT NULL, is_married TEXT NOT NULL, phone_number TEXT NOT NULL
);
CREATE TABLE concert (
    concert_id INTEGER PRIMARY KEY, title TEXT NOT NULL, theme TEXT NOT NULL, concert_date TEXT NOT NULL,
    attendance TEXT NOT NULL, stadium_id INTEGER NOT NULL REFERENCES stadium(stadium_id)
);
CREATE TABLE singer_in_concert (
    singer_id INTEGER NOT NULL REFERENCES singer(singer_id), concert_id INTEGER NOT NULL REFERENCES concert(concert_id),
    PRIMARY KEY (singer_id, concert_id)
);
"""
STADIUMS = [
    (1, "Oval", "Leeds", 900),
    (2, "Arena", "York", 12000),
    (3, "Dome", "Leeds", 4500),
    (4, "Bowl", "Hull", 300),
]
SINGERS = [
    (number, name, country, age, year, married, f"0{number}55-1{number}2")
    for number, name, country, age, year, married in [
        (1, "Ada", "France", 23, 2015, "T"), (2, "Ben", "Japan", 31, 2009, "F"), (3, "Cleo", "France", 45, 1999, "T"),
        (4, "Dan", "Peru", 52, 1990, "F"), (5, "Eve", "Japan", 38, 2004, "T"), (6, "Finn", "France", 29, 2012, "F"),
        (7, "Gus", "Peru", 61, 1985, "T"), (8, "Hana", "Japan", 27, 2013, "F"),
    ]
]  # fmt: skip
CONCERTS = [
    (1, "Opening Night", "Rock", "2014-03-01", "800", 1), (2, "Spring Week", "Pop", "2014-05-20", "9500", 2),
    (3, "Summer Week", "Rock", "2015-07-02", "11000", 2), (4, "Harvest", "Folk", "2015-10-11", "4000", 3),
    (5, "Winter Tales", "Pop", "2016-01-15", "640", 1), (6, "Last Call", "Rock", "2016-12-30", "3900", 3),
]  # fmt: skip
SANG = [(1, 1), (1, 2), (2, 2), (3, 3), (3, 4), (3, 5), (4, 6), (5, 3), (6, 1), (8, 6)]


def make(folder: Path) -> Path:
    """Write the database."""
    path = folder / "concerts.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(SCHEMA)
        connection.executemany("INSERT INTO stadium VALUES (?, ?, ?, ?)", STADIUMS)
        connection.executemany("INSERT INTO singer VALUES (?, ?, ?, ?, ?, ?, ?)", SINGERS)
        connection.executemany("INSERT INTO concert VALUES (?, ?, ?, ?, ?, ?)", CONCERTS)
        connection.executemany("INSERT INTO singer_in_concert VALUES (?, ?)", SANG)
    connection.close()
    return path


def written(path: Path, script: str) -> Path:
    """Make a database of an SQL script."""
    with sqlite3.connect(path) as connection:
        connection.executescript(script)
    connection.close()
    return path


@contextmanager
def opened(path: Path) -> Iterator[tuple[Catalog, Callable[[str], Result]]]:
    """Its catalog, and what runs SQL on it."""
    with Executor(workers=0, limits=Limits(seconds=5.0)) as executor:
        yield read_catalog(path), lambda sql: executor.run(path, sql)


def facts_of(catalog: Catalog, execute: Callable[[str], Result]) -> Facts:
    """What can be known of it without a person."""
    return gather_facts(catalog, execute=execute)
