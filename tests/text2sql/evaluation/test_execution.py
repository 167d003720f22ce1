"""Comparison of results against slow and simple references."""

import random
from collections import Counter
from itertools import permutations, product
from typing import Any

import pytest
import sqlparse

from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.evaluation import execution
from tutelage.text2sql.evaluation.execution import (
    execution_match,
    official_form,
    official_match,
    officially_ordered,
    orders_rows,
    same_rows,
    without_distinct,
)

Rows = list[tuple[Any, ...]]


def slow_same_rows(gold: Rows, predicted: Rows, ordered: bool) -> bool:
    if len(gold) != len(predicted):
        return False
    if not gold:
        return True
    if len(gold[0]) != len(predicted[0]):
        return False
    moved = ([tuple(row[i] for i in order) for row in predicted] for order in permutations(range(len(gold[0]))))
    return any(rows == gold if ordered else Counter(rows) == Counter(gold) for rows in moved)


def slow_official(gold: Rows, predicted: Rows, ordered: bool) -> bool:
    """The published rule, word by word (sql_metrics: Spider execution)."""
    if not gold and not predicted:
        return True
    if len(gold) != len(predicted) or len(gold[0]) != len(predicted[0]):
        return False
    sides = [[tuple(sorted(row, key=lambda x: str(x) + str(type(x)))) for row in rows] for rows in (gold, predicted)]
    if (sides[0] != sides[1]) if ordered else (set(sides[0]) != set(sides[1])):
        return False
    return slow_same_rows(gold, predicted, ordered)


POOLS: list[list[Any]] = [
    [0, 1],
    [1, 1.0, 2, 2.0, 2.5],
    ["a", "A", None],
    [1, "1", 1.0, "1.0", None],
    [-0.0, 0.0, 0, -1, -2],
]


def cases(seed: int, number: int) -> Any:
    """Pairs of results: permuted, then perhaps spoiled a little."""
    draw = random.Random(seed)
    for _ in range(number):
        width, height = draw.randint(1, 4), draw.randint(0, 5)
        pool = draw.choice(POOLS)
        gold = [tuple(draw.choice(pool) for _ in range(width)) for _ in range(height)]
        order = draw.sample(range(width), width)
        other = [tuple(row[i] for i in order) for row in gold]
        if draw.random() < 0.5:
            draw.shuffle(other)
        if other and draw.random() < 0.5:
            place = draw.randrange(height)
            row = list(other[place])
            row[draw.randrange(width)] = draw.choice(pool)
            other[place] = tuple(row)
        if draw.random() < 0.2:
            other = [tuple(float(x) if type(x) is int else x for x in row) for row in other]
        if draw.random() < 0.1:
            other = other[1:]
        yield gold, other, draw.random() < 0.4


def test_against_all_permutations() -> None:
    outcomes = Counter()
    for gold, other, ordered in cases(1, 6000):
        expected = slow_same_rows(gold, other, ordered)
        assert same_rows(gold, other, ordered=ordered) == expected, (gold, other, ordered)
        outcomes[expected] += 1
    assert min(outcomes.values()) > 500


def test_official_against_the_rule_word_by_word() -> None:
    differing = 0
    for gold, other, ordered in cases(2, 6000):
        expected = slow_official(gold, other, ordered)
        assert official_match(gold, other, ordered=ordered) == expected, (gold, other, ordered)
        differing += expected != slow_same_rows(gold, other, ordered)
    assert differing > 10  # the sort by text was at work


@pytest.mark.parametrize(
    ("gold", "predicted", "official", "strict"),
    [
        ([(2, 2.5)], [(2.0, 2.5)], False, True),
        ([(1, "1.")], [(1.0, "1.")], False, True),
        ([(1, 7)], [(1.0, 7)], True, True),
        ([(None,)], [("None",)], False, False),
        ([(1,)], [("1",)], False, False),
        ([(1, 2), (2, 1)], [(1, 2), (1, 2)], False, False),
        ([(1,), (1,)], [(1,)], False, False),
    ],
)
def test_known_pairs(gold: Rows, predicted: Rows, official: bool, strict: bool) -> None:
    assert official_match(gold, predicted, ordered=False) is official
    assert same_rows(gold, predicted, ordered=False) is strict


def result(rows: Rows, columns: int, status: str = "ok") -> Result:
    return Result(status, tuple("abcdef"[:columns]), rows, "", 0.0)  # type: ignore[arg-type]


def test_empty_results_of_other_width() -> None:
    assert official_match([], [], ordered=False)
    assert not execution_match(result([], 1), result([], 2), ordered=False)
    assert execution_match(result([], 2), result([], 2), ordered=False)
    assert not execution_match(result([], 1), result([], 0, "refused"), ordered=False)


