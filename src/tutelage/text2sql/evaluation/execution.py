"""Whether two results answer the same, and what Spider's scorer makes of a query before it runs it.

The official rule (taoyds/test-suite-sql-eval, exec_eval.py): some permutation of the columns makes the rows equal, as
a bag, or as a list where order matters.
"""

import datetime
import re
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlparse.engine import FilterStack

from tutelage.text2sql.database.executor import Result

Row = tuple[Any, ...]
Rows = Sequence[Row]
Hashes = npt.NDArray[np.uint64]

# ---- results ----------------------------------------------------------------------------------------------------


def execution_match(gold: Result, predicted: Result, *, ordered: bool) -> bool:
    """Whether a prediction gives what the gold gives, up to the order of columns.

    Args:
        gold: Must be ``ok``.
        predicted: Any; only an ``ok`` one can match.
        ordered: Whether the order of rows counts; `orders_rows` tells it from the gold query.
    """
    assert gold.status == "ok", gold.error
    if predicted.status != "ok" or len(gold.columns) != len(predicted.columns):
        return False
    return same_rows(comparable(gold.rows), comparable(predicted.rows), ordered=ordered)


def comparable(rows: Rows) -> Rows:
    """Bring the values of servers to ones that compare as their meaning does; SQLite's stay as they are.

    - Numbers: NUMERIC is compared in double precision, so 2.50 is 2.5, and a mean is the same whether it was taken in
      NUMERIC or in DOUBLE. Truth values are 1 and 0, as in SQLite and MySQL. NaN equals NaN.
    - Times: with a zone, as the same moment in UTC; a date equals its midnight. Text is no time.
    - Arrays and rows: element by element, in order. JSON objects and maps: whatever the order of their keys. JSON that
      a server hands out as text (MariaDB, DuckDB) is text.
    - UUIDs, addresses, ranges: by their text. Binary: by its bytes.
    """
    if all(type(cell) in _SQLITE_TYPES and cell == cell for row in rows for cell in row):
        return rows
    return [tuple(map(_comparable, row)) for row in rows]


_SQLITE_TYPES = {int, float, str, bytes, type(None)}


def _comparable(value: Any) -> Any:
    match value:
        case None | str() | bytes():
            return value
        case bool():
            return int(value)
        case int():
            return value
        case float():
            return "NaN" if value != value else value
        case Decimal():
            return _comparable(int(value) if value.is_finite() and value == value.to_integral_value() else float(value))
        case datetime.datetime():
            return value.astimezone(datetime.UTC) if value.tzinfo is not None else value
        case datetime.date():
            return datetime.datetime(value.year, value.month, value.day)
        case datetime.time() | datetime.timedelta():
            return value
        case bytearray() | memoryview():
            return bytes(value)
        case list() | tuple():
            return tuple(map(_comparable, value))
        case dict():
            return frozenset((str(key), _comparable(item)) for key, item in value.items())
        case set() | frozenset():
            return frozenset(map(_comparable, value))
    return str(value)


def official_match(gold: Rows, predicted: Rows, *, ordered: bool) -> bool:
    """Whether Spider's official scorer takes two results for equal.

    Two empty results are equal whatever their columns. Before it looks for a permutation it sorts each row's cells by
    their text, and rejects results whose sorted rows differ: (2, 2.5) and (2.0, 2.5) do, since "2<" and "2.0" sort
    differently beside "2.5".
    """
    if gold is predicted or (not gold and not predicted):
        return True
    return same_rows(gold, predicted, ordered=ordered) and (
        not (_may_mix_types(gold) or _may_mix_types(predicted)) or _sorted_cells_agree(gold, predicted, ordered=ordered)
    )


