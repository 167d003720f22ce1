"""The interval and the test, against what is known of them."""

import math

import numpy as np
import pytest

from tutelage.text2sql.evaluation.significance import bootstrap_interval, mcnemar


def test_interval_of_a_share_is_near_the_normal_one() -> None:
    low, high = bootstrap_interval([1.0] * 80 + [0.0] * 20)
    width = 1.96 * math.sqrt(0.8 * 0.2 / 100)
    assert low == pytest.approx(0.8 - width, abs=0.015)
    assert high == pytest.approx(0.8 + width, abs=0.015)
    assert bootstrap_interval([1.0] * 80 + [0.0] * 20) == (low, high)


def test_interval_of_many_values_is_near_the_normal_one() -> None:
    values = np.linspace(0, 1, 400)
    low, high = bootstrap_interval(list(values))
    width = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((0.5 - width, 0.5 + width), abs=0.006)


def test_interval_without_spread_or_items() -> None:
    assert bootstrap_interval([1.0] * 5) == (1.0, 1.0)
    assert all(math.isnan(end) for end in bootstrap_interval([]))


def test_mcnemar_by_hand() -> None:
    first, second = [1.0] * 9 + [0.0] + [1.0] * 5, [0.0] * 9 + [1.0] + [1.0] * 5
    test = mcnemar(first, second)
    assert (test.only_first, test.only_second) == (9, 1)
    assert test.p_value == pytest.approx(2 * (1 + 10) / 1024)
    assert mcnemar(first, first).p_value == 1.0
    assert mcnemar([1.0] * 1000, [0.0] * 1000).p_value < 1e-200
