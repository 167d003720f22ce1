"""How fast predictions are scored: Spider dev beside a plain loop, and golds that take seconds.

    python benchmarks/score.py --data-root ../shared/data

Part 1, Spider dev (needs spider/ and predictions/spider/): execution accuracy of a first and a second prediction
file, on one and two workers, beside a loop that does what the official scorer does and nothing more: both queries on
fresh connections, DISTINCT stripped with sqlparse, column permutations tried one after the other.
Part 2: a BIRD-like database of 200 MB, made here, whose golds take seconds: the second system finds their results.
Starting the processes is timed apart. Medians of interleaved rounds; writes benchmarks/results/score.{json,md}.
"""

import argparse
import json
import os
import platform
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from itertools import permutations
from pathlib import Path
from statistics import median
from typing import Any

import sqlparse

from tutelage.text2sql.database.executor import Limits
from tutelage.text2sql.evaluation.gold import Benchmark, load_benchmark
from tutelage.text2sql.evaluation.predictions import BIRD_SEPARATOR, read_predictions
from tutelage.text2sql.evaluation.score import BenchmarkScorer, score_predictions

RESULTS = Path(__file__).parent / "results"
ROUNDS = 5
SPIDER_TARGET, GOLDS_TARGET = 5.0, 20.0


# ---- the plain loop -----------------------------------------------------------------------------------------------


def plain_loop(benchmark: Benchmark, queries: Sequence[str]) -> list[int]:
    """Execution accuracy item by item, as simply as it can be said."""
    return [
        plain_item(benchmark.databases[item.db_id], item.sql, query)
        for item, query in zip(benchmark.items, queries, strict=True)
    ]


def plain_item(paths: Sequence[Path], gold: str, query: str) -> int:
    query = query.replace("value", "1")
    gold, query = (plain_strip(text) for text in (gold, query))
    for path in paths:
        expected, found = plain_run(path, gold), plain_run(path, query)
        if found is None or expected is None or not plain_equal(expected, found, "order by" in gold.lower()):
            return 0
    return 1


def plain_strip(sql: str) -> str:
    for split, joined in (("> =", ">="), ("< =", "<="), ("! =", "!=")):
        sql = sql.replace(split, joined)
    words = [token.value for token in sqlparse.parse(sql)[0].flatten()]
    return "".join(word for word in words if word.lower() != "distinct")


def plain_run(path: Path, sql: str) -> list[tuple[Any, ...]] | None:
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = lambda raw: raw.decode(errors="ignore")
        try:
            return connection.execute(sql).fetchall()
        except (sqlite3.Error, sqlite3.Warning):
            return None


def plain_equal(gold: list[tuple[Any, ...]], found: list[tuple[Any, ...]], ordered: bool) -> bool:
    if not gold and not found:
        return True
    if len(gold) != len(found) or len(gold[0]) != len(found[0]):
        return False
    # Without this test, wide and wrong results would take hours.
    cells = [[tuple(sorted(row, key=lambda cell: f"{cell}{type(cell)}")) for row in rows] for rows in (gold, found)]
    if (cells[0] != cells[1]) if ordered else (set(cells[0]) != set(cells[1])):
        return False
    for order in permutations(range(len(gold[0]))):
        moved = [tuple(row[place] for place in order) for row in found]
        if moved == gold if ordered else Counter(moved) == Counter(gold):
            return True
    return False


# ---- part 1: Spider dev -------------------------------------------------------------------------------------------


def spider(root: Path, rounds: int) -> dict[str, Any]:
    """Times of the plain loop and of ours, and whether the vectors are the same."""
    benchmark = load_benchmark("spider", root=root / "spider", split="dev", on_missing="error")
    items = benchmark.items
    files = [
        path for path in sorted((root / "predictions" / "spider").glob("*.json")) if path.stem not in ("units", "gold")
    ]
    systems = {path.stem: read_predictions(path, items=items, all_items=items).queries for path in files}
    first, second = list(systems)[:2]
    times: dict[str, list[float]] = {}
    start: list[float] = []
    vectors: dict[str, list[int]] = {}

    processor: dict[str, list[float]] = {}

    def record(name: str, act: Callable[[], list[int]]) -> None:
        begin = time.perf_counter()
        vectors[name] = act()
        times.setdefault(name, []).append(time.perf_counter() - begin)

    def record_processor(name: str, begin: float) -> None:
        processor.setdefault(name, []).append(processor_seconds() - begin)

    for _ in range(rounds):
        for name in (first, second):
            processor_begin = processor_seconds()
            record(f"loop, {name}", lambda name=name: plain_loop(benchmark, systems[name]))  # type: ignore[misc]
            record_processor(f"loop, {name}", processor_begin)
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as store:
                for place, name in (("first", first), ("second", second)):
                    processor_begin = processor_seconds()
                    with ExitStack() as stack:
                        begin = time.perf_counter()
                        scorer = make_scorer(benchmark, Path(store), workers, stack)
                        start.append(time.perf_counter() - begin)
                        record(
                            f"{workers} workers, {place} file",
                            lambda scorer=scorer, name=name: [  # type: ignore[misc]
                                int(outcome.official["execution"]) for outcome in scorer.outcomes(systems[name])
                            ],
                        )
                    record_processor(f"{workers} workers, {place} file", processor_begin)
    same = all(
        vectors[f"loop, {name}"] == vectors[f"{workers} workers, {place} file"]
        for place, name in (("first", first), ("second", second))
        for workers in (1, 2)
    )
    ratio = median(
        loop / ours for loop, ours in zip(times[f"loop, {second}"], times["1 workers, second file"], strict=True)
    )
    return {
        "items": len(items),
        "first": first,
        "second": second,
        "rounds": rounds,
        "start_seconds": median(start),
        "seconds": {name: median(values) for name, values in times.items()},
        "items_per_second": {name: len(items) / median(values) for name, values in times.items()},
        "processor_seconds": {name: median(values) for name, values in processor.items()},
        "same_vectors": same,
        "correct": {name: sum(vector) for name, vector in vectors.items()},
        "second_file_one_worker_over_loop": ratio,
        "target": SPIDER_TARGET,
    }


