"""What counts as the same value, whatever type a server gives it."""

import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from tutelage.text2sql.evaluation.execution import comparable, same_rows

NOON = datetime.datetime(2024, 1, 1, 12)
CET = datetime.timezone(datetime.timedelta(hours=1))


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (Decimal("2.50"), 2.5, True),
        (Decimal("3"), 3, True),
        (Decimal("3.3333333333333333333"), 10 / 3, True),
        (Decimal("0.1"), 0.2, False),
        (float("nan"), float("nan"), True),
        (Decimal("NaN"), float("nan"), True),
        (float("nan"), None, False),
        (True, 1, True),
        (False, None, False),
        (NOON.replace(tzinfo=CET), NOON.replace(hour=11, tzinfo=datetime.UTC), True),
        (NOON.replace(tzinfo=CET), NOON, False),
        (datetime.date(2024, 1, 1), datetime.datetime(2024, 1, 1), True),
        (datetime.date(2024, 1, 1), "2024-01-01", False),
        ([1, Decimal("2.0")], (1, 2), True),
        ([1, 2], [2, 1], False),
        ({"a": [1], "b": True}, {"b": 1, "a": [1]}, True),
        ({"a": 1}, {"a": 2}, False),
        (b"\x01", memoryview(b"\x01"), True),
        (UUID(int=1), str(UUID(int=1)), True),
        (1, "1", False),
    ],
)
def test_values(one: Any, other: Any, equal: bool) -> None:
    assert same_rows(comparable([(one,)]), comparable([(other,)]), ordered=True) is equal


def test_rows_of_sqlite_stay_the_same_object() -> None:
    rows = [(1, 2.5, "a", b"b", None)]
    assert comparable(rows) is rows
