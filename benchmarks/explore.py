"""How fast a database is explored: walks, checked candidates, accepted pairs, and growth with the schema.

    python benchmarks/explore.py

Everything runs on databases made here: tables of 12 columns in a tree of foreign keys. Walks have 8 different
columns, on one core, on 20 tables (240 columns), beside the same walk written plainly over adjacency lists. Times of
one process are its CPU seconds, so that other work on the machine counts little; a whole exploration, which has
processes of its own, is timed by the clock. Medians of interleaved rounds; writes benchmarks/results/explore.{json,md}.
"""

import json
import os
import platform
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as pq

from tutelage.core.store import Store
from tutelage.text2sql.database.catalog import Catalog, read_catalog
from tutelage.text2sql.database.executor import Executor, Limits
from tutelage.text2sql.explore.config import explore_settings
from tutelage.text2sql.explore.filter import Guard, Seen, check
from tutelage.text2sql.explore.graph import Graph, build_graph
from tutelage.text2sql.explore.pair import Candidate
from tutelage.text2sql.explore.pipeline import explore
from tutelage.text2sql.explore.samplers.base import Sampler
from tutelage.text2sql.explore.samplers.coverage import Coverage
from tutelage.text2sql.explore.samplers.empirical_weighted import EmpiricalWeighted
from tutelage.text2sql.explore.samplers.inter_boost import InterBoost
from tutelage.text2sql.explore.samplers.join_tree import JoinTree
from tutelage.text2sql.explore.samplers.random_walk import RandomWalk

RESULTS = Path(__file__).parent / "results"
ROUNDS = 3
SIZE = 8
COLUMNS = 12
ROWS = 500
WORDS = ("red", "green", "blue", "north", "south", "small", "large")


def make_database(path: Path, num_tables: int, num_columns: int = COLUMNS) -> None:
    """A tree of tables: an id, a key to the parent, then numbers and words in turn."""
    values = random.Random(0)
    with sqlite3.connect(path) as connection:
        for t in range(num_tables):
            names = [f"item{t}_id INTEGER PRIMARY KEY"]
            if t:
                names.append(f"item{(t - 1) // 2}_id INTEGER REFERENCES item{(t - 1) // 2}")
            while len(names) < num_columns:
                kind = ("size", "INTEGER") if len(names) % 2 else ("color", "TEXT")
                names.append(f"{kind[0]}{len(names)} {kind[1]}")
            connection.execute(f"CREATE TABLE item{t} ({', '.join(names)})")
            rows = [
                [i, *(values.choice(WORDS) if "TEXT" in name else values.randrange(ROWS) for name in names[1:])]
                for i in range(ROWS if num_tables < 100 else 20)
            ]
            connection.executemany(f"INSERT INTO item{t} VALUES ({', '.join('?' * len(names))})", rows)
    connection.close()


def plain_walks(neighbours: list[list[int]], count: int) -> list[list[int]]:
    """The same walk, as simply as it can be said."""
    walks = []
    for _ in range(count):
        node = random.randrange(len(neighbours))
        walk = [node]
        for _ in range(4 * SIZE):
            if len(walk) == SIZE or not neighbours[node]:
                break
            node = random.choice(neighbours[node])
            if node not in walk:
                walk.append(node)
        walks.append(walk)
    return walks


def seconds(job: Callable[[], object]) -> float:
    """Time one call, in CPU seconds of this process."""
    begin = time.process_time()
    job()
    return time.process_time() - begin


def measure_walks(graph: Graph) -> dict[str, float]:
    """Walks a second of each sampler, and of the plain loop; medians of interleaved rounds."""
    samplers: list[tuple[Sampler, int]] = [
        (RandomWalk(graph=graph, seed=1, size=SIZE), 200_000),
        (EmpiricalWeighted(graph=graph, seed=1, size=SIZE), 200_000),
        (InterBoost(graph=graph, seed=1, size=SIZE, hop=0.3), 200_000),
        (JoinTree(graph=graph, seed=1, size=SIZE, max_tables=4), 20_000),
        (Coverage(graph=graph, seed=1, size=SIZE), 20_000),
    ]
    neighbours = [part.tolist() for part in np.split(graph.neighbours_E, graph.starts_N1[1:-1])]
    times: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        times.setdefault("plain adjacency lists", []).append(5_000 / seconds(lambda: plain_walks(neighbours, 5_000)))
        for sampler, count in samplers:
            ids_W = np.arange(count)
            times.setdefault(sampler.name, []).append(count / seconds(lambda s=sampler, i=ids_W: s.sample(i)))
    return {name: median(rates) for name, rates in times.items()}


