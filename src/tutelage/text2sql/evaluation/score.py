"""Score prediction files on Spider or BIRD: the one door to this folder for whoever has files."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Literal

from tutelage.core.errors import ConfigError, DataError, UserError
from tutelage.core.store import Store
from tutelage.text2sql.database.address import Database
from tutelage.text2sql.database.defog import DefogDialect
from tutelage.text2sql.database.executor import Executor, Limits, Query, Result, Timing
from tutelage.text2sql.database.session import message
from tutelage.text2sql.evaluation import defog_judge
from tutelage.text2sql.evaluation.bird_judge import BirdJudge
from tutelage.text2sql.evaluation.efficiency import REPEATS, root_mean
from tutelage.text2sql.evaluation.gold import (
    DOUBTFUL_DATABASES,
    Benchmark,
    BenchmarkName,
    Item,
    OnMissing,
    load_benchmark,
    load_defog,
)
from tutelage.text2sql.evaluation.gold_results import GoldResults
from tutelage.text2sql.evaluation.outcome import NO_PREVIEW, STATUSES, ItemStatus, Judge, Needs, Outcome
from tutelage.text2sql.evaluation.predictions import Predictions, read_predictions
from tutelage.text2sql.evaluation.significance import McNemar, bootstrap_interval, mcnemar
from tutelage.text2sql.evaluation.spider_judge import SpiderJudge

Mode = Literal["official", "strict"]
MODES: tuple[Mode, Mode] = ("official", "strict")
METRICS: dict[BenchmarkName, tuple[str, ...]] = {
    "spider": ("execution", "exact_match"),
    "bird": ("ex", "soft_f1", "ves", "r_ves"),
    "defog": defog_judge.METRICS,
}
DEFAULT_METRICS: dict[BenchmarkName, tuple[str, ...]] = {
    "spider": ("execution", "exact_match"),
    "bird": ("ex", "soft_f1"),  # the other two run each query 100 times more
    "defog": defog_judge.METRICS,
}


@dataclass(frozen=True, slots=True)
class Score:
    """A percentage over items, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    items: int


@dataclass(frozen=True, slots=True)
class SystemScore:
    """One system's scores.

    Attributes:
        predictions: What was scored.
        outcomes: One for each item, in the data's order.
    """

    predictions: Predictions
    outcomes: list[Outcome]

    @property
    def statuses(self) -> dict[ItemStatus, int]:
        """How many items ended how, by the official first metric."""
        counts = Counter(outcome.status for outcome in self.outcomes)
        return {status: counts[status] for status in STATUSES if counts[status]}

    @property
    def differences(self) -> dict[str, int]:
        """How many items official and strict judge differently, by the quirk at work."""
        return dict(Counter(reason for outcome in self.outcomes for reason in outcome.reasons).most_common())

    def values(self, metric: str, mode: Mode) -> list[float]:
        """A metric's value for each item."""
        return [outcome.official[metric] if mode == "official" else outcome.strict[metric] for outcome in self.outcomes]