def same_rows(gold: Rows, predicted: Rows, *, ordered: bool) -> bool:
    """Whether some permutation of columns makes the rows equal: as lists if ``ordered``, else as bags.

    Cells are equal as Python values: 1 and 1.0 are, 1 and "1" are not, NULL equals NULL.
    """
    if len(gold) != len(predicted):
        return False
    if not gold:
        return True
    if len(gold[0]) != len(predicted[0]):
        return False
    if list(gold) == list(predicted):
        return True
    if ordered:  # the rows stay where they are, so columns can be compared whole
        return Counter(zip(*gold, strict=True)) == Counter(zip(*predicted, strict=True))
    if len(gold[0]) == 1:
        return Counter(gold) == Counter(predicted)
    return _Permutations(gold, predicted).any_fits()


class _Permutations:
    """The search for a permutation of columns that makes two bags of rows equal.

    A column can only stand for one that holds the same bag of values, and beside every value the same rows; that
    mostly leaves one choice for each. Where it does not, columns are assigned one by one, and every step must keep
    the bags of the partial rows equal. All this compares hashes, which can only let too much pass: the permutation
    that comes out is checked on the values.
    """

    # R rows, C columns; `cells_CR` and `state_R` are 64-bit hashes, of cells and of partial rows.

    def __init__(self, gold: Rows, predicted: Rows) -> None:
        self._gold, self._predicted = Counter(gold), predicted
        self._gold_cells_CR, self._cells_CR = _cell_hashes(gold), _cell_hashes(predicted)
        self._choices: list[list[int]] = []
        self._swaps: dict[tuple[int, int], bool] = {}

    def any_fits(self) -> bool:
        gold_R, rows_R = (cells_CR.sum(axis=0, dtype=np.uint64) for cells_CR in (self._gold_cells_CR, self._cells_CR))
        bags = [_bag(_extend(rows_R, cells_R)) for cells_R in self._cells_CR]
        for cells_R in self._gold_cells_CR:
            bag = _bag(_extend(gold_R, cells_R))
            self._choices.append([column for column, other in enumerate(bags) if other == bag])
        order = sorted(range(len(self._choices)), key=lambda column: len(self._choices[column]))
        return self._assign(order, gold_R, rows_R, {})

    def _assign(self, order: list[int], gold_R: Hashes, rows_R: Hashes, chosen: dict[int, int]) -> bool:
        if len(chosen) == len(order):
            return self._fits([chosen[column] for column in range(len(order))])
        column = order[len(chosen)]
        choices = [choice for choice in self._choices[column] if choice not in chosen.values()]
        gold_R = _extend(gold_R, self._gold_cells_CR[column])
        bag = b"" if len(self._choices[column]) == 1 else _bag(gold_R)
        failed: list[int] = []
        for choice in choices:
            if any(self._interchangeable(choice, other) for other in failed):
                continue
            extended_R = _extend(rows_R, self._cells_CR[choice])
            if (not bag or _bag(extended_R) == bag) and self._assign(
                order, gold_R, extended_R, {**chosen, column: choice}
            ):
                return True
            failed.append(choice)
        return False

    def _fits(self, permutation: list[int]) -> bool:
        return self._gold == Counter(map(_picker(permutation), self._predicted))

    def _interchangeable(self, a: int, b: int) -> bool:
        """Whether swapping two predicted columns changes nothing: what failed with one then fails with the other."""
        pair = min(a, b), max(a, b)
        if pair not in self._swaps:
            swapped = list(range(len(self._cells_CR)))
            swapped[a], swapped[b] = b, a
            self._swaps[pair] = Counter(self._predicted) == Counter(map(_picker(swapped), self._predicted))
        return self._swaps[pair]


def _picker(columns: list[int]) -> Callable[[Row], Row]:
    assert len(columns) > 1  # itemgetter of one gives no tuple
    return itemgetter(*columns)


def _cell_hashes(rows: Rows) -> Hashes:
    columns = zip(*rows, strict=True)
    return np.stack([_mix(np.fromiter(map(hash, cells), np.int64, len(rows)).view(np.uint64)) for cells in columns])


