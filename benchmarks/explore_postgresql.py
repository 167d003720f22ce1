"""What it costs to explore a PostgreSQL database rather than the same data in a SQLite file.

    python benchmarks/explore_postgresql.py server=postgresql://user@host/postgres

The user must be allowed to create a database, ``tutelage_benchmark``, which is dropped at the end. Catalog, copy and
walks are timed together by the clock, in turn, since the server is a process of its own; the ratio is the median over
rounds.
Writes benchmarks/results/explore_postgresql.{json,md}.
"""

import json
import platform
import random
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psycopg
import sqlalchemy as sa

from tutelage.core.store import Store
from tutelage.text2sql.explore.config import explore_settings
from tutelage.text2sql.explore.pair import read_pairs
from tutelage.text2sql.explore.pipeline import explore

RESULTS = Path(__file__).parent / "results"
NAME = "tutelage_benchmark"
ROUNDS = 3
TABLES = 6
ROWS = 2_000
WALKS = 60
WORDS = ("red", "green", "blue", "north", "south", "small", "large")


def schema() -> list[tuple[str, list[str]]]:
    """A tree of tables: an id, a key to the parent, then numbers and words."""
    tables = []
    for t in range(TABLES):
        columns = [f"item{t}_id INTEGER PRIMARY KEY"]
        if t:
            columns.append(f"item{(t - 1) // 2}_id INTEGER REFERENCES item{(t - 1) // 2}")
        columns += [f"size{n} INTEGER" if n % 2 else f"color{n} TEXT" for n in range(6)]
        tables.append((f"item{t}", columns))
    return tables


def rows_of(columns: list[str]) -> list[tuple[int | str, ...]]:
    """Rows that are the same in each run."""
    values = random.Random(0)
    rest = columns[1:]
    return [(i, *(values.choice(WORDS) if "TEXT" in c else values.randrange(ROWS) for c in rest)) for i in range(ROWS)]


def make_sqlite(path: Path) -> None:
    """Write the data into a file."""
    with sqlite3.connect(path) as connection:
        for name, columns in schema():
            connection.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
            connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})", rows_of(columns))
    connection.close()


def make_postgresql(url: str) -> None:
    """Write the same data into an empty database."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for name, columns in schema():
            cursor.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
            with cursor.copy(f"COPY {name} FROM STDIN") as copy:
                for row in rows_of(columns):
                    copy.write_row(row)


def explored(database: str, folder: Path) -> tuple[float, int]:
    """Explore once; return seconds and pairs."""
    base = "tutelage.text2sql.explore"
    settings = explore_settings(
        {
            "database": database,
            "db_id": NAME,
            "walks": WALKS,
            "max_level": 4,
            "sampler": {"_target_": f"{base}.samplers.join_tree.JoinTree", "size": 8, "max_tables": 3},
            "synthesizer": {"_target_": f"{base}.synthesizers.offline.Offline", "width": 3},
        }
    )
    begin = time.perf_counter()
    found = explore(settings, store=Store(folder), say=lambda _: None)
    return time.perf_counter() - begin, len(read_pairs(found))


def main() -> None:
    """Measure, print, and write both files."""
    given = [argument.partition("=")[2] for argument in sys.argv[1:] if argument.startswith("server=")]
    if not given:
        sys.exit("give server=postgresql://user@host/postgres, whose user may create a database")
    url = sa.make_url(given[0]).set(database=NAME).render_as_string(hide_password=False)
    with tempfile.TemporaryDirectory() as temporary, psycopg.connect(given[0], autocommit=True) as server:
        file = Path(temporary) / f"{NAME}.sqlite"
        make_sqlite(file)
        server.execute(f"CREATE DATABASE {NAME}")
        try:
            make_postgresql(url)
            rounds = []
            for number in range(ROUNDS):
                ours, pairs = explored(url, Path(temporary) / f"postgresql{number}")
                theirs, pairs_of_file = explored(str(file), Path(temporary) / f"sqlite{number}")
                rounds.append({"postgresql": ours, "sqlite": theirs, "pairs": [pairs, pairs_of_file]})
                print(rounds[-1], flush=True)
        finally:
            server.execute(f"DROP DATABASE {NAME} WITH (FORCE)")
    ratio = median(r["postgresql"] / r["sqlite"] for r in rounds)
    result = {"ratio": ratio, "rounds": rounds, "tables": TABLES, "rows": ROWS, "walks": WALKS, "target": 2.0}
    (RESULTS / "explore_postgresql.json").write_text(
        json.dumps({**result, "python": platform.python_version()}, indent=2) + "\n", encoding="utf-8"
    )
    seconds = [f"| {n} | {r['postgresql']:.1f} | {r['sqlite']:.1f} |" for n, r in enumerate(rounds, 1)]
    text = [
        "# Exploring PostgreSQL",
        "",
        f"{TABLES} tables of {ROWS:,} rows, {WALKS} walks, {rounds[0]['pairs'][0]} pairs "
        f"({rounds[0]['pairs'][1]} from the file). Seconds by the clock; target: at most twice the file's.",
        "",
        "| round | PostgreSQL | SQLite |",
        "|---|---:|---:|",
        *seconds,
        "",
        f"Median ratio: **{ratio:.2f}**",
    ]
    (RESULTS / "explore_postgresql.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    print(f"ratio {ratio:.2f} (target: at most 2)")


if __name__ == "__main__":
    main()
