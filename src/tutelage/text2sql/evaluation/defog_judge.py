"""Defog's rules: a prediction that gives what any of the golds gives is right, also with more columns than asked for.

As in sql-eval (eval.py: compare_df, subset_df), ``exact`` asks for the same rows, ``correct`` for a prediction whose
columns include the gold's; duplicate rows do not count, order counts where the question asks for it. Two things are
stricter or kinder here, so that a score depends on answers and not on how they are written:

- columns are matched by what they hold, not by the alphabetical order of their names;
- where order counts, the gold's own sort keys have to come in its order, and rows with equal keys may change places.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import cache
from typing import Any

from tutelage.text2sql.database.defog import CATEGORIES, UNANSWERABLE, declines
from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.evaluation.gold import Benchmark, Item
from tutelage.text2sql.evaluation.outcome import NO_PREVIEW, ItemStatus, Needs, Outcome, Preview, Run, failed_status

METRICS = ("correct", "exact")
# A prediction of many equal columns can be assigned in very many ways; past these it counts as wrong.
_MOST_ASSIGNMENTS = 2_000
_ASKS_FOR_ORDER = re.compile(r"\b(?:order|sort|arrange)", re.IGNORECASE)
Row = tuple[Any, ...]


class DefogJudge:
    """Scores against all golds of a question, and counts what was declined."""

    group_name = "category"
    groups: tuple[str, ...] = CATEGORIES

    def __init__(self, benchmark: Benchmark) -> None:
        self.metrics: tuple[str, ...] = METRICS
        self._benchmark = benchmark
        self._keys = cache(sort_keys)

    def group(self, item: Item, *, strict: bool) -> str:
        """The category that Defog gives it."""
        return item.difficulty

    def needs(self, item: Item, prediction: str) -> Needs:
        """All golds, and the prediction unless it declines."""
        if item.difficulty == UNANSWERABLE:
            return Needs()
        path = self._benchmark.databases[item.db_id][0]
        asked = [] if declines(prediction) else [(path, prediction)]
        return Needs(gold=[(path, gold) for gold in (item.sql, *item.alternatives)], predicted=asked)

    def judge(self, item: Item, prediction: str, *, gold: Run, predicted: Run) -> Outcome:
        """Score one prediction."""
        if item.difficulty == UNANSWERABLE:
            right = declines(prediction)
            why = "" if right else "the database cannot answer this question, and it was answered"
            return self._outcome(right, right, "correct" if right else "wrong", why, NO_PREVIEW, NO_PREVIEW)
        path = self._benchmark.databases[item.db_id][0]
        golds = [(sql, gold(path, sql)) for sql in (item.sql, *item.alternatives)]
        running = [(sql, result) for sql, result in golds if result.status == "ok"]
        shown = Preview.of(golds[0][1])
        if declines(prediction):
            status: ItemStatus = "declined" if prediction.strip() else "empty"
            return self._outcome(False, False, status, "the database can answer this question", shown, NO_PREVIEW)
        result = predicted(path, prediction)
        if not running:
            failed: ItemStatus = "gold_timeout" if golds[0][1].status == "timeout" else "gold_error"
            return self._outcome(False, False, failed, f"no gold runs: {golds[0][1].error}", shown, Preview.of(result))
        if result.status != "ok":
            status = failed_status(result, prediction)
            return self._outcome(False, False, status, result.error, shown, Preview.of(result))
        ordered = item.difficulty == "order_by" or _ASKS_FOR_ORDER.search(item.question) is not None
        exact = correct = False
        for sql, expected in running:
            keys = self._keys(sql, expected.columns) if ordered else ()
            if same := gives_the_same(expected, result, keys=keys):
                exact, correct, shown = True, same, Preview.of(expected)
                break
            if not correct and includes(expected, result, keys=keys):
                correct, shown = True, Preview.of(expected)
        return self._outcome(correct, exact, "correct" if correct else "wrong", "", shown, Preview.of(result))

    def _outcome(
        self, correct: bool, exact: bool, status: ItemStatus, why: str, gold: Preview, predicted: Preview
    ) -> Outcome:
        values = {"correct": float(correct), "exact": float(exact)}
        return Outcome(values, values, status, status, (), why, gold, predicted)


def abstentions(items: Sequence[Item], outcomes: Sequence[Outcome], queries: Sequence[str]) -> dict[str, int]:
    """How many questions were answered right and wrong, and declined rightly and wrongly."""
    counts = dict.fromkeys(("answered right", "answered wrong", "declined rightly", "declined wrongly"), 0)
    for item, outcome, query in zip(items, outcomes, queries, strict=True):
        if declines(query):
            counts["declined rightly" if item.difficulty == UNANSWERABLE else "declined wrongly"] += 1
        else:
            counts["answered right" if outcome.official["correct"] == 1.0 else "answered wrong"] += 1
    return counts


def gives_the_same(gold: Result, predicted: Result, *, keys: Sequence[int] = ()) -> bool:
    """Whether two results have the same columns and rows, duplicate rows aside."""
    if len(gold.columns) != len(predicted.columns):
        return False
    if not gold.rows or not predicted.rows:
        return not gold.rows and not predicted.rows
    return any(
        _agree(gold.rows, predicted.rows, columns, keys, duplicates=False)
        for columns in _assignments(gold.rows, predicted.rows, sets=True)
    )


def includes(gold: Result, predicted: Result, *, keys: Sequence[int] = ()) -> bool:
    """Whether some of the predicted columns are the gold's, in as many rows. An empty gold is included in nothing."""
    if not gold.rows or len(gold.rows) != len(predicted.rows):
        return False
    return any(
        _agree(gold.rows, predicted.rows, columns, keys, duplicates=True)
        for columns in _assignments(gold.rows, predicted.rows, sets=False)
    )