def _mix(hashes: Hashes) -> Hashes:
    """Spread the bits, since a small integer is its own hash (the finaliser of SplitMix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _extend(rows_R: Hashes, cells_R: Hashes) -> Hashes:
    return _mix(rows_R * np.uint64(3) + cells_R)


def _bag(hashes_R: Hashes) -> bytes:
    return np.sort(hashes_R).tobytes()


def _may_mix_types(rows: Rows) -> bool:
    """Whether a cell may equal a cell of another text: a whole float equals an integer, and -0.0 equals 0.0."""
    if float not in set(map(type, chain.from_iterable(rows))):  # quick, and mostly enough
        return False
    return any(type(cell) is float and cell.is_integer() for cell in chain.from_iterable(rows))


def _sorted_cells_agree(gold: Rows, predicted: Rows, *, ordered: bool) -> bool:
    def cells(row: Row) -> Row:
        return tuple(sorted(row, key=lambda cell: str(cell) + str(type(cell))))

    ours, theirs = list(map(cells, predicted)), list(map(cells, gold))
    return ours == theirs if ordered else set(ours) == set(theirs)


# ---- queries ----------------------------------------------------------------------------------------------------

_THIS_YEAR = re.compile(r"YEAR\s*\(\s*CURDATE\s*\(\s*\)\s*\)\s*", re.IGNORECASE)
_GO = re.compile(r"\bgo\b", re.IGNORECASE)  # to sqlparse, GO ends a statement
# In quotes, comments and the like, the word may be no word of its own.
_STRANGE = re.compile(r"[^\w\s().,*=<>!+/-]|--|/\*")
_DISTINCT = re.compile(r"(?<=[\s(,])distinct(?=[\s(])", re.IGNORECASE)
_TOKENS_OR_ORDER = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \[[^]]*] | --[^\n]* | /\*.*?\*/ | [()] | \border\s+by\b""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


def official_form(sql: str, *, keep_distinct: bool) -> str:
    """What Spider's official scorer executes for a query.

    Comparison operators are joined (inside strings too), every DISTINCT is taken out unless it is to be kept (and
    with it all but the first statement), and MySQL's this year is 2020.

    Raises:
        ValueError: There is no statement to take DISTINCT out of; the official scorer dies of it.
    """
    sql = sql.replace("> =", ">=").replace("< =", "<=").replace("! =", "!=")
    if not keep_distinct:
        sql = without_distinct(sql)
    return _THIS_YEAR.sub("2020", sql)


def without_distinct(sql: str) -> str:
    """Take every DISTINCT out of the first statement, and leave the others out.

    To the letter what the official scorer does with sqlparse, without its costly grouping of tokens, which moves
    none of them.

    Raises:
        ValueError: There is no statement.
    """
    if not sql.strip():
        raise ValueError("no statement")
    if (plain := _plain_without_distinct(sql)) is not None:
        return plain
    statement = next(iter(FilterStack().run(sql)))
    return "".join(token.value for token in statement.flatten() if token.value.lower() != "distinct")


def _plain_without_distinct(sql: str) -> str | None:
    """The same for texts that need no tokens to see it; None for others.

    Taking texts apart would be most of the work of scoring.
    """
    body = sql.removesuffix(";")  # the end of the first statement
    if ";" in body or _GO.search(body):
        return None
    mentions = body.lower().count("distinct")
    if not mentions:
        return sql
    if _STRANGE.search(body) or len(_DISTINCT.findall(body)) != mentions:
        return None
    return _DISTINCT.sub("", sql)


def officially_ordered(sql: str) -> bool:
    """Whether the official scorer lets the order of rows count: ``order by`` anywhere, in a string too."""
    return "order by" in sql.lower()


def orders_rows(sql: str) -> bool:
    """Whether a query orders its rows: ORDER BY outside of brackets, strings and comments."""
    depth = 0
    for match in _TOKENS_OR_ORDER.finditer(sql):
        match match.group()[0]:
            case "(":
                depth += 1
            case ")":
                depth -= 1
            case "o" | "O" if depth == 0:
                return True
    return False