@dataclass(frozen=True, slots=True)
class Scores:
    """Everything that one scoring found.

    Attributes:
        benchmark: What was scored against.
        mode: Which of the two numbers is the headline.
        metrics: In the order of the columns.
        group_name: ``hardness`` or ``difficulty``.
        official_groups: The group of each item.
        strict_groups: The same without the quirks of its rule.
        group_order: The groups, easy ones first.
        systems: One or two.
        gold: The golds scored as if they were predictions: what can be reached on this machine.
        suspicious: What is doubtful about golds, by the place of the item.
        limits: On each query.
        keep_distinct: Whether DISTINCT counts in Spider's official number.
    """

    benchmark: Benchmark
    mode: Mode
    metrics: tuple[str, ...]
    group_name: str
    official_groups: list[str]
    strict_groups: list[str]
    group_order: tuple[str, ...]
    systems: list[SystemScore]
    gold: SystemScore
    suspicious: dict[int, list[str]]
    limits: Limits
    keep_distinct: bool

    @property
    def groups(self) -> list[str]:
        """The group of each item in this mode."""
        return self.official_groups if self.mode == "official" else self.strict_groups

    @property
    def num_other_groups(self) -> int:
        """How many items the two modes put into different groups."""
        return sum(a != b for a, b in zip(self.official_groups, self.strict_groups, strict=True))

    def score(self, system: SystemScore, metric: str, mode: Mode, places: Sequence[int] | None = None) -> Score:
        """A metric over all items, or over some."""
        values = system.values(metric, mode)
        if places is not None:
            values = [values[place] for place in places]
        roots = [value**0.5 for value in values] if metric in ("ves", "r_ves") else values
        low, high = bootstrap_interval(roots)
        value = root_mean(values) if metric in ("ves", "r_ves") else 100 * fmean(values) if values else float("nan")
        return Score(value, 100 * low, 100 * high, len(values))

    def places_by_group(self) -> dict[str, list[int]]:
        """The items of each level of hardness or difficulty."""
        names = [name for name in self.group_order if name in self.groups]
        names += sorted(set(self.groups) - set(names))
        return {name: [place for place, group in enumerate(self.groups) if group == name] for name in names}

    def places_by_database(self) -> dict[str, list[int]]:
        """The items of each database."""
        places: dict[str, list[int]] = {}
        for place, item in enumerate(self.benchmark.items):
            places.setdefault(item.db_id, []).append(place)
        return dict(sorted(places.items()))

    def places_not_doubtful(self) -> list[int] | None:
        """The items of databases that are not known to be broken; None where that is all."""
        items = self.benchmark.items
        kept = [place for place, item in enumerate(items) if item.db_id not in DOUBTFUL_DATABASES]
        return kept if len(kept) < len(items) else None

    def places_not_today(self) -> list[int] | None:
        """The items that do not ask for today; None where that is all."""
        today = self.benchmark.today
        return [place for place, item in enumerate(self.benchmark.items) if item.id not in today] if today else None

    def abstentions(self, system: SystemScore) -> dict[str, int]:
        """Of Defog: how many questions were answered and declined, rightly and wrongly; empty for other sets."""
        if self.benchmark.name != "defog":
            return {}
        return defog_judge.abstentions(self.benchmark.items, system.outcomes, system.predictions.queries)

    def comparison(self) -> dict[str, McNemar]:
        """McNemar's test of two systems, by metric that is right or wrong."""
        if len(self.systems) < 2:
            return {}
        first, second = self.systems
        return {
            metric: mcnemar(first.values(metric, self.mode), second.values(metric, self.mode))
            for metric in self.metrics
            if metric in ("execution", "exact_match", "ex", *defog_judge.METRICS)
        }


def score_predictions(
    *,
    benchmark: BenchmarkName,
    root: Path,
    predictions: Sequence[Path],
    store: Path,
    mode: Mode = "official",
    on_missing: OnMissing = "error",
    split: str = "dev",
    variants: Path | None = None,
    dialect: DefogDialect = "sqlite",
    server: str | None = None,
    metrics: Sequence[str] | None = None,
    keep_distinct: bool = False,
    limits: Limits | None = None,
    workers: int = 2,
) -> Scores:
    """Score one prediction file, or two to compare.

    Args:
        benchmark: Whose rules and layout of data.
        root: The folder of the data set.
        predictions: One file or two, in any form that `predictions.read_predictions` knows.
        store: Where gold results are kept.
        mode: Whether the headline is the ``official`` or the ``strict`` number; both are always worked out.
        on_missing: ``skip`` leaves out, and counts, questions whose database is not there or cannot be read.
        split: Which questions; see `gold.load_benchmark`.
        variants: Where Spider's variants lie.
        dialect: Of Defog's golds, predictions and databases.
        server: The URL of the server that has Defog's databases, for PostgreSQL.
        metrics: Which metrics; None means Spider's two, or BIRD's EX and Soft-F1. VES and R-VES take 200 more
            executions for each right answer.
        keep_distinct: Spider: let DISTINCT count in the official number.
        limits: For each query. None: 30 s, 256 MiB of results, 2 GiB of memory, any number of rows.
        workers: Processes that run queries; one alone where time is measured.

    Raises:
        ConfigError: A choice that does not exist.
        DataError: Data or predictions are missing or do not fit together.
    """
    _check(benchmark, predictions, mode, on_missing, metrics, workers)  # before anything is read
    if benchmark == "defog":
        unanswerable = split == "with_unanswerable"
        data = load_defog(root, unanswerable=unanswerable, on_missing=on_missing, dialect=dialect, server=server)
    else:
        data = load_benchmark(benchmark, root=root, split=split, on_missing=on_missing, variants=variants)
    return score_benchmark(
        data,
        predictions=predictions,
        store=store,
        mode=mode,
        metrics=metrics,
        keep_distinct=keep_distinct,
        limits=limits,
        workers=workers,
    )