def processor_seconds() -> float:
    """Processor time of this process and of its children that have ended: hardly touched by what else runs."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def make_scorer(benchmark: Benchmark, store: Path, workers: int, stack: ExitStack) -> BenchmarkScorer:
    """A scorer whose processes run already."""
    scorer = BenchmarkScorer(
        benchmark,
        metrics=("execution",),
        keep_distinct=False,
        limits=Limits(rows=None),
        workers=workers,
        store=store,
        stack=stack,
    )
    scorer.start()
    return scorer


# ---- part 2: golds that take seconds ------------------------------------------------------------------------------

QUESTIONS = (
    (
        "How often did a shop with a number below 100 sell for less than another shop on the same day?",
        "SELECT COUNT(*) FROM sale AS a JOIN sale AS b ON a.day = b.day AND a.amount < b.amount WHERE a.shop_id < 100",
    ),
    (
        "How many sales are the best of their shop on their day?",
        "SELECT COUNT(*) FROM (SELECT RANK() OVER (PARTITION BY shop_id, day ORDER BY amount DESC) AS place FROM sale) "
        "WHERE place = 1",
    ),
    (
        "How much did each shop sell on its best day?",
        "SELECT shop_id, MAX(total) FROM (SELECT shop_id, SUM(amount) AS total FROM sale GROUP BY shop_id, day) "
        "GROUP BY shop_id",
    ),
    ("How many different notes are there?", "SELECT COUNT(*) FROM (SELECT DISTINCT LOWER(note) FROM sale)"),
    (
        "Which ten shops sold most?",
        "SELECT shop.name FROM sale JOIN shop ON shop.id = sale.shop_id GROUP BY shop.name "
        "ORDER BY SUM(amount) DESC LIMIT 10",
    ),
    (
        "How many sales are below the best of their shop on their day?",
        "SELECT COUNT(*) FROM sale AS a JOIN "
        "(SELECT shop_id, day, MAX(amount) AS best FROM sale GROUP BY shop_id, day) AS b "
        "ON a.day = b.day AND a.shop_id = b.shop_id WHERE a.amount < b.best",
    ),
)
# As systems that find the table of totals would write them: right or wrong, and quick.
SYSTEMS = {
    "first_system": (
        "SELECT SUM(num_returns) FROM total",
        "SELECT COUNT(*) FROM total",
        "SELECT shop_id, best_day FROM total",
        "SELECT SUM(num_sales) FROM total",
        "SELECT name FROM shop JOIN total ON shop.id = shop_id ORDER BY amount DESC LIMIT 10",
        "SELECT COUNT(*) FROM shop",
    ),
    "second_system": (
        "SELECT COUNT(*) FROM total WHERE num_returns > 0",
        "SELECT SUM(num_returns) FROM total",
        "SELECT total.shop_id, total.best_day FROM total JOIN shop ON shop.id = total.shop_id",
        "SELECT num_sales FROM total LIMIT 1",
        "SELECT name FROM shop LIMIT 10",
        "SELECT SUM(num_sales) FROM total",
    ),
}


def make_slow_benchmark(folder: Path, megabytes: int) -> None:
    """A database of that size in BIRD's layout, with questions and two systems' predictions."""
    path = folder / "dev_databases" / "shops" / "shops.sqlite"
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """
            PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
            CREATE TABLE shop (id INTEGER PRIMARY KEY, name TEXT);
            CREATE TABLE sale (id INTEGER PRIMARY KEY, shop_id INTEGER, day INTEGER, amount INTEGER, note TEXT);
            CREATE TABLE total (shop_id INTEGER PRIMARY KEY, amount INTEGER, num_returns INTEGER, num_sales INTEGER,
                                best_day INTEGER);
            """
        )
        connection.executemany("INSERT INTO shop VALUES (?, ?)", ((i, f"Shop {i}") for i in range(1000)))
        rows = megabytes * 1_000_000 // 205
        connection.executemany(
            "INSERT INTO sale VALUES (?, ?, ?, ?, ?)",
            (
                (
                    i,
                    i * 7919 % 1000,
                    i * 104_729 // 1000 % 3650,
                    i * 15_485_863 % 100_000,
                    f"{i:x} sold as seen " * 9 + "return" * (i % 97 == 0),
                )
                for i in range(rows)
            ),
        )
        connection.execute(
            "INSERT INTO total SELECT shop_id, SUM(amount), SUM(returns), SUM(sales), MAX(amount) FROM "
            "(SELECT shop_id, SUM(amount) AS amount, SUM(note LIKE '%return%') AS returns, COUNT(*) AS sales FROM sale "
            "GROUP BY shop_id, day) GROUP BY shop_id"
        )
        connection.commit()
    questions = [
        {"question_id": i, "db_id": "shops", "question": q, "evidence": "", "SQL": sql, "difficulty": "simple"}
        for i, (q, sql) in enumerate(QUESTIONS)
    ]
    (folder / "dev.json").write_text(json.dumps(questions))
    for name, queries in SYSTEMS.items():
        lines = {str(i): f"{sql}{BIRD_SEPARATOR}shops" for i, sql in enumerate(queries)}
        (folder / f"{name}.json").write_text(json.dumps(lines))


def slow_golds(megabytes: int, rounds: int) -> dict[str, Any]:
    """Times of whole scorings, start-up included, of a first and a second system."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_slow_benchmark(folder, megabytes)
        database = folder / "dev_databases" / "shops" / "shops.sqlite"
        times: dict[str, list[float]] = {system: [] for system in SYSTEMS}
        values: dict[str, float] = {}
        for number in range(rounds):
            for system in SYSTEMS:
                begin = time.perf_counter()
                scores = score_predictions(
                    benchmark="bird",
                    root=folder,
                    predictions=[folder / f"{system}.json"],
                    store=folder / f"store{number}",
                    workers=2,
                )
                times[system].append(time.perf_counter() - begin)
                values[system] = scores.score(scores.systems[0], "ex", "official").value
        return {
            "database_mb": database.stat().st_size / 1e6,
            "golds": len(QUESTIONS),
            "rounds": rounds,
            "seconds": {system: median(seconds) for system, seconds in times.items()},
            "ex": values,
            "second_over_first": median(a / b for a, b in zip(*times.values(), strict=True)),
            "target": GOLDS_TARGET,
        }