def test_wide_shuffled_results_take_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    columns = [draw.sample(range(10_000), 10_000) for _ in range(12)]  # all of the same bag
    gold = list(zip(*columns, strict=True))
    order = draw.sample(range(12), 12)
    other = [tuple(row[i] for i in order) for row in gold]
    draw.shuffle(other)
    steps = 0
    kept = execution._Permutations._assign

    def counted(*arguments: Any) -> bool:
        nonlocal steps
        steps += 1
        return kept(*arguments)

    monkeypatch.setattr(execution._Permutations, "_assign", counted)
    assert same_rows(gold, other, ordered=False)
    other[0] = (*other[0][1:], other[0][0])
    assert not same_rows(gold, other, ordered=False)
    assert steps < 100  # of 12! permutations


def test_symmetric_columns_do_not_explode() -> None:
    bits = list(product((0, 1), repeat=12))
    even, odd = ([row for row in bits if sum(row) % 2 == parity] for parity in (0, 1))
    assert not same_rows(even, odd, ordered=False)
    assert same_rows(even, even[::-1], ordered=False)
    # Equal bags beside equal rows, twelve interchangeable columns, and still no permutation.
    ring = [tuple(int(i in (k, (k + 1) % 12)) for i in range(12)) for k in range(12)]
    two_rings = [
        tuple(int(i in (6 * (k // 6) + k % 6, 6 * (k // 6) + (k + 1) % 6)) for i in range(12)) for k in range(12)
    ]
    assert not same_rows(ring, two_rings, ordered=False)


def test_equal_hashes_are_not_equal_values() -> None:
    assert hash(-1) == hash(-2)
    assert not same_rows([(-1, 5), (-2, 6)], [(-2, 5), (-1, 6)], ordered=False)


# ---- queries ----------------------------------------------------------------------------------------------------

PIECES = (
    "SELECT ", "distinct ", "DISTINCT", "a", " ", ",", ";", "; ", ";\n", "'x;y'", '"distinct"', "-- c\n", "--c",
    "/* d */", "GO", "go ", " GO 2\n", "BEGIN ", "END", "CREATE ", "CASE WHEN ", "(", ")", "count(distinct x)",
    "`distinct`", "[distinct]", "\n", "\r\n", "\t", "'", '"', "é", "1.5", "IS DISTINCT FROM", "DECLARE ", "IF ",
)  # fmt: skip


PLAIN_PIECES = (
    "SELECT ", " distinct ", "DISTINCT", "Distinct(", "(distinct", ",distinct ", "a", "t.", ".b", " ", "\n", "1", "_",
    ")", "-", "*", "/", " = ", "go", "order by ", "group  by ", "count(distinct a)", "IS DISTINCT FROM",
    "union all ", ";",
)  # fmt: skip


@pytest.mark.parametrize("pieces", [PIECES, PLAIN_PIECES])
def test_stripping_is_sqlparse_to_the_letter(pieces: tuple[str, ...]) -> None:
    draw = random.Random(4)
    for _ in range(1500):
        sql = "".join(draw.choice(pieces) for _ in range(draw.randint(0, 12)))
        parsed = sqlparse.parse(sql)
        if not parsed:
            with pytest.raises(ValueError, match="no statement"):
                without_distinct(sql)
            continue
        words = [token.value for token in parsed[0].flatten()]
        assert without_distinct(sql) == "".join(word for word in words if word.lower() != "distinct"), sql


def test_what_is_executed() -> None:
    assert official_form("SELECT DISTINCT a FROM t WHERE b > = 1;", keep_distinct=False) == (
        "SELECT  a FROM t WHERE b >= 1;"
    )
    assert official_form("SELECT DISTINCT '> =' FROM t; DROP TABLE t", keep_distinct=True) == (
        "SELECT DISTINCT '>=' FROM t; DROP TABLE t"
    )
    assert official_form("SELECT 1; SELECT 2", keep_distinct=False) == "SELECT 1; "
    assert official_form("SELECT year ( CurDate ()) - 1", keep_distinct=False) == "SELECT 2020- 1"


@pytest.mark.parametrize(
    ("sql", "officially", "really"),
    [
        ("SELECT a FROM t ORDER BY a", True, True),
        ("SELECT a FROM t ORDER  BY a", False, True),
        ("SELECT a FROM t order\nby a", False, True),
        ("SELECT a FROM t WHERE b = 'order by'", True, False),
        ("SELECT a FROM (SELECT a FROM t ORDER BY b)", True, False),
        ("SELECT a FROM t -- order by\n", True, False),
        ("SELECT a FROM t UNION SELECT b FROM t ORDER BY 1", True, True),
        ('SELECT "order by" FROM t', True, False),
        ("SELECT a FROM border by", True, False),
    ],
)
def test_whether_rows_are_ordered(sql: str, officially: bool, really: bool) -> None:
    assert officially_ordered(sql) is officially
    assert orders_rows(sql) is really
