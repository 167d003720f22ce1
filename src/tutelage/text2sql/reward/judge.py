"""Rewards by execution, in the sandbox, against golds whose results are kept.

The exact part is 1 where the query's result is the gold's (`evaluation/execution.py`), and two things hold besides:

- the query reads a table, if the gold does;
- on small copies of the database whose values changed places, it gives what the gold gives on at least half of those
  where the gold gives something new; if there are none, it is silent on tables without rows where the gold is. A
  query that writes the answer into its own text (``SELECT 42``, ``WHERE name IN ('Ada')``) does not.

An error, a time-out, a refusal and a result that is too large are 0, whatever the gold gives. So is everything for a
gold that has no rows (or nothing but NULL), unless the query agrees with the gold on a copy where it has some: in
BIRD-RL's reward, an error equalled an empty gold.

The dense part, if it is asked for, is less than half for whatever is not right.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from tutelage.core.errors import ConfigError
from tutelage.core.store import Store, file_hash
from tutelage.text2sql.database.address import Database
from tutelage.text2sql.database.executor import Executor, Limits, Query, Result
from tutelage.text2sql.evaluation.execution import execution_match, orders_rows
from tutelage.text2sql.evaluation.gold_results import GoldResults
from tutelage.text2sql.reward.copies import write_moved_copies

# Ours. Gold queries of Spider and of BIRD's small databases take less than a second; a policy under training writes
# many that never end.
LIMITS = Limits(seconds=5.0, rows=100_000, bytes=64 * 1024 * 1024, memory_mb=1024)
PARSES, NAMES, RUNS, CELLS = 0.1, 0.1, 0.1, 0.15  # of the dense part; together less than half
_SEED = 0

Outcome = Literal[
    "right", "wrong", "no_query", "failed", "reads_nothing", "constant", "gold_says_nothing", "gold_failed"
]


def file_of(database: Database) -> Path:
    """The file of a SQLite database.

    Raises:
        ConfigError: It is no SQLite file. Rewards are paid on changed copies of the database, which only files have.
    """
    if not isinstance(database, Path):
        raise ConfigError("data", f"{database} is no SQLite file", "rewards need one: give a SQLite file")
    return database


@dataclass(frozen=True, slots=True)
class Attempt:
    """One prediction.

    Attributes:
        database: The SQLite file that is asked.
        golds: Right queries; a prediction that gives what any of them gives is right.
        sql: The predicted query; empty for none.
    """

    database: Path
    golds: tuple[str, ...]
    sql: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an attempt is worth.

    Attributes:
        reward: From 0 to 1.
        outcome: Why.
        result: What the query gave on the database.
    """

    reward: float
    outcome: Outcome
    result: Result

    @property
    def right(self) -> bool:
        """Whether it earned the whole reward."""
        return self.outcome == "right"