def measure_exploration(database: Path, folder: Path) -> tuple[dict[str, float], Path]:
    """Candidates and accepted pairs a second of a whole exploration, processes and files included."""
    base = "tutelage.text2sql.explore"
    settings = explore_settings(
        {
            "database": str(database),
            "walks": 16,
            "max_level": 5,
            "sampler": {"_target_": f"{base}.samplers.join_tree.JoinTree", "size": SIZE, "max_tables": 4},
            "synthesizer": {"_target_": f"{base}.synthesizers.offline.Offline", "width": 6},
        }
    )
    begin = time.perf_counter()
    explore(settings, store=Store(folder), out=folder / "out", say=lambda _: None)
    took = time.perf_counter() - begin
    counts = json.loads((folder / "out" / "manifest.json").read_text())["counts"]
    proposed = counts["pairs"] + counts["rejected"]
    return {
        "candidates": proposed,
        "accepted": counts["pairs"],
        "candidates a second, by the clock": proposed / took,
        "accepted pairs a second, by the clock": counts["pairs"] / took,
    }, folder / "out"


def measure_checks(catalog: Catalog, database: Path, explored: Path) -> dict[str, float]:
    """Candidates that the filter alone judges a second, in this process, beside the bare execution of their SQL."""
    columns = ["question", "sql", "level", "operators"]
    rows = [
        row
        for name in ("pairs", "rejected")
        for row in pq.read_table(explored / f"{name}.parquet", columns=columns).to_pylist()
    ]
    candidates = [Candidate(row["question"], row["sql"], row["level"], tuple(row["operators"]), {}) for row in rows]
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    checked, executed = [], []
    with Executor(workers=0, limits=Limits(seconds=5, rows=10_000)) as executor:
        for _ in range(3):
            seen, guard = Seen(), Guard()

            def judge(seen: Seen = seen, guard: Guard = guard) -> None:
                for candidate in candidates:
                    check(
                        candidate,
                        parent=None,
                        catalog=catalog,
                        execute=lambda sql: executor.run(database, sql),
                        guard=guard,
                        seen=seen,
                    )

            checked.append(len(candidates) / seconds(judge))
            executed.append(
                len(rows) / seconds(lambda: [connection.execute(row["sql"]).fetchmany(10_000) for row in rows])
            )
    connection.close()
    return {
        "candidates validated a second, CPU of one core": median(checked),
        "bare execution of their SQL a second, CPU of one core": median(executed),
    }


def measure_growth(folder: Path) -> list[dict[str, float]]:
    """Catalog, graph and 10,000 walks of databases of 10 to 10,000 columns."""
    rows = []
    for num_columns in (10, 100, 1_000, 10_000):
        path = folder / f"{num_columns}.sqlite"
        make_database(path, max(1, num_columns // 10), 10)
        catalog = read_catalog(path)
        graph = build_graph(catalog, readings=[], smoothing=1.0)
        sampler = RandomWalk(graph=graph, seed=1, size=SIZE)
        times = [
            [
                seconds(lambda p=path: read_catalog(p, statistics=False)),
                seconds(lambda p=path: read_catalog(p)),
                seconds(lambda c=catalog: build_graph(c, readings=[], smoothing=1.0)),
                seconds(lambda s=sampler: s.sample(np.arange(10_000))),
            ]
            for _ in range(3)
        ]
        names = ("catalog", "catalog with statistics", "graph", "10,000 walks")
        rows.append(
            {"columns": graph.num_nodes} | {name: median(part) for name, part in zip(names, zip(*times), strict=True)}
        )
    return rows


def main() -> None:
    """Measure, print and keep."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        database = folder / "tables.sqlite"
        make_database(database, 20)
        catalog = read_catalog(database)
        graph = build_graph(catalog, readings=[], smoothing=1.0)
        walks = measure_walks(graph)
        whole, explored = measure_exploration(database, folder)
        checks = measure_checks(catalog, database, explored)
        growth = measure_growth(folder)
    results = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "walks a second": walks,
        "exploration": whole,
        "filter": checks,
        "growth, seconds": growth,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "explore.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / "explore.md").write_text(table := as_markdown(results, walks, whole, checks, growth))
    print(table)


def as_markdown(
    results: dict[str, object],
    walks: dict[str, float],
    whole: dict[str, float],
    checks: dict[str, float],
    growth: list[dict[str, float]],
) -> str:
    """Write the tables."""
    plain = walks["plain adjacency lists"]
    lines = [
        f"`python benchmarks/explore.py` on {results['machine']}, load {os.getloadavg()[1]:.0f}: CPU seconds of one",
        "process, but for what is said to be by the clock, which the load stretches.",
        "",
    ]
    lines += ["| walks of 8 columns, 240 columns in 20 tables, one core | a second | × plain |", "|---|---:|---:|"]
    lines += [f"| {name} | {rate:,.0f} | {rate / plain:.1f} |" for name, rate in walks.items()]
    lines += ["", "| 20 tables × 12 columns × 500 rows | |", "|---|---:|"]
    lines += [f"| {name} | {value:,.0f} |" for name, value in (whole | checks).items()]
    lines += ["", "| " + " | ".join(growth[0]) + " |", "|---:" * len(growth[0]) + "|"]
    for row in growth:
        lines.append("| " + " | ".join(f"{v:,}" if k == "columns" else f"{v:.4f} s" for k, v in row.items()) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
