"""How sure a score is, and whether two differ by more than chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tutelage.core.randomness import generator

RESAMPLES = 2000


def bootstrap_interval(
    values: Sequence[float], *, level: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean over items (Efron & Tibshirani 1993, ch. 13).

    The same values give the same interval. No values give (nan, nan).
    """
    if not values:
        return math.nan, math.nan
    items_N = np.asarray(values, dtype=np.float64)
    random = generator("bootstrap", len(values))
    # Items with the same value are interchangeable, so only how many of each are drawn matters: quick for 0 and 1.
    distinct_V, counts_V = np.unique(items_N, return_counts=True)
    drawn_RV = random.multinomial(len(values), counts_V / len(values), size=resamples)
    means_R = drawn_RV @ distinct_V / len(values)
    low, high = np.quantile(means_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's exact test on paired right and wrong answers.

    Attributes:
        only_first: Items that the first system alone has right.
        only_second: Items that the second alone has right.
        p_value: Two-sided: the chance of so uneven a split of these items, were both systems equally good.
    """

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: Sequence[float], second: Sequence[float]) -> McNemar:
    """Compare two systems item by item (McNemar 1947; the exact binomial form)."""
    pairs = list(zip(first, second, strict=True))
    only_first = sum(a > b for a, b in pairs)
    only_second = sum(b > a for a, b in pairs)
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return McNemar(only_first, only_second, min(1.0, 2 * tail / 2**n))
