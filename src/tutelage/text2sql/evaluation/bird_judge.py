"""BIRD's rules: EX, Soft-F1, VES and R-VES."""

from collections.abc import Callable, Iterable, Sequence

from tutelage.text2sql.database.address import Database
from tutelage.text2sql.database.executor import Result, Timing
from tutelage.text2sql.evaluation.efficiency import reward, time_ratio
from tutelage.text2sql.evaluation.execution import orders_rows
from tutelage.text2sql.evaluation.gold import Benchmark, Item
from tutelage.text2sql.evaluation.outcome import ItemStatus, Needs, Outcome, Preview, Run, failed_status, ran
from tutelage.text2sql.evaluation.soft_f1 import ex, soft_f1, soft_f1_strict

Clock = Callable[[Database, Sequence[str], str], Timing]
_UNDECODABLE = "Could not decode to UTF-8"


class BirdJudge:
    """Scores as bird-bench/mini_dev does; VES as the older scorer of DAMO-ConvAI."""

    group_name = "difficulty"
    groups: tuple[str, ...] = ("simple", "moderate", "challenging", "unknown")

    def __init__(
        self, benchmark: Benchmark, *, metrics: Iterable[str], seconds: float, lenient: Run, clock: Clock
    ) -> None:
        """Prepare for a benchmark.

        Args:
            benchmark: Items and databases.
            metrics: Of ``ex``, ``soft_f1``, ``ves``, ``r_ves``.
            seconds: That prediction and gold may take, together in the official rule, each in the strict one.
            lenient: Runs a query with text that is not UTF-8 made readable.
            clock: Times statements: (database, statements, ``execute`` or ``fetch``).
        """
        self.metrics = tuple(metrics)
        self._benchmark = benchmark
        self._seconds = seconds
        self._lenient = lenient
        self._clock = clock

    def group(self, item: Item, *, strict: bool) -> str:
        """The difficulty that BIRD gives it, whatever the mode."""
        return item.difficulty

    def needs(self, item: Item, prediction: str) -> Needs:
        """Both queries as they are."""
        path = self._benchmark.databases[item.db_id][0]
        return Needs(gold=[(path, item.sql)], predicted=[(path, prediction)])

    def judge(self, item: Item, prediction: str, *, gold: Run, predicted: Run) -> Outcome:
        """Score one prediction."""
        path = self._benchmark.databases[item.db_id][0]
        expected, result = gold(path, item.sql), predicted(path, prediction)
        status, message = self._status(expected, result, prediction)
        official = self._values(path, item, prediction, expected, result, status, strict=False)
        readable, readable_result = (
            self._lenient(path, sql) if _UNDECODABLE in outcome.error else outcome
            for outcome, sql in ((expected, item.sql), (result, prediction))
        )
        status_strict = self._status_strict(readable, readable_result, prediction)
        strict = self._values(path, item, prediction, readable, readable_result, status_strict, strict=True)
        return Outcome(
            official,
            strict,
            self._judged(status, official),
            self._judged(status_strict, strict),
            self._reasons(official, strict, expected, result),
            message,
            Preview.of(readable),
            Preview.of(readable_result),
        )

    def _status(self, expected: Result, result: Result, prediction: str) -> tuple[ItemStatus, str]:
        """``correct`` where the results can be compared."""
        if expected.status != "ok":
            return _gold_status(expected), f"the gold fails: {expected.error}"
        if not ran(result, prediction):
            return failed_status(result, prediction), result.error
        if expected.seconds + result.seconds > self._seconds:
            return "timeout", f"prediction and gold together take longer than {self._seconds:g} s"
        return "correct", result.error

    def _status_strict(self, expected: Result, result: Result, prediction: str) -> ItemStatus:
        if expected.status != "ok":
            return _gold_status(expected)
        return "correct" if result.status == "ok" else failed_status(result, prediction)

    def _judged(self, status: ItemStatus, values: dict[str, float]) -> ItemStatus:
        if status != "correct":
            return status
        first = self.metrics[0]
        right = values[first] == 1.0 if first == "soft_f1" else values[first] > 0
        return "correct" if right else "wrong"

    def _values(
        self,
        path: Database,
        item: Item,
        prediction: str,
        expected: Result,
        result: Result,
        status: ItemStatus,
        *,
        strict: bool,
    ) -> dict[str, float]:
        if status != "correct":
            return dict.fromkeys(self.metrics, 0.0)
        values: dict[str, float] = {}
        right = ex(result.rows, expected.rows)
        for metric in self.metrics:
            if metric == "ex":
                values[metric] = float(right)
            elif metric == "soft_f1" and strict:
                values[metric] = soft_f1_strict(result.rows, expected.rows, ordered=orders_rows(item.sql))
            elif metric == "soft_f1":
                values[metric] = soft_f1(result.rows, expected.rows)
            else:
                values[metric] = self._efficiency(path, item, prediction, metric, strict=strict) if right else 0.0
        return values

    def _efficiency(self, path: Database, item: Item, prediction: str, metric: str, *, strict: bool) -> float:
        timing = self._clock(path, (prediction, item.sql), "execute" if metric == "ves" else "fetch")
        if timing.status != "ok" or not timing.seconds:
            return 0.0
        predicted_seconds, gold_seconds = zip(*timing.seconds, strict=True)
        ratio = time_ratio(gold_seconds, predicted_seconds, strict=strict)
        return ratio if metric == "ves" else reward(ratio)

    def _reasons(
        self, official: dict[str, float], strict: dict[str, float], expected: Result, result: Result
    ) -> tuple[str, ...]:
        reasons: list[str] = []
        if official.get("ex") != strict.get("ex"):
            if _UNDECODABLE in expected.error or _UNDECODABLE in result.error:
                reasons.append("text that is not UTF-8 fails")
            elif result.status == "refused":
                reasons.append("a statement that writes is executed")
            elif result.status != "ok":
                reasons.append("a text without a statement gives no rows")
            else:
                reasons.append("prediction and gold share one time limit")
        elif abs(official.get("soft_f1", 0.0) - strict.get("soft_f1", 0.0)) > 1e-9:
            reasons.append("Soft-F1: rows are paired by their place, and a cell may count more than once")
        return tuple(reasons)


def _gold_status(expected: Result) -> ItemStatus:
    return "gold_timeout" if expected.status == "timeout" else "gold_error"
