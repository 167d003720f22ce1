"""The embedded questions: they run, they have rows, and each hardness has its share."""

from collections import Counter
from pathlib import Path

import pytest
import sqlglot
from sqlglot import exp

from tutelage.text2sql.data.flights import Flights
from tutelage.text2sql.database.catalog import read_catalog
from tutelage.text2sql.database.executor import Executor, Limits
from tutelage.text2sql.evaluation.execution import orders_rows
from tutelage.text2sql.evaluation.hardness import hardness
from tutelage.text2sql.evaluation.spider_sql import Schema, parse


@pytest.fixture(scope="module")
def flights(embedded_store: Path) -> Flights:
    return Flights(store=str(embedded_store))


def test_questions_of_every_hardness(flights: Flights) -> None:
    questions = flights.split("test")
    assert len(questions) == 94
    assert len({e.question for e in questions}) == len({e.sql for e in questions}) == 94
    catalog = read_catalog(flights.databases["flights"], statistics=False)
    schema = Schema({t.name.lower(): [c.name.lower() for c in t.columns] for t in catalog.tables})
    for example in questions:
        assert hardness(parse(str(example.sql), schema)) == example.difficulty, example.sql
    assert Counter(e.difficulty for e in questions) == {"easy": 24, "medium": 25, "hard": 23, "extra": 22}


def test_golds_run_and_have_rows(flights: Flights) -> None:
    """Every fifth; all of them are run below."""
    with Executor(workers=0, limits=Limits(seconds=60)) as executor:
        for example in flights.split("test")[::5]:
            result = executor.run(flights.databases["flights"], str(example.sql))
            assert result.status == "ok", (example.sql, result.error)
            assert result.rows and result.rows[0] not in ((None,), (0,)), example.sql


@pytest.mark.slow
def test_all_golds_have_rows_and_no_ties(flights: Flights) -> None:
    database = flights.databases["flights"]
    with Executor(workers=0, limits=Limits(seconds=60)) as executor:
        for example in flights.split("test"):
            sql = str(example.sql)
            result = executor.run(database, sql)
            assert result.status == "ok", (sql, result.error)
            assert result.rows and result.rows[0] not in ((None,), (0,)), sql
            query = sqlglot.parse_one(sql, dialect="sqlite")
            limit = query.args.get("limit")
            if limit is None:
                continue
            # The row after the last one must differ in what orders it, or the answer would be a matter of luck.
            assert orders_rows(sql)
            count = int(limit.expression.this)
            keys = [ordered.this.copy() for ordered in query.find(exp.Order).expressions]
            query.set("limit", None)
            query.set("expressions", [*keys, *query.expressions])
            rows = executor.run(database, query.sql("sqlite")).rows
            if len(rows) > count:
                last, following = rows[count - 1], rows[count]
                assert last[: len(keys)] != following[: len(keys)] or last == following, sql


def test_there_is_nothing_to_train_on_but_what_is_explored(flights: Flights) -> None:
    assert flights.split("train") == flights.split("val") == []
    assert flights.explored is None
    assert Path(flights.databases["flights"]).is_file()