def sort_keys(sql: str, columns: tuple[str, ...]) -> tuple[int, ...]:
    """Which columns of its result a query sorts by, as far as they are in it."""
    import sqlglot  # takes long to load
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        query = sqlglot.parse_one(sql, dialect="postgres")
    except (SqlglotError, RecursionError):
        return ()
    order = query.args.get("order")
    if not isinstance(query, exp.Query) or order is None:
        return ()
    selected = [item.unalias().sql().lower() for item in query.selects]
    names = [item.alias_or_name.lower() for item in query.selects]
    places: list[int] = []
    for ordered in order.expressions:
        key = ordered.this
        text = key.sql().lower()
        if isinstance(key, exp.Literal) and key.name.isdigit():
            place = int(key.name) - 1
        elif text in selected or text in names:
            place = (selected if text in selected else names).index(text)
        else:
            break  # what comes after a key that is not shown is sorted within it
        if not 0 <= place < len(columns):
            break
        places.append(place)
    return tuple(places)


def _assignments(gold: Sequence[Row], predicted: Sequence[Row], *, sets: bool) -> Iterator[tuple[int, ...]]:
    """Ways to find each gold column in a predicted one that holds the same values."""

    def holds(column: Sequence[Any]) -> object:
        return frozenset(column) if sets else frozenset(Counter(column).items())

    ours = [holds([_cell(value) for value in column]) for column in zip(*gold, strict=True)]
    theirs = [holds([_cell(value) for value in column]) for column in zip(*predicted, strict=True)]
    choices = [[place for place, other in enumerate(theirs) if other == column] for column in ours]
    left = _MOST_ASSIGNMENTS

    def extend(chosen: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        nonlocal left
        if len(chosen) == len(choices):
            left -= 1
            yield chosen
            return
        for place in choices[len(chosen)]:
            if left > 0 and place not in chosen:
                yield from extend((*chosen, place))

    if all(choices):
        yield from extend(())


def _agree(
    gold: Sequence[Row], predicted: Sequence[Row], columns: tuple[int, ...], keys: Sequence[int], *, duplicates: bool
) -> bool:
    ours = [tuple(map(_cell, row)) for row in gold]
    theirs = [tuple(_cell(row[place]) for place in columns) for row in predicted]
    if not duplicates:
        ours, theirs = list(dict.fromkeys(ours)), list(dict.fromkeys(theirs))
    if Counter(ours) != Counter(theirs):
        return False
    return not keys or [[row[k] for k in keys] for row in ours] == [[row[k] for k in keys] for row in theirs]


def _cell(value: Any) -> Any:
    """A value as it is compared: numbers to six digits, as pandas' ``assert_series_equal`` nearly does."""
    if isinstance(value, float | Decimal):
        number = float(value)
        return number if number.is_integer() or number != number else float(f"{number:.6g}")
    return value if isinstance(value, int | str | bytes | None) else str(value)
