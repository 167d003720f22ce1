"""Whether two results are the same answer."""

from collections import Counter
from typing import Any

from tutelage.text2sql.database.executor import Result


def same(one: Result, other: Result, *, ordered: bool, any_column_order: bool = False) -> bool:
    """Compare the rows of two results.

    Args:
        one: A result that is ``ok``.
        other: Another.
        ordered: Whether the order of rows counts.
        any_column_order: Whether a row's cells may stand in another order: two people may ask for a name and an age
            in either.
    """
    if len(one.rows) != len(other.rows):
        return False
    if one.rows == other.rows and not any_column_order:
        return True
    left, right = (
        [tuple(sorted(map(_cell, row))) if any_column_order else tuple(map(_cell, row)) for row in result.rows]
        for result in (one, other)
    )
    return left == right if ordered else Counter(left) == Counter(right)


def _cell(cell: Any) -> str:
    """1 and 1.0 are one number; sums in another order differ in their last digits."""
    return f"{cell:.10g}" if isinstance(cell, int | float) and abs(cell) < 1e15 else repr(cell)