# ---- the page -----------------------------------------------------------------------------------------------------


def machine() -> str:
    """The machine in general words."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()}-core {model}"


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# Scoring speed",
        "",
        f"`python benchmarks/score.py` on a {results['machine']}, load {results['load']:.1f} before the start",
        "(on a busy machine all times are longer, and what waits for a second process suffers most);",
        f"Python {results['python']}, SQLite {results['sqlite']}. Medians of interleaved rounds.",
        "",
    ]
    if part := results.get("spider"):
        lines += [
            f"## Spider dev, {part['items']:,} items, execution accuracy",
            "",
            "| | seconds | items a second | processor seconds |",
            "|---|---:|---:|---:|",
            *(
                f"| {name} | {seconds:.2f} | {part['items_per_second'][name]:,.0f} "
                f"| {part['processor_seconds'][name]:.2f} |"
                for name, seconds in part["seconds"].items()
            ),
            "",
            f"First file: {part['first']}; second: {part['second']}. "
            f"Starting the processes takes {part['start_seconds']:.2f} s more.",
            f"The vectors are {'the same' if part['same_vectors'] else 'NOT the same'} as the loop's.",
            f"**Second file on one worker: {part['second_file_one_worker_over_loop']:.1f}× the loop** "
            f"(target {part['target']:g}×).",
            "",
        ]
    if not (part := results.get("slow_golds")):
        return "\n".join(lines)
    first, second = part["seconds"].values()
    lines += [
        f"## Golds that take seconds: a database of {part['database_mb']:.0f} MB, {part['golds']} questions",
        "",
        f"First system {first:.2f} s, second system {second:.2f} s, start-up included, 2 workers:",
        f"**{part['second_over_first']:.0f}× faster** (target {part['target']:g}×).",
        "The predictions are quick ones; a prediction as slow as its gold costs its own time with every system.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run both parts and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("TUTELAGE_DATA", "../shared/data")))
    parser.add_argument("--part", choices=("spider", "golds"), help="one alone; the other's results stay")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--megabytes", type=int, default=200)
    arguments = parser.parse_args()
    kept = RESULTS / "score.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if arguments.part and kept.is_file() else {}
    results |= {
        "machine": machine(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    if arguments.part != "golds" and (arguments.data_root / "predictions" / "spider").is_dir():
        results["spider"] = spider(arguments.data_root, arguments.rounds)
    if arguments.part != "spider":
        results["slow_golds"] = slow_golds(arguments.megabytes, rounds=min(arguments.rounds, 3))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "score.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / "score.md").write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
