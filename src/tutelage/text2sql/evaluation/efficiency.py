"""VES and R-VES: how fast a right query is beside the gold.

Both take the mean ratio gold time / predicted time over repeats, without outliers. VES (BIRD, evaluation_ves.py)
averages its square root; R-VES (mini_dev, evaluation_ves.py) turns it into one of five rewards first.
"""

import math
from collections.abc import Sequence

import numpy as np

REPEATS = 100


def without_outliers(ratios: Sequence[float], *, strict: bool = False) -> list[float]:
    """Keep what lies inside of three standard deviations around the mean.

    The bounds are exclusive, so where all values are equal none is left, and the item scores 0: what counts as equal
    is up to the rounding of the mean. ``strict`` keeps all of them.
    """
    values = np.asarray(ratios, dtype=np.float64)
    mean, deviation = values.mean(), values.std()
    if strict and deviation == 0:
        return [float(value) for value in values]
    return [float(x) for x in values if mean - 3 * deviation < x < mean + 3 * deviation]


def time_ratio(gold_seconds: Sequence[float], predicted_seconds: Sequence[float], *, strict: bool = False) -> float:
    """The mean of the ratios gold / predicted over repeats; 0 where no ratio is left."""
    ratios = [gold / predicted for gold, predicted in zip(gold_seconds, predicted_seconds, strict=True)]
    return mean_ratio(ratios, strict=strict)


def mean_ratio(ratios: Sequence[float], *, strict: bool = False) -> float:
    """The mean without outliers; 0 where none is left."""
    kept = without_outliers(ratios, strict=strict)
    if not kept:
        return 0.0
    total = 0.0
    for ratio in kept:  # Python 3.12's sum() rounds otherwise
        total += ratio
    return total / len(kept)


def reward(ratio: float) -> float:
    """The reward of R-VES for a time ratio."""
    for bound, value in ((2.0, 1.25), (1.0, 1.0), (0.5, 0.75), (0.25, 0.5)):
        if ratio >= bound:
            return value
    return 0.25 if ratio > 0 else 0.0


def root_mean(values: Sequence[float]) -> float:
    """100 / N · Σ √value: VES of time ratios, R-VES of rewards."""
    return 100.0 * math.fsum(map(math.sqrt, values)) / len(values) if values else 0.0