class Reward:
    """Judges attempts in batches. To be used as a context manager, by one thread."""

    def __init__(
        self, *, store: Path, dense: bool = False, copies: int = 4, workers: int = 2, limits: Limits = LIMITS
    ) -> None:
        """Start nothing yet; processes start at the first query.

        Args:
            store: Where results of golds, and copies of databases, are kept.
            dense: Whether an attempt that is not right earns a part: for a query that parses, whose names exist, that
                runs, and for cells in common.
            copies: How many copies with other values a right answer is tried on; 0 trusts the database alone.
            workers: Processes that run queries.
            limits: On each query.
        """
        if copies < 0 or workers < 1:
            raise ConfigError("reward", f"copies={copies}, workers={workers}", "give copies ≥ 0 and workers ≥ 1")
        self._dense, self._copies, self._store = dense, copies, Store(store)
        self._stack = ExitStack()
        self._executor = self._stack.enter_context(Executor(workers=workers, limits=limits))
        golds = GoldResults(self._store, executor=self._executor, limits=limits, text_errors="ignore")
        self._golds = self._stack.enter_context(golds)
        self._files: dict[Path, tuple[Path, ...]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        self._stack.close()

    def __call__(self, attempts: Sequence[Attempt]) -> list[Judgement]:
        """Judge a batch; equal queries run once, and as many at a time as there are processes."""
        self._golds.fill((attempt.database, gold) for attempt in attempts for gold in attempt.golds)
        asked = list(dict.fromkeys((a.database, a.sql) for a in attempts if a.sql.strip()))
        found = dict(zip(asked, self._executor.map(Query(*query) for query in asked), strict=True))
        judged = {
            attempt: self._judge(attempt, found.get((attempt.database, attempt.sql), _NO_QUERY))
            for attempt in dict.fromkeys(attempts)
        }
        # What looks right is tried on copies, all of it together.
        doubted = [a for a, judgement in judged.items() if judgement.outcome in ("right", "gold_says_nothing")]
        for attempt, honest in zip(doubted, self._on_copies(doubted), strict=True):
            if honest is False or (honest is None and judged[attempt].outcome == "gold_says_nothing"):
                outcome: Outcome = "constant" if judged[attempt].outcome == "right" else "gold_says_nothing"
                judged[attempt] = Judgement(self._for_trying(judged[attempt].result), outcome, judged[attempt].result)
            else:
                judged[attempt] = Judgement(1.0, "right", judged[attempt].result)
        return [judged[attempt] for attempt in attempts]

    def says_something(self, database: Path, gold: str) -> bool:
        """Whether a gold can pay a reward: it has rows on the database, or on a copy of it."""
        paths = (database, *self._copies_of(database)[:-1])  # the last copy has no rows
        return any(_has_values(self._golds.result(path, gold)) for path in paths)

    def _judge(self, attempt: Attempt, result: Result) -> Judgement:
        """Judge on the database alone."""
        if not attempt.sql.strip():
            return Judgement(0.0, "no_query", result)
        golds = [(gold, self._golds.result(attempt.database, gold)) for gold in attempt.golds]
        running = [(gold, expected) for gold, expected in golds if expected.status == "ok"]
        if not running:
            return Judgement(0.0, "gold_failed", result)
        if result.status != "ok":
            return Judgement(_for_error(result) if self._dense else 0.0, "failed", result)
        if not reads_tables(attempt.sql) and any(reads_tables(gold) for gold, _ in running):
            return Judgement(0.0, "reads_nothing", result)
        matching = [
            expected for gold, expected in running if execution_match(expected, result, ordered=orders_rows(gold))
        ]
        if any(_has_values(expected) for expected in matching):
            return Judgement(1.0, "right", result)
        if matching:
            return Judgement(0.0, "gold_says_nothing", result)
        shared = max(cells_in_common(expected, result) for _, expected in running)
        return Judgement(self._for_trying(result) + (CELLS * shared if self._dense else 0.0), "wrong", result)

    def _for_trying(self, result: Result) -> float:
        return PARSES + NAMES + RUNS if self._dense and result.status == "ok" else 0.0

    def _on_copies(self, attempts: Sequence[Attempt]) -> Iterable[bool | None]:
        """Whether each agrees with a gold on half of the copies where that gold gives something new.

        Where it does so on none, the query has to be silent on a copy without rows, if the gold is; None where that
        tells nothing either.
        """
        plans = [self._plan(attempt) for attempt in attempts]
        asked = list(dict.fromkeys((path, a.sql) for a, plan in zip(attempts, plans, strict=True) for path, _ in plan))
        found = dict(zip(asked, self._executor.map(Query(*query) for query in asked), strict=True))
        for attempt, plan in zip(attempts, plans, strict=True):
            agree: dict[Path, bool] = {}
            for path, gold in plan:
                expected, given = self._golds.result(path, gold), found[path, attempt.sql]
                same = execution_match(expected, given, ordered=orders_rows(gold)) or (
                    given.status == "ok" and not _says(expected) and not _says(given)
                )
                agree[path] = agree.get(path, False) or same
            yield None if not agree else 2 * sum(agree.values()) >= len(agree)

    def _plan(self, attempt: Attempt) -> list[tuple[Path, str]]:
        """The copies, and golds, that an attempt is compared on."""
        *moved, empty = self._copies_of(attempt.database) or (None,)
        new = [
            (path, gold)
            for path in moved
            if path is not None
            for gold in attempt.golds
            if self._is_new(attempt.database, path, gold)
        ]
        if new or empty is None:
            return new
        return [
            (empty, gold)
            for gold in attempt.golds
            if _says(self._golds.result(attempt.database, gold))
            and (silent := self._golds.result(empty, gold)).status == "ok"
            and not _says(silent)
        ]

    def _is_new(self, database: Path, copy: Path, gold: str) -> bool:
        here, there = self._golds.result(database, gold), self._golds.result(copy, gold)
        return here.status == "ok" and _has_values(there) and Counter(here.rows) != Counter(there.rows)

    def _copies_of(self, database: Path) -> tuple[Path, ...]:
        if database not in self._files:
            self._files[database] = self._make_copies(database) if self._copies else ()
        return self._files[database]

    def _make_copies(self, database: Path) -> tuple[Path, ...]:
        inputs = {"database": file_hash(database), "copies": self._copies, "seed": _SEED, "version": 2}

        def write(folder: Path) -> None:
            write_moved_copies(database, folder, copies=self._copies, seed=_SEED)

        folder = self._store.make("reward_copies", inputs, write)
        return (*sorted(folder.glob("moved_*.sqlite")), folder / "empty.sqlite")


_NO_QUERY = Result("error", (), [], "no query", 0.0)


def _has_values(result: Result) -> bool:
    return result.status == "ok" and any(cell is not None for row in result.rows for cell in row)


def _says(result: Result) -> bool:
    """Whether a result holds anything but NULL and 0, which is what tables without rows give."""
    return result.status == "ok" and any(cell is not None and cell != 0 for row in result.rows for cell in row)


def _for_error(result: Result) -> float:
    """The dense part of a query that does not run. One that would do more than read earns nothing."""
    if result.status in ("timeout", "too_large"):
        return PARSES + NAMES
    return PARSES if result.status == "error" and result.error.startswith("no such ") else 0.0


@lru_cache(maxsize=4096)
def reads_tables(sql: str) -> bool:
    """Whether a query reads a table or view of its database; one that cannot be parsed is given the benefit.

    >>> reads_tables("SELECT 7"), reads_tables("WITH a AS (SELECT 7) SELECT * FROM a"), reads_tables("SELECT 7 FROM t")
    (False, False, True)
    """
    try:
        tree = sqlglot.parse_one(sql, dialect="sqlite")
    except (SqlglotError, RecursionError):
        return True
    own = {cte.alias_or_name.lower() for cte in tree.find_all(exp.CTE)}
    return any(table.name and table.name.lower() not in own for table in tree.find_all(exp.Table))


def cells_in_common(gold: Result, predicted: Result) -> float:
    """Cells that two results share over cells that either has (Jaccard's index of bags), from 0 to 1.

    ``SELECT *`` shares all of the gold's cells, and is worth little, since it has many others.
    """
    ours = Counter(str(cell) for row in gold.rows for cell in row)
    theirs = Counter(str(cell) for row in predicted.rows for cell in row)
    both = (ours | theirs).total()
    return (ours & theirs).total() / both if both else 0.0
