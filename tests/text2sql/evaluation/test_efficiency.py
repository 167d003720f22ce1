"""VES and R-VES by hand; the official cases are in test_official_vectors.py."""

import math

import pytest

from tutelage.text2sql.evaluation.efficiency import mean_ratio, reward, root_mean, time_ratio, without_outliers


def test_rewards_at_their_bounds() -> None:
    ratios = (0, 0.1, 0.25, 0.5, 0.999, 1, 1.999, 2, 100)
    assert [reward(ratio) for ratio in ratios] == [0, 0.25, 0.5, 0.75, 0.75, 1, 1, 1.25, 1.25]


def test_outliers_go() -> None:
    assert without_outliers([1.0] * 50 + [1.1] * 50 + [50.0]) == [1.0] * 50 + [1.1] * 50


def test_equal_times_leave_nothing_officially() -> None:
    assert mean_ratio([2.0] * 100) == 0.0
    assert mean_ratio([2.0] * 100, strict=True) == 2.0
    assert mean_ratio([0.1] * 100) == pytest.approx(0.1)  # the mean's rounding makes them unequal


def test_time_ratio_is_gold_over_predicted() -> None:
    assert time_ratio([2.0, 4.4], [1.0, 2.0]) == pytest.approx(2.1)


def test_root_mean() -> None:
    assert root_mean([0, 1, 4]) == pytest.approx(100.0)
    assert root_mean([1.25]) == pytest.approx(100 * math.sqrt(1.25))
    assert root_mean([]) == 0.0
