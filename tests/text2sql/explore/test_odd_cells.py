"""Cells that real databases hold: blanks and stray text among numbers, dates of many forms, large tables."""

import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from concerts import opened
from test_pipeline import quiet, settings_of

from tutelage.core.store import Store
from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.explore import pipeline
from tutelage.text2sql.explore.facts import roles
from tutelage.text2sql.explore.facts.roles import Roles, as_number
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.pair import read_pairs
from tutelage.text2sql.explore.pipeline import explore
from tutelage.text2sql.explore.synthesizers import offline


@pytest.fixture(scope="module")
def laps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Races whose speeds are numbers in text with blanks, and whose other columns are as odd."""
    path = tmp_path_factory.mktemp("laps") / "laps.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE result (result_id INTEGER PRIMARY KEY, driver TEXT, speed TEXT, weight TEXT, seen TEXT, "
            "registered TEXT, period INT, created_at INT, load TEXT)"
        )
        for n in range(1, 1300):
            row = (
                n,
                ("Ada", "Ben", "Cleo", "Dan")[n % 4],
                " " if n % 9 == 0 else "" if n % 3 == 0 else str(150 + n % 70),
                "N/A" if n == 1299 else str(1000 + n),  # beyond the first thousand distinct values
                f"2013-{n % 12 + 1:02d}-0{n % 9 + 1}T0{n % 9}:00:00Z",
                f"{n % 12 + 1}/{n % 28 + 1}/2019",
                201900 + 100 * (n % 3) + n % 12 + 1,
                1_600_000_000 + 86_400 * n,
                str(5 * (n % 40)),
            )
            connection.execute(f"INSERT INTO result VALUES ({', '.join('?' * len(row))})", row)
    return path


@pytest.fixture(scope="module")
def door(laps: Path) -> Iterator[tuple[Roles, Callable[[str], Result]]]:
    with opened(laps) as (catalog, execute):
        yield Roles(catalog, execute=execute, facts=Facts()), execute


def test_a_number_is_read_or_it_is_none() -> None:
    assert [as_number(value) for value in ("12", "-0.5", 7, 2.5)] == [12, -0.5, 7, 2.5]
    assert [as_number(value) for value in ("", " ", "N/A", "1e400", "007", "12 kg")] == [None] * 6


def test_roles_of_odd_columns(door: tuple[Roles, Callable[[str], Result]]) -> None:
    roles, _ = door
    found = {name: roles.of("result", name).role for name in ("speed", "weight", "seen", "registered", "period")}
    assert found == {"speed": "measure", "weight": "code", "seen": "date", "registered": "code", "period": "measure"}
    assert roles.of("result", "speed").has_gaps and roles.of("result", "created_at").role == "code"
    assert roles.of("result", "load").numeric_text


@pytest.mark.slow  # eighty walks
def test_blanks_are_no_zeros(laps: Path, door: tuple[Roles, Callable[[str], Result]], tmp_path: Path) -> None:
    settings = settings_of(laps, walks=80, per_level=None)
    pairs = read_pairs(explore(settings, store=Store(tmp_path), out=tmp_path / "out", say=quiet))
    compared = re.compile(r"speed\)? (?:[<>=]|BETWEEN)|ORDER BY speed|AVG\(speed|CAST\(speed")
    cast = [pair.sql for pair in pairs if "CAST(NULLIF(TRIM(speed), '') AS INTEGER)" in pair.sql]
    assert cast and not any(compared.search(pair.sql) for pair in pairs)
    assert any("CAST(load AS INTEGER)" in pair.sql for pair in pairs)  # no blanks, and plain
    _, execute = door
    found = execute("SELECT AVG(CAST(NULLIF(TRIM(speed), '') AS INTEGER)) FROM result").rows[0][0]
    kept = [150 + n % 70 for n in range(1, 1300) if n % 3]
    assert found == pytest.approx(sum(kept) / len(kept))


def test_a_large_table_is_known_by_random_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "years.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE sale (sale_id INTEGER PRIMARY KEY, year INT, amount REAL)")
        rows = ((n, 2015 + n // 2_000, n * 7919 % 20_011 / 10) for n in range(20_000))
        connection.executemany("INSERT INTO sale VALUES (?, ?, ?)", rows)
    monkeypatch.setattr(roles, "SAMPLED_ABOVE", 10_000)
    monkeypatch.setattr(roles, "SAMPLE_ROWS", 500)
    asked: list[str] = []
    with opened(path) as (catalog, execute):

        def counted(sql: str) -> Result:
            asked.append(sql)
            return execute(sql)

        known = Roles(catalog, execute=counted, facts=Facts())
        assert known.of("sale", "year").values == tuple(range(2015, 2025))
        amounts = [float(str(value)) for value in known.of("sale", "amount").values]
        assert len(amounts) > 400 and min(amounts) < 100 and max(amounts) > 1900
        assert all("rowid" in sql for sql in asked)
        again = Roles(catalog, execute=execute, facts=Facts())
        assert again.of("sale", "amount") == known.of("sale", "amount")


def test_what_cannot_be_read_is_named(laps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = roles.Roles.of

    def slow(self: Roles, table: str, column: str) -> Any:
        kept = self._execute
        if column == "driver" and (table, column) not in self._profiles:
            self._execute = lambda sql: Result("timeout", (), [], "more than 5 s", 5.0)
        try:
            return read(self, table, column)
        finally:
            self._execute = kept

    monkeypatch.setattr(roles.Roles, "of", slow)
    said: list[str] = []
    out = explore(settings_of(laps, walks=4), store=Store(tmp_path), out=tmp_path / "out", say=said.append)
    assert "result.driver (timeout: more than 5 s)" in (out / "manifest.json").read_text()
    assert any("result.driver" in line for line in said)


@pytest.mark.parametrize("place", ["begin", "extend", "check"])
def test_a_fault_of_ours_ends_no_exploration(
    laps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    counter = Counter[str]()
    owner: Any = pipeline if place == "check" else offline.Offline
    real = getattr(owner, place)

    def faulty(*args: Any, **kwargs: Any) -> Any:
        counter["calls"] += 1
        if counter["calls"] % 5 == 1:
            raise IndexError("an odd reply")
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, place, faulty)
    out = explore(settings_of(laps, walks=20), store=Store(tmp_path), out=tmp_path / "out", say=quiet)
    assert len(read_pairs(out)) > 5
    assert '"error": ' in (out / "manifest.json").read_text()
    assert "IndexError: an odd reply (test_odd_cells.py" in (out / "progress.jsonl").read_text()


def test_seeds_that_are_not_used_are_counted(laps: Path, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.jsonl"
    rows = ('"SELECT driver FROM result"', '"SELECT FROM WHERE ("', '"SELECT 1"')
    seeds.write_text("".join(f'{{"question": "?", "sql": {sql}}}\n' for sql in rows))
    said: list[str] = []
    settings = settings_of(laps, walks=1, seeds=str(seeds))
    out = explore(settings, store=Store(tmp_path), out=tmp_path / "out", say=said.append)
    assert said[1] == "seeds: 1 used, 1 unreadable, 1 without a column of this database"
    assert '"unreadable": 1' in (out / "manifest.json").read_text()


CRASHED = ("formula_1", "products_gen_characteristics", "tracking_share_transactions")


@pytest.mark.parametrize("db_id", CRASHED)
def test_databases_that_once_ended_an_exploration(db_id: str, shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "spider" / "database" / db_id / f"{db_id}.sqlite"
    out = explore(settings_of(path, walks=12), store=Store(tmp_path), out=tmp_path / "out", say=quiet)
    assert len(read_pairs(out)) > 20 and '"error"' not in (out / "manifest.json").read_text()


@pytest.mark.slow  # three minutes: all of Spider's databases that have rows
def test_every_spider_database_is_explored_without_a_fault(shared_data: Path, tmp_path: Path) -> None:
    faults = []
    databases = sorted((shared_data / "spider" / "database").glob("*/*.sqlite"))
    for path in databases:
        try:
            out = explore(settings_of(path, walks=4), store=Store(tmp_path), out=tmp_path / path.stem, say=quiet)
        except pipeline.DataError:
            continue  # no rows
        if '"error"' in (out / "manifest.json").read_text():
            faults.append(path.stem)
    assert len(databases) > 100 and not faults
