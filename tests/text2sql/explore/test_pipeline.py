import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.store import Store
from tutelage.text2sql.database.catalog import read_catalog
from tutelage.text2sql.explore import pipeline
from tutelage.text2sql.explore.config import explore_settings
from tutelage.text2sql.explore.pair import OPERATORS, read_pairs
from tutelage.text2sql.explore.pipeline import explore

FILES = [
    "facts.jsonl", "graph.graphml", "graph_edges.parquet", "graph_nodes.parquet", "inputs.json", "knowledge.jsonl",
    "manifest.json", "pairs.jsonl", "pairs.parquet", "progress.jsonl", "rejected.parquet", "report.html",
]  # fmt: skip
CITIES = ("Oslo", "Rome", "Bern", "Lima")


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "shop.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE customer (customer_id INTEGER PRIMARY KEY, name TEXT, city TEXT, age INTEGER);
        CREATE TABLE product (product_id INTEGER PRIMARY KEY, product_name TEXT, price REAL, color TEXT);
        CREATE TABLE purchase (
            purchase_id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customer, quantity INTEGER,
            product_id INTEGER REFERENCES product, purchase_date DATE);
        """
    )
    for i in range(30):
        connection.execute("INSERT INTO customer VALUES (?, ?, ?, ?)", (i, f"Name{i}", CITIES[i % 4], 20 + i * 7 % 40))
    for i in range(12):
        colors = ("red", "green", "blue")
        connection.execute("INSERT INTO product VALUES (?, ?, ?, ?)", (i, f"Thing{i}", 3.5 * i + 1, colors[i % 3]))
    for i in range(200):
        row = (i, i * i % 30, i % 9 + 1, i * 5 % 12, f"2024-{i % 12 + 1:02d}-{i % 28 + 1:02d}")
        connection.execute("INSERT INTO purchase VALUES (?, ?, ?, ?, ?)", row)
    connection.commit()
    connection.close()
    return path


def settings_of(database: Path, **changes: Any) -> Any:
    base = "tutelage.text2sql.explore"
    return explore_settings(
        {
            "database": str(database),
            "walks": 40,
            "max_level": 3,
            "per_level": 40,
            "limits": {"workers": 0},
            "sampler": {"_target_": f"{base}.samplers.join_tree.JoinTree", "size": 6, "max_tables": 3},
            "synthesizer": {"_target_": f"{base}.synthesizers.offline.Offline", "width": 3},
            **changes,
        }
    )


def quiet(_: str) -> None:
    pass


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="session")
def explored(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explored")
    return explore(settings_of(shop), store=Store(root / "store"), out=root / "out", say=quiet)


def test_files_and_pairs(shop: Path, explored: Path) -> None:
    assert sorted(path.name for path in explored.iterdir()) == FILES
    pairs = read_pairs(explored)
    by_level = Counter(pair.level for pair in pairs)
    assert sorted(by_level) == [1, 2, 3] and max(by_level.values()) <= 40 and by_level[2] == 40
    assert len({pair.id for pair in pairs}) == len(pairs)
    by_id = {pair.id: pair for pair in pairs}
    connection = sqlite3.connect(f"file:{shop}?mode=ro", uri=True)
    for pair in pairs:
        assert connection.execute(pair.sql).fetchall()
        assert set(pair.operators) <= set(OPERATORS) and len(pair.operators) == pair.level - 1
        assert (pair.parent is None) == (pair.level == 1)
        if pair.parent is not None:
            parent = by_id[pair.parent]
            assert parent.level == pair.level - 1 and Counter(pair.operators) > Counter(parent.operators)
    connection.close()
    assert len({pair.question.lower() for pair in pairs}) == len(pairs)


def test_parquet_holds_what_the_lines_hold(explored: Path) -> None:
    lines = [json.loads(line) for line in (explored / "pairs.jsonl").read_text().splitlines()]
    rows = pq.read_table(explored / "pairs.parquet").to_pylist()
    assert [{**row, "state": json.loads(row["state"])} for row in rows] == lines
    rejected = pq.read_table(explored / "rejected.parquet").to_pylist()
    manifest = json.loads((explored / "manifest.json").read_text())
    assert manifest["counts"]["pairs"] == len(rows)
    assert manifest["counts"]["rejected_by_reason"] == Counter(row["reason"] for row in rejected)
    assert all(row["reason"] and row["sql"] and row["id"] for row in rejected)
    assert manifest["inputs"]["walks"] == 40


def test_the_second_run_finds_the_first(shop: Path, explored: Path) -> None:
    before = (explored / "pairs.jsonl").stat().st_mtime_ns
    said: list[str] = []
    assert explore(settings_of(shop), store=Store(explored), out=explored, say=said.append) == explored
    assert said == [f"reads {shop}"]
    assert (explored / "pairs.jsonl").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="exploration with other settings"):
        explore(settings_of(shop, seed=2), store=Store(explored), out=explored, say=quiet)


def test_more_walks_go_on_in_a_finished_folder(shop: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "out", list[str]()
    explore(settings_of(shop, walks=16, per_level=None), store=Store(tmp_path), out=out, say=quiet)
    first = (out / "pairs.jsonl").read_text()
    explore(settings_of(shop, walks=32, per_level=None), store=Store(tmp_path), out=out, say=said.append)
    assert any(line.startswith("goes on at walk 16") for line in said)
    assert (out / "pairs.jsonl").read_text().startswith(first)
    whole = explore(settings_of(shop, walks=32, per_level=None), store=Store(tmp_path), out=tmp_path / "w", say=quiet)
    assert digest(out) == digest(whole)
    with pytest.raises(ConfigError, match="exploration with other settings"):
        explore(settings_of(shop, walks=16, per_level=None), store=Store(tmp_path), out=out, say=quiet)


def test_in_the_store_and_with_more_workers_the_same_bytes(shop: Path, explored: Path, tmp_path: Path) -> None:
    settings = settings_of(shop, limits={"workers": 2})
    folder = explore(settings, store=Store(tmp_path), say=quiet)
    assert folder.parent == tmp_path / "explorations"
    mine, theirs = digest(folder), digest(explored)
    for name in set(FILES) - {"inputs.json", "manifest.json"}:
        assert mine[name] == theirs[name], name


class Killed(BaseException):
    pass


@pytest.fixture
def each_walk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_SAY_EVERY", 0.0)


@pytest.mark.parametrize("walks", [1, 17])
@pytest.mark.usefixtures("each_walk_is_told")
def test_killed_between_walks_and_in_the_middle_of_a_line(
    shop: Path, explored: Path, tmp_path: Path, walks: int
) -> None:
    said: list[str] = []

    def kill(text: str) -> None:
        if text.startswith(f"walk {walks} of"):
            raise Killed

    out = tmp_path / "out"
    with pytest.raises(Killed):
        explore(settings_of(shop), store=Store(tmp_path), out=out, say=kill)
    assert not (out / "pairs.jsonl").exists()
    with (out / "progress.jsonl").open("ab") as file:
        file.write(b'{"walks": 99, "pairs": [{"id": "sho')
    explore(settings_of(shop), store=Store(tmp_path), out=out, say=said.append)
    assert any(line.startswith(f"goes on at walk {walks}:") for line in said)
    assert digest(out) == digest(explored)


def test_killed_by_signal(shop: Path, explored: Path, tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_pipeline import explore, settings_of, Store
def say(text):
    if text.startswith("walk "):
        os.kill(os.getpid(), signal.SIGKILL)
folder = Path({str(tmp_path)!r})
explore(settings_of(Path({str(shop)!r})), store=Store(folder), out=folder / "out", say=say)
"""
    done = subprocess.run([sys.executable, "-c", script], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    explore(settings_of(shop), store=Store(tmp_path), out=tmp_path / "out", say=quiet)
    assert digest(tmp_path / "out") == digest(explored)


def test_guarded_questions_and_queries_stay_out(shop: Path, explored: Path, tmp_path: Path) -> None:
    taken = read_pairs(explored)[::7]
    guard = tmp_path / "evaluation.json"
    guard.write_text(json.dumps([{"question": pair.question, "query": pair.sql} for pair in taken]))
    out = explore(settings_of(shop, guard=[str(guard)]), store=Store(tmp_path), out=tmp_path / "out", say=quiet)
    kept = read_pairs(out)
    assert not {pair.sql for pair in taken} & {pair.sql for pair in kept}
    assert not {pair.question for pair in taken} & {pair.question for pair in kept}
    reasons = json.loads((out / "manifest.json").read_text())["counts"]["rejected_by_reason"]
    assert reasons.get("guarded_question", 0) + reasons.get("guarded_query", 0) > 0


def test_seeds_weigh_the_graph(shop: Path, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.jsonl"
    seed = {"question": "How old is each customer by city?", "sql": "SELECT city, avg(age) FROM customer GROUP BY city"}
    seeds.write_text(json.dumps(seed) + "\n")
    settings = settings_of(shop, seeds=str(seeds), walks=1, max_level=1)
    out = explore(settings, store=Store(tmp_path), out=tmp_path / "out", say=quiet)
    edges = pq.read_table(out / "graph_edges.parquet").to_pylist()
    assert Counter(edge["weight"] for edge in edges) == {1.0: len(edges) - 1, 2.0: 1}
    knowledge = [json.loads(line) for line in (out / "knowledge.jsonl").read_text().splitlines()]
    assert knowledge[-1]["text"] == "SELECT _, AVG(_) FROM _ GROUP BY _"


def test_folders_that_are_taken(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else"):
        explore(settings_of(shop), store=Store(tmp_path), out=tmp_path, say=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("script", "message"),
    [("CREATE TABLE t (a)", "has a row"), ("CREATE VIEW v AS SELECT 1 WHERE 0", "has a row")],
)
def test_no_rows(tmp_path: Path, script: str, message: str) -> None:
    path = tmp_path / "bare.sqlite"
    connection = sqlite3.connect(path)
    connection.execute(script)
    connection.close()
    with pytest.raises(DataError, match=message):
        explore(settings_of(path), store=Store(tmp_path), out=tmp_path / "out", say=quiet)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("each_walk_is_told")
def test_walks_that_bring_nothing_end_an_exploration(tmp_path: Path) -> None:
    path = tmp_path / "bare.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE t (name TEXT, city TEXT); INSERT INTO t VALUES ('a', 'x'), ('b', 'y');")
    connection.close()

    def told(out: str, patience: int | None, walks: int) -> tuple[list[str], dict[str, Any]]:
        said: list[str] = []
        settings = settings_of(path, max_level=1, patience=patience, walks=walks)
        folder = explore(settings, store=Store(tmp_path), out=tmp_path / out, say=said.append)
        return said, json.loads((folder / "manifest.json").read_text())

    said, manifest = told("impatient", 40, 2000)
    walks = 41 + max(pair.walk for pair in read_pairs(tmp_path / "impatient"))
    assert manifest["counts"]["walks"] == walks < 60 and manifest["inputs"]["patience"] == 40
    assert manifest["ended"] == "the last 40 walks gave no pair"
    assert said[-1] == f"ended after {walks} walks: {manifest['ended']}"
    _, manifest = told("patient", None, 80)
    assert (manifest["counts"]["walks"], manifest["ended"]) == (80, "all walks are taken")
    assert read_pairs(tmp_path / "patient") == read_pairs(tmp_path / "impatient")

    # Killed while nothing comes, it ends where it would have ended.
    def kill(text: str) -> None:
        if text.startswith("walk 20 of"):
            raise Killed

    settings = settings_of(path, max_level=1, patience=40, walks=2000)
    with pytest.raises(Killed):
        explore(settings, store=Store(tmp_path), out=tmp_path / "killed", say=kill)
    explore(settings, store=Store(tmp_path), out=tmp_path / "killed", say=quiet)
    assert digest(tmp_path / "killed") == digest(tmp_path / "impatient")


def test_full_levels_end_an_exploration(shop: Path, tmp_path: Path) -> None:
    settings = settings_of(shop, max_level=2, per_level=5, walks=2000)
    out = explore(settings, store=Store(tmp_path), out=tmp_path / "out", say=quiet)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["ended"] == "all levels are full" and manifest["counts"]["walks"] < 100
    assert manifest["counts"]["pairs_by_level"] == {"1": 5, "2": 5}


def test_no_keys_and_odd_names(tmp_path: Path) -> None:
    path = tmp_path / "odd one.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE "order" ("group" TEXT, "two words" INTEGER, "quo""te" REAL);
        CREATE TABLE "Straße" ("select" TEXT, "größe" INTEGER);
        """
    )
    for i in range(20):
        connection.execute('INSERT INTO "order" VALUES (?, ?, ?)', (f"g{i % 3}", i, i * 0.5))
        connection.execute('INSERT INTO "Straße" VALUES (?, ?)', (f"s{i}", i * i % 11))
    connection.commit()
    connection.close()
    out = explore(settings_of(path, walks=16), store=Store(tmp_path), out=tmp_path / "out", say=quiet)
    pairs = read_pairs(out)
    assert len(pairs) > 10
    assert {table for pair in pairs for table in pair.tables} == {"order", "Straße"}
    assert not any("join" in pair.operators for pair in pairs)
    assert "no foreign keys" in (out / "report.html").read_text()


def test_duckdb_is_explored_through_a_copy(tmp_path: Path) -> None:
    import duckdb

    path = tmp_path / "clinic.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE owner (owner_id INTEGER PRIMARY KEY, name VARCHAR, born DATE)")
        connection.execute(
            "CREATE TABLE visit (visit_id INTEGER, owner_id INTEGER REFERENCES owner (owner_id), fee DOUBLE)"
        )
        connection.execute("INSERT INTO owner SELECT i, 'n' || i, DATE '1990-01-01' + i::INTEGER FROM range(20) t(i)")
        connection.execute("INSERT INTO visit SELECT i, i % 20, i * 1.5 FROM range(60) t(i)")
    out = explore(settings_of(path, walks=16), store=Store(tmp_path / "store"), out=tmp_path / "out", say=quiet)
    rows = pq.read_table(out / "pairs.parquet").to_pylist()
    assert len(rows) > 20 and any("join" in row["operators"] for row in rows)
    with duckdb.connect(path, read_only=True) as connection:
        for row in rows:
            assert connection.execute(row["native_sql"]).fetchall()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"walks": 0}, "walks: 0 is too few"),
        ({"patience": 0}, "patience: 0 is too few"),
        ({"walks": "many"}, "explore.walks"),
        ({"per_levle": 3}, "per_levle"),
        ({"smoothing": 0.0}, "smoothing: 0.0"),
        ({"limits": {"rowz": 1}}, "rowz"),
    ],
)
def test_settings_that_cannot_work(shop: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of(shop, **changes)


def test_reading_the_database_changes_nothing(shop: Path, explored: Path) -> None:
    assert [path.name for path in shop.parent.iterdir()] == ["shop.sqlite"]
    assert len(read_catalog(shop).tables) == 3


def test_what_was_found_before_trouble_can_be_used(
    shop: Path, explored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.core.errors import RunError
    from tutelage.text2sql.explore.synthesizers.offline import Offline

    begin = Offline.begin

    def spent(self: Offline, walk: Any) -> Any:
        if walk.id == 20:
            raise RunError("synthesizer.budget_usd", "spent", "give more")
        return begin(self, walk)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Offline, "begin", spent)
        with pytest.raises(RunError, match="spent"):
            explore(settings_of(shop), store=Store(tmp_path), out=out, say=quiet)
    assert [pair.to_json() for pair in read_pairs(out)] == [pair.to_json() for pair in read_pairs(explored)][
        : len(read_pairs(out))
    ]
    assert read_pairs(out) and not (out / "manifest.json").exists()
    explore(settings_of(shop), store=Store(tmp_path), out=out, say=quiet)
    assert digest(out) == digest(explored)


def test_many_tables(tmp_path: Path) -> None:
    path = tmp_path / "many.sqlite"
    connection = sqlite3.connect(path)
    for t in range(600):
        parent = f", p INTEGER REFERENCES box{(t - 1) // 2}" if t else ", p INTEGER"
        connection.execute(f"CREATE TABLE box{t} (id INTEGER PRIMARY KEY{parent}, color TEXT, size INTEGER)")
        connection.executemany(
            f"INSERT INTO box{t} VALUES (?, ?, ?, ?)", [(i, i % 5, "rgb"[i % 3], i) for i in range(9)]
        )
    connection.commit()
    connection.close()
    out = explore(settings_of(path, walks=3, max_level=2), store=Store(tmp_path), out=tmp_path / "out", say=quiet)
    assert {pair.level for pair in read_pairs(out)} == {1, 2}