def score_benchmark(
    data: Benchmark,
    *,
    predictions: Sequence[Path],
    store: Path,
    mode: Mode = "official",
    metrics: Sequence[str] | None = None,
    keep_distinct: bool = False,
    limits: Limits | None = None,
    workers: int = 2,
) -> Scores:
    """Score one prediction file, or two to compare, on questions that are read already; see `score_predictions`."""
    chosen = _check(data.name, predictions, mode, "skip", metrics, workers)
    limits = limits or Limits(rows=None)
    items = data.items
    systems = [read_predictions(path, items=items, all_items=data.all_items) for path in predictions]
    not_asked = frozenset[int]().union(*(system.not_asked for system in systems))
    if not_asked:
        data, systems = data.without(not_asked), [system.without(not_asked) for system in systems]
        items = data.items
    if not items:
        raise DataError("predictions", "the two runs have no question in common", "score each by itself")
    with ExitStack() as stack:
        scorer = BenchmarkScorer(
            data, metrics=chosen, keep_distinct=keep_distinct, limits=limits, workers=workers, store=store, stack=stack
        )
        golds = Predictions("gold", Path("gold"), "the data's own", [item.sql for item in items])
        return Scores(
            benchmark=data,
            mode=mode,
            metrics=chosen,
            group_name=scorer.judge.group_name,
            official_groups=[scorer.judge.group(item, strict=False) for item in items],
            strict_groups=[scorer.judge.group(item, strict=True) for item in items],
            group_order=scorer.judge.groups,
            gold=SystemScore(golds, scorer.outcomes(golds.queries, themselves=True)),
            systems=[SystemScore(system, scorer.outcomes(system.queries)) for system in systems],
            suspicious=scorer.suspicious(),
            limits=limits,
            keep_distinct=keep_distinct,
        )


