"""Spider's rules: execution accuracy on every database of a suite, and exact match."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tutelage.core.errors import DataError
from tutelage.text2sql.database.address import Database
from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.evaluation.exact_match import exact_match
from tutelage.text2sql.evaluation.exact_match_strict import exact_match_strict
from tutelage.text2sql.evaluation.execution import (
    execution_match,
    official_form,
    official_match,
    officially_ordered,
    orders_rows,
    same_rows,
)
from tutelage.text2sql.evaluation.gold import Benchmark, Item, read_schema
from tutelage.text2sql.evaluation.hardness import LEVELS, hardness
from tutelage.text2sql.evaluation.outcome import (
    NO_PREVIEW,
    ItemStatus,
    Needs,
    Outcome,
    Preview,
    Run,
    failed_status,
    ran,
    writes,
)
from tutelage.text2sql.evaluation.spider_sql import Schema, SpiderSyntaxError, parse

# Longer ones are answers gone wrong, and taking them apart would take minutes.
LONGEST_QUERY = 100_000


class _Verdict(NamedTuple):
    right: bool
    status: ItemStatus
    message: str


class SpiderJudge:
    """Scores as taoyds/test-suite-sql-eval does (``--etype all``)."""

    group_name = "hardness"
    groups: tuple[str, ...] = (*LEVELS, "unknown")

    def __init__(self, benchmark: Benchmark, *, metrics: Iterable[str], keep_distinct: bool) -> None:
        """Prepare for a benchmark.

        Args:
            benchmark: Items, databases and foreign keys.
            metrics: ``execution``, ``exact_match``, or both.
            keep_distinct: Whether DISTINCT counts in the official number too (its ``--keep_distinct``).
        """
        self.metrics = tuple(metrics)
        self._benchmark = benchmark
        self._keep_distinct = keep_distinct
        self.schema = cache(self._schema)
        self._official = cache(self._official_form)

    def group(self, item: Item, *, strict: bool) -> str:
        """The hardness of the gold; ``unknown`` where it is not in Spider's grammar."""
        try:
            return hardness(parse(item.sql, self.schema(item.db_id)), strict=strict)
        except (SpiderSyntaxError, ValueError):
            return "unknown"

    def needs(self, item: Item, prediction: str) -> Needs:
        """Both forms of both queries, on every database of the suite."""
        if "execution" not in self.metrics:
            return Needs()
        paths = self._benchmark.databases[item.db_id]
        golds = dict.fromkeys((self._official(item.sql), item.sql))
        queries = dict.fromkeys(query for query in (self._prediction(prediction), prediction) if query is not None)
        return Needs(
            gold=[(path, sql) for sql in golds if sql is not None for path in paths],
            predicted=[(path, sql) for sql in queries if _fits(sql) for path in paths],
        )

    def judge(self, item: Item, prediction: str, *, gold: Run, predicted: Run) -> Outcome:
        """Score one prediction."""
        official: dict[str, float] = {}
        strict: dict[str, float] = {}
        reasons: list[str] = []
        verdicts: list[_Verdict] = []
        previews = NO_PREVIEW, NO_PREVIEW
        if "execution" in self.metrics:
            verdicts += [
                self._execution(item, prediction, gold, predicted),
                self._execution_strict(item, prediction, gold, predicted),
            ]
            official["execution"], strict["execution"] = (float(verdict.right) for verdict in verdicts)
            if verdicts[0].right != verdicts[1].right:
                reasons += self._execution_reasons(item, prediction, gold, predicted)
            own = self._benchmark.databases[item.db_id][0]
            previews = Preview.of(gold(own, item.sql)), Preview.of(_run(predicted, own, prediction))
        if "exact_match" in self.metrics:
            match, match_strict, why = self._exact_match(item, prediction)
            verdicts += [match, match_strict]
            official["exact_match"], strict["exact_match"] = float(match.right), float(match_strict.right)
            reasons += why
        return Outcome(
            official, strict, verdicts[0].status, verdicts[1].status, tuple(reasons), verdicts[0].message, *previews
        )

    # ---- execution ------------------------------------------------------------------------------------------------

    def _official_form(self, sql: str) -> str | None:
        try:
            return official_form(sql, keep_distinct=self._keep_distinct)
        except ValueError:
            return None

    def _prediction(self, prediction: str) -> str | None:
        """What is executed officially: every ``value`` is a 1, in ``value_points`` too. None: the scorer dies."""
        return self._official(prediction.replace("value", "1")) if _fits(prediction) else None

    def _execution(self, item: Item, prediction: str, gold: Run, predicted: Run) -> _Verdict:
        gold_sql, sql = self._official(item.sql), self._prediction(prediction)
        if gold_sql is None:
            return _Verdict(False, "gold_error", "there is no gold query")
        if sql is None and _fits(prediction):
            return _Verdict(False, "empty", "no prediction; the official run breaks off here")
        ordered = officially_ordered(gold_sql)
        for path in self._benchmark.databases[item.db_id]:
            expected = gold(path, gold_sql)
            if expected.status != "ok":
                return _gold_failed(expected)
            result = _run(predicted, path, sql if sql is not None else prediction)
            if not ran(result, prediction):
                return _Verdict(False, failed_status(result, prediction), result.error)
            if not official_match(expected.rows, result.rows, ordered=ordered):
                return _Verdict(False, "wrong" if result.status == "ok" else failed_status(result, prediction), "")
        return _Verdict(True, "correct", "")

    def _execution_strict(self, item: Item, prediction: str, gold: Run, predicted: Run) -> _Verdict:
        ordered = orders_rows(item.sql)
        for path in self._benchmark.databases[item.db_id]:
            expected = gold(path, item.sql)
            if expected.status != "ok":
                return _gold_failed(expected)
            result = _run(predicted, path, prediction)
            if result.status != "ok":
                return _Verdict(False, failed_status(result, prediction), result.error)
            if not execution_match(expected, result, ordered=ordered):
                return _Verdict(False, "wrong", "")
        return _Verdict(True, "correct", "")

    def _execution_reasons(self, item: Item, prediction: str, gold: Run, predicted: Run) -> list[str]:
        if not _fits(prediction):
            return ["prediction of over 100,000 characters"]
        gold_sql, sql = self._official(item.sql), self._prediction(prediction)
        if gold_sql is None or sql is None:
            return ["no statement"]
        reasons = {
            "'value' is replaced by 1": "value" in prediction,
            "DISTINCT is stripped": not self._keep_distinct
            and any("distinct" in text.lower() for text in (item.sql, prediction)),
            "only the first statement counts": ";" in prediction.rstrip().rstrip(";"),
            "'order by' anywhere makes rows ordered": officially_ordered(gold_sql) != orders_rows(item.sql),
            "YEAR(CURDATE()) is 2020": "curdate" in f"{item.sql}{prediction}".lower(),
        }
        for path in self._benchmark.databases[item.db_id]:
            expected, result = gold(path, gold_sql), _run(predicted, path, sql)
            if expected.status != "ok":
                continue
            if writes(result, sql):
                reasons["a statement that writes is executed"] = True
            elif not ran(result, sql):
                continue
            elif not expected.rows and not result.rows:
                reasons["two empty results are equal"] = len(expected.columns) != len(result.columns)
            elif same_rows(expected.rows, result.rows, ordered=officially_ordered(gold_sql)):
                matches = official_match(expected.rows, result.rows, ordered=officially_ordered(gold_sql))
                reasons["cells are sorted by their text first"] = not matches
        return [reason for reason, holds in reasons.items() if holds] or ["other"]

    # ---- exact match ----------------------------------------------------------------------------------------------

    def _schema(self, db_id: str) -> Schema:
        own = self._benchmark.databases[db_id][0]
        assert isinstance(own, Path), "Spider's databases are SQLite files"
        return read_schema(own)

    def _exact_match(self, item: Item, prediction: str) -> tuple[_Verdict, _Verdict, list[str]]:
        keys = self._benchmark.keys.get(item.db_id)
        if keys is None:
            raise DataError(
                "data.root",
                f"tables.json has no {item.db_id}, whose foreign keys exact match needs",
                "fetch the whole of tables.json, or score metrics=[execution]",
            )
        try:
            gold = parse(item.sql, self.schema(item.db_id))
        except SpiderSyntaxError as error:
            verdict = _Verdict(False, "gold_error", f"the gold is not in Spider's grammar: {error}")
            return verdict, verdict, []
        if not _fits(prediction):
            verdict = _Verdict(False, "too_large", f"a query of {len(prediction):,} characters")
            return verdict, verdict, []
        schema = self.schema(item.db_id)
        match = exact_match(prediction, gold, schema=schema, keys=keys)
        strict, repaired = exact_match_strict(prediction, gold, schema=schema, keys=keys)
        verdicts = [_Verdict(bool(m.score), "correct" if m.score else "wrong", m.raises) for m in (match, strict)]
        reasons: list[str] = []
        if match.score != strict.score:
            if match.raises:
                reasons.append(f"exact match raises {match.raises}")
            elif not match.parses and repaired:
                reasons.append("exact match: only its form is not in Spider's grammar")
            else:
                reasons.append("exact match: DISTINCT or values in a subquery")
        return verdicts[0], verdicts[1], reasons


def _fits(sql: str) -> bool:
    return len(sql) <= LONGEST_QUERY


def _run(predicted: Run, path: Database, sql: str) -> Result:
    if not _fits(sql):
        return Result("too_large", (), [], f"a query of {len(sql):,} characters", 0.0)
    return predicted(path, sql)


def _gold_failed(result: Result) -> _Verdict:
    status: ItemStatus = "gold_timeout" if result.status == "timeout" else "gold_error"
    return _Verdict(False, status, f"the gold fails: {result.error}")
