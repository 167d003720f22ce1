"""EX and Soft-F1 against hand-worked values and the formula said slowly."""

import random
from typing import Any

import pytest

from tutelage.text2sql.evaluation.soft_f1 import ex, soft_f1, soft_f1_strict

Rows = list[tuple[Any, ...]]


def slow_soft_f1(predicted: Rows, gold: Rows) -> float:
    """The published formula (sql_metrics: Soft-F1), cell by cell."""
    if not predicted and not gold:
        return 1.0
    p_rows, g_rows = ([row for i, row in enumerate(rows) if row not in rows[:i]] for rows in (predicted, gold))
    m = po = to = 0.0
    for i in range(max(len(p_rows), len(g_rows))):
        if i >= len(p_rows):
            to += 1
        elif i >= len(g_rows):
            po += 1
        else:
            p, g = p_rows[i], g_rows[i]
            m += len([x for x in p if x in g]) / len(g)
            po += len([x for x in p if x not in g]) / len(g)
            to += len([x for x in g if x not in p]) / len(g)
    precision = m / (m + po) if m + po else 0.0
    recall = m / (m + to) if m + to else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_against_the_formula() -> None:
    draw = random.Random(0)
    for _ in range(4000):
        widths = draw.randint(1, 3), draw.randint(1, 3)
        rows = [
            [tuple(draw.choice((1, 1.0, 2, "a", None)) for _ in range(width)) for _ in range(draw.randint(0, 5))]
            for width in widths
        ]
        assert soft_f1(rows[0], rows[1]) == pytest.approx(slow_soft_f1(rows[0], rows[1]), abs=1e-12)
        assert ex(rows[0], rows[1]) == all(a in rows[1] for a in rows[0]) * all(b in rows[0] for b in rows[1])


@pytest.mark.parametrize(
    ("predicted", "gold", "official", "strict"),
    [
        ([(1,), (2,)], [(2,), (1,)], 0.0, 1.0),
        ([(1, 1, 1)], [(1,)], 1.0, 0.5),  # one of three cells is the gold's
        ([(1, "a"), (2, "x")], [(1, "a"), (2, "b")], 0.75, 0.75),
        ([(2, "x"), (1, "a")], [(1, "a"), (2, "b")], 0.0, 0.75),
        ([], [(1,)], 0.0, 0.0),
        ([], [], 1.0, 1.0),
        ([("a", 1)], [(1, "a")], 1.0, 1.0),
    ],
)
def test_known_pairs(predicted: Rows, gold: Rows, official: float, strict: float) -> None:
    assert soft_f1(predicted, gold) == pytest.approx(official)
    assert soft_f1_strict(predicted, gold, ordered=False) == pytest.approx(strict)


def test_strict_keeps_the_order_where_the_gold_has_one() -> None:
    assert soft_f1_strict([(1,), (2,)], [(2,), (1,)], ordered=True) == 0.0


def test_strict_is_one_only_for_equal_sets_of_bags() -> None:
    draw = random.Random(1)
    for _ in range(500):
        gold = [tuple(draw.choice((1, 2, None)) for _ in range(2)) for _ in range(draw.randint(1, 5))]
        other = draw.sample(gold, len(gold))
        assert soft_f1_strict(other, gold, ordered=False) == pytest.approx(1.0)
        assert 0 <= soft_f1_strict([(9, 9), *other], gold, ordered=False) < 1


def test_strict_on_large_results_that_share_nothing() -> None:
    assert soft_f1_strict([(i,) for i in range(2000)], [(-i - 1,) for i in range(2000)], ordered=False) == 0.0