class BenchmarkScorer:
    """Runs and judges predictions on one benchmark. Its processes end with the stack it is given."""

    def __init__(
        self,
        benchmark: Benchmark,
        *,
        metrics: tuple[str, ...],
        keep_distinct: bool,
        limits: Limits,
        workers: int,
        store: Path,
        stack: ExitStack,
    ) -> None:
        """Set up executors and open the store; see `score_predictions` for the arguments."""
        self.items = benchmark.items
        self._benchmark = benchmark
        # BIRD's scorer fails on text that is not UTF-8, Spider's drops the bytes.
        text_errors: Literal["strict", "ignore"] = "strict" if benchmark.name == "bird" else "ignore"
        # A clock is disturbed by whatever else runs.
        workers = 1 if {"ves", "r_ves"} & set(metrics) else workers
        self._executor = stack.enter_context(Executor(workers=workers, limits=limits, text_errors=text_errors))
        self._golds = stack.enter_context(
            GoldResults(Store(store), executor=self._executor, limits=limits, text_errors=text_errors)
        )
        self.judge: Judge
        if benchmark.name == "spider":
            self.judge = SpiderJudge(benchmark, metrics=metrics, keep_distinct=keep_distinct)
        elif benchmark.name == "defog":
            self.judge = defog_judge.DefogJudge(benchmark)
        else:
            lenient = stack.enter_context(Executor(workers=1, limits=limits, text_errors="replace"))

            @cache
            def clock(database: Database, statements: Sequence[str], scope: Literal["execute", "fetch"]) -> Timing:
                return self._executor.time(database, statements, repeats=REPEATS, scope=scope)

            self.judge = BirdJudge(benchmark, metrics=metrics, seconds=limits.seconds, lenient=lenient.run, clock=clock)

    def start(self) -> None:
        """Start the processes now instead of at the first query."""
        any_database = next(iter(self._benchmark.databases.values()))[0]
        for _ in self._executor.map(Query(any_database, "SELECT 1") for _ in range(64)):
            pass

    def outcomes(self, queries: Sequence[str], *, themselves: bool = False) -> list[Outcome]:
        """Judge a prediction for each item.

        Args:
            queries: In the order of the items.
            themselves: These are the golds, so nothing but golds need run.
        """
        needs = [self._needs(item, query) for item, query in zip(self.items, queries, strict=True)]
        self._golds.fill(query for need in needs for query in need.gold)
        if themselves:
            self._golds.fill(query for need in needs for query in need.predicted)
        results = self._predicted(needs, themselves)
        return [
            self._judge(item, query, found) for item, query, found in zip(self.items, queries, results, strict=True)
        ]

    def suspicious(self) -> dict[int, list[str]]:
        """What is doubtful about the golds, by place."""
        found = {place: self._suspicions(item) for place, item in enumerate(self.items)}
        return {place: what for place, what in found.items() if what}

    def _suspicions(self, item: Item) -> list[str]:
        database = self._benchmark.databases[item.db_id][0]

        def find() -> list[str]:
            from tutelage.text2sql.evaluation.suspicion import suspicions  # sqlglot takes long to load

            return suspicions(database, item.sql, self._golds)

        return self._golds.note(database, item.sql, "suspicions", find)

    def _needs(self, item: Item, query: str) -> Needs:
        try:
            return self.judge.needs(item, query)
        except UserError:
            raise
        except Exception:
            return Needs()  # judging it fails in the same way, and says so

    def _judge(self, item: Item, query: str, found: Mapping[tuple[Database, str], Result]) -> Outcome:
        """Judge one prediction; where our own code fails on it, it counts as wrong, is named, and ends nothing."""
        try:
            return self.judge.judge(item, query, gold=self._golds.result, predicted=lambda path, sql: found[path, sql])
        except UserError:
            raise
        except Exception as error:
            zeros = dict.fromkeys(self.judge.metrics, 0.0)
            what = message(f"the scorer failed: {type(error).__name__}: {error}")
            return Outcome(zeros, zeros, "scorer_error", "scorer_error", (), what, NO_PREVIEW, NO_PREVIEW)

    def _predicted(self, needs: Sequence[Needs], themselves: bool) -> Iterator[Mapping[tuple[Database, str], Result]]:
        """The results of each item's predicted queries, run ahead by the pool and forgotten item by item.

        A prediction with the gold's own words need not run, nor one that the item before has, too: questions come in
        pairs that ask the same.
        """
        golds = [set(need.predicted) if themselves else set(need.gold) & set(need.predicted) for need in needs]
        before = [set[tuple[Database, str]](), *(set(need.predicted) for need in needs[:-1])]
        stream = self._executor.map(
            Query(*query)
            for need, gold, last in zip(needs, golds, before, strict=True)
            for query in need.predicted
            if query not in gold and query not in last
        )
        found: dict[tuple[Database, str], Result] = {}
        for need, gold in zip(needs, golds, strict=True):
            last_found = found
            found = {}
            for query in need.predicted:
                if query in gold:
                    found[query] = self._golds.result(*query)
                else:
                    found[query] = last_found[query] if query in last_found else next(stream)
            yield found


def _check(
    benchmark: BenchmarkName,
    predictions: Sequence[Path],
    mode: str,
    on_missing: str,
    metrics: Sequence[str] | None,
    workers: int,
) -> tuple[str, ...]:
    for where, value, choices in (
        ("data", benchmark, tuple(METRICS)),
        ("mode", mode, ("official", "strict")),
        ("on_missing", on_missing, ("error", "skip")),
    ):
        if value not in choices:
            raise ConfigError(where, f"no choice {value!r}", f"choose {' or '.join(choices)}")
    if len(predictions) not in (1, 2):
        raise ConfigError("predictions", f"{len(predictions)} files", "give one file, or two to compare: a,b")
    if workers < 1:
        raise ConfigError(
            "workers", f"{workers} processes", "give 1 or more: predicted SQL runs in processes of its own only"
        )
    known = METRICS[benchmark]
    chosen = tuple(metrics) if metrics else DEFAULT_METRICS[benchmark]
    for metric in chosen:
        if metric not in known:
            raise ConfigError("metrics", f"{benchmark} has no {metric!r}", f"choose from: {', '.join(known)}")
    return tuple(metric for metric in known if metric in chosen)
