"""Every item of every published prediction file, and every hand-made case, against the official scorers.

The vectors come from the unchanged official scorers; the files lie outside of the repository.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tutelage.text2sql.database.executor import Limits
from tutelage.text2sql.evaluation.efficiency import mean_ratio, reward, root_mean, without_outliers
from tutelage.text2sql.evaluation.exact_match import exact_match
from tutelage.text2sql.evaluation.gold import Benchmark, Item, load_benchmark
from tutelage.text2sql.evaluation.hardness import hardness
from tutelage.text2sql.evaluation.outcome import Outcome
from tutelage.text2sql.evaluation.score import BenchmarkScorer
from tutelage.text2sql.evaluation.soft_f1 import ex, soft_f1
from tutelage.text2sql.evaluation.spider_judge import SpiderJudge
from tutelage.text2sql.evaluation.spider_sql import SpiderSyntaxError, parse


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def outcomes(
    benchmark: Benchmark,
    queries: list[str],
    store: Path,
    *,
    metrics: tuple[str, ...],
    keep_distinct: bool = False,
    seconds: float = 30.0,
) -> list[Outcome]:
    with ExitStack() as stack:
        scorer = BenchmarkScorer(
            benchmark,
            metrics=metrics,
            keep_distinct=keep_distinct,
            limits=Limits(seconds=seconds, rows=None),
            workers=1,
            store=store,
            stack=stack,
        )
        return scorer.outcomes(queries)


def vectors(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(folder.glob("*.json")):
        if path.stem != "units":
            yield path.stem, json.loads(path.read_text())


def test_spider_files(shared_data: Path, store: Path) -> None:
    benchmark = load_benchmark("spider", root=shared_data / "spider", split="dev", on_missing="error")
    judge = SpiderJudge(benchmark, metrics=("exact_match",), keep_distinct=False)
    trees = [parse(item.sql, judge.schema(item.db_id)) for item in benchmark.items]
    number = 0
    for name, vector in vectors(shared_data / "predictions" / "spider"):
        official = vector["official"]
        queries = vector["predictions"]
        found = outcomes(benchmark, queries, store, metrics=("execution",))
        assert [outcome.official["execution"] for outcome in found] == official["exec"], name
        # Keeping DISTINCT changes no statement that has none, so those are not run a second time.
        pairs = list(zip(queries, benchmark.items, strict=True))
        places = [n for n, (query, item) in enumerate(pairs) if "distinct" in f"{query} {item.sql}".lower()]
        with_distinct = replace(benchmark, all_items=[benchmark.items[n] for n in places])
        kept = outcomes(with_distinct, [queries[n] for n in places], store, metrics=("execution",), keep_distinct=True)
        of_all = list(official["exec"])
        for n, outcome in zip(places, kept, strict=True):
            of_all[n] = outcome.official["execution"]
        assert of_all == official["exec_keep_distinct"], name
        assert [hardness(tree) for tree in trees] == official["hardness"]
        matches = [
            exact_match(query, tree, schema=judge.schema(item.db_id), keys=benchmark.keys[item.db_id])
            for query, tree, item in zip(queries, trees, benchmark.items, strict=True)
        ]
        assert [match.score for match in matches] == official["exact_match"], name
        assert [int(match.parses) for match in matches] == official["prediction_parses"], name
        number += 1
    assert number >= 5


def endless(unit: dict[str, Any]) -> bool:
    return str(unit["official"]["exec"]).startswith("timeout")


def unit_benchmark(root: Path, units: list[dict[str, Any]]) -> Benchmark:
    real = load_benchmark("spider", root=root, split="dev", on_missing="error")
    items = [Item(unit["id"], unit["db_id"], "?", unit["gold"]) for unit in units]
    databases = {item.db_id: (root / "database" / item.db_id / f"{item.db_id}.sqlite",) for item in items}
    return Benchmark("spider", "units", items, databases, {}, real.keys)


def test_spider_units_of_execution(shared_data: Path, store: Path) -> None:
    units = json.loads((shared_data / "predictions/spider/units.json").read_text())["units"]
    # Those that never end come first, and alone have a short limit.
    units.sort(key=lambda unit: not endless(unit))
    number = sum(map(endless, units))
    assert number == 1

    def run(*, keep_distinct: bool) -> list[Outcome]:
        found: list[Outcome] = []
        for some, seconds in ((units[:number], 1.0), (units[number:], 60.0)):
            found += outcomes(
                unit_benchmark(shared_data / "spider", some),
                [unit["pred"] for unit in some],
                store,
                metrics=("execution",),
                keep_distinct=keep_distinct,
                seconds=seconds,
            )
        return found

    # The plain columns were made without the word value replaced, which no prediction but two holds.
    replaced, kept = run(keep_distinct=False), run(keep_distinct=True)
    for unit, plain, distinct in zip(units, replaced, kept, strict=True):
        official = unit["official"]
        columns = [(plain, official["exec_evaluation_py"])]
        if "value" not in unit["pred"]:
            columns += [(plain, official["exec"]), (distinct, official["exec_keep_distinct"])]
        for outcome, expected in columns:
            if isinstance(expected, int):
                assert outcome.official["execution"] == expected, unit["id"]
                continue
            assert outcome.official["execution"] == 0
            status = {
                "raises: IndexError": "empty",
                "raises: AssertionError": "gold_error",
                "timeout: 60 s (official time-out did not fire)": "timeout",
            }
            assert outcome.status == status[expected], unit["id"]


def test_spider_units_of_exact_match(shared_data: Path) -> None:
    units = json.loads((shared_data / "predictions/spider/units.json").read_text())["units"]
    benchmark = unit_benchmark(shared_data / "spider", units)
    judge = SpiderJudge(benchmark, metrics=("exact_match",), keep_distinct=False)
    compared = 0
    for unit in units:
        official, schema = unit["official"], judge.schema(unit["db_id"])
        try:
            gold = parse(unit["gold"], schema)
        except SpiderSyntaxError:
            assert official["exact_match"] == "raises: AssertionError", unit["id"]
            continue
        match = exact_match(unit["pred"], gold, schema=schema, keys=benchmark.keys[unit["db_id"]])
        assert (f"raises: {match.raises}" if match.raises else match.score) == official["exact_match"], unit["id"]
        assert match.parses == official["prediction_parses"], unit["id"]
        assert hardness(gold) == official["hardness"], unit["id"]
        if official["failed_parts"] is not None:
            assert set(match.failed) - {"tables"} == set(official["failed_parts"]), unit["id"]
        compared += 1
    assert compared >= 90


def test_bird_files(shared_data: Path, store: Path) -> None:
    benchmark = load_benchmark("bird", root=shared_data / "bird", split="dev", on_missing="skip")
    assert (len(benchmark.items), sum(benchmark.missing.values()), len(benchmark.missing)) == (129, 1405, 10)
    number = 0
    for name, vector in vectors(shared_data / "predictions" / "bird"):
        found = outcomes(benchmark, vector["predictions"], store, metrics=("ex", "soft_f1"))
        assert [outcome.official["ex"] for outcome in found] == vector["official"]["ex"], name
        values = [outcome.official["soft_f1"] for outcome in found]
        assert values == pytest.approx(vector["official"]["soft_f1"], abs=1e-9), name
        failed = {
            item.id
            for item, outcome in zip(benchmark.items, found, strict=True)
            if outcome.status not in ("correct", "wrong")
        }
        assert failed == set(vector["official"]["errors_of_ex"]), name
        number += 1
    assert number >= 5


def test_bird_units(shared_data: Path) -> None:
    units = json.loads((shared_data / "predictions/bird/units.json").read_text())
    for pair in units["pairs"]:
        predicted, gold = ([tuple(row) for row in pair[side]] for side in ("predicted", "gold"))
        assert ex(predicted, gold) == pair["official"]["ex"], pair["note"]
        assert soft_f1(predicted, gold) == pytest.approx(pair["official"]["soft_f1"], abs=1e-9), pair["note"]
    times = units["r_ves"]
    for case in times["rewards"]:
        ratio = case["time_ratio"]
        assert reward(ratio) == case["reward"]
        assert reward(mean_ratio([ratio] * 100)) == case["identical_times_no_patch"]["reward"]
        assert reward(mean_ratio([ratio * 0.875, ratio * 1.125] * 50)) == case["alternating_times_no_patch"]
        assert root_mean([reward(ratio)]) == pytest.approx(case["sqrt_reward_percent"], abs=1e-9)
        assert root_mean([ratio]) == pytest.approx(case["ves_of_damo_percent"], abs=1e-9)
    for case in times["clean_abnormal"]:
        assert without_outliers(case["in"]) == case["mini_dev"] == case["damo"]
    for case in times["aggregate"]:
        assert root_mean(case["rewards"]) == pytest.approx(case["r_ves_percent"], abs=1e-9)
    for case in times["aggregate_damo_ves"]:
        assert root_mean(case["time_ratios"]) == pytest.approx(case["ves_percent"], abs=1e-9)
