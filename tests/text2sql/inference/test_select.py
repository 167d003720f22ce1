"""Choosing among candidates by their results."""

import pytest

from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.inference.select import choose, first_that_runs, votes


def ok(*rows: tuple[object, ...]) -> Result:
    width = len(rows[0]) if rows else 1
    return Result("ok", tuple("abcdef"[:width]), list(rows), "", 0.0)


BROKEN = Result("error", (), [], "no such column: x", 0.0)
SLOW = Result("timeout", (), [], "30 s", 0.0)


def test_first_that_runs() -> None:
    assert first_that_runs([BROKEN, SLOW, ok((1,)), ok((2,))]) == 2
    assert first_that_runs([BROKEN, SLOW]) == 0  # nothing runs: the likeliest stays


def test_votes_go_to_results_and_not_to_texts() -> None:
    results = [ok((1,), (2,)), BROKEN, ok((2,), (1,)), ok((3,)), ok((1.0,), (2,))]
    sqls = ["a", "b", "c", "d", "e"]
    assert votes(sqls, results) == [3, 0, 3, 1, 3]


def test_order_counts_where_both_order() -> None:
    up, down = ok((1,), (2,)), ok((2,), (1,))
    ordered = "SELECT a FROM t ORDER BY a"
    assert votes([ordered, ordered], [up, down]) == [1, 1]
    assert votes([ordered, "SELECT a FROM t"], [up, down]) == [2, 2]


def test_columns_may_be_permuted_but_not_left_out() -> None:
    assert votes(["a", "b"], [ok((1, "x"), (2, "y")), ok(("x", 1), ("y", 2))]) == [2, 2]
    assert votes(["a", "b"], [ok((1, "x")), ok((1,))]) == [1, 1]


def test_empty_results_agree_by_width() -> None:
    one, two = Result("ok", ("a",), [], "", 0.0), Result("ok", ("a", "b"), [], "", 0.0)
    assert votes(["a", "b", "c"], [one, two, one]) == [2, 1, 2]


@pytest.mark.parametrize(
    ("selection", "chosen", "counts"),
    [("first", 0, [0, 0, 0, 0]), ("first_that_runs", 1, [0, 0, 0, 0]), ("majority", 2, [0, 1, 2, 2])],
)
def test_choose(selection: str, chosen: int, counts: list[int]) -> None:
    results = [BROKEN, ok((9,)), ok((1,)), ok((1,))]
    assert choose(selection, ["a", "b", "c", "d"], results) == (chosen, counts)


def test_of_equal_groups_the_likeliest_wins() -> None:
    assert choose("majority", list("abcd"), [ok((1,)), ok((2,)), ok((2,)), ok((1,))])[0] == 0
    assert choose("majority", ["a", "b"], [BROKEN, SLOW]) == (0, [0, 0])
