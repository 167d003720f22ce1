"""Comparisons of BIRD: execution accuracy (EX) and Soft-F1."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

Row = tuple[Any, ...]
_GREEDY_ROWS = 500


def ex(predicted: Sequence[Row], gold: Sequence[Row]) -> int:
    """Whether the sets of rows are equal (mini_dev, evaluation_ex.py).

    The order and the repetition of rows do not count; the order of columns does. Two empty results are equal.
    """
    return int(set(predicted) == set(gold))


def soft_f1(predicted: Sequence[Row], gold: Sequence[Row]) -> float:
    """Soft-F1 of two results, in [0, 1] (mini_dev, evaluation_f1.py).

    Rows are de-duplicated and paired by their place, so an unordered query may score 0 with the right rows. A cell
    counts as often as it occurs in the prediction, so a row can match more than once.
    """
    if not predicted and not gold:
        return 1.0
    ours, theirs = list(dict.fromkeys(predicted)), list(dict.fromkeys(gold))
    matched = surplus = missing = 0.0
    # One after the other, as sum() does in Python 3.11; 3.12's compensates.
    for row, gold_row in zip(ours, theirs, strict=False):
        matched += sum(cell in gold_row for cell in row) / len(gold_row)
        surplus += sum(cell not in gold_row for cell in row) / len(gold_row)
        missing += sum(cell not in row for cell in gold_row) / len(gold_row)
    missing += max(len(theirs) - len(ours), 0)
    surplus += max(len(ours) - len(theirs), 0)
    return _f1(matched, surplus, missing)


def soft_f1_strict(predicted: Sequence[Row], gold: Sequence[Row], *, ordered: bool) -> float:
    """Soft-F1 without its oddities: rows meet their best partner, and a cell counts once.

    Equal rows (up to the order of their cells) are paired first, then the others with whom they share most, for
    results of up to 500 unpaired rows; beyond, and where the gold orders its rows, by their place.
    """
    if not predicted and not gold:
        return 1.0
    ours = [Counter(row) for row in dict.fromkeys(predicted)]
    theirs = [Counter(row) for row in dict.fromkeys(gold)]
    pairs: list[tuple[Counter[Any], Counter[Any]]] = []
    if not ordered:
        pairs, ours, theirs = _pair_equals(ours, theirs)
        if len(ours) <= _GREEDY_ROWS and len(theirs) <= _GREEDY_ROWS:
            more, ours, theirs = _pair_best(ours, theirs)
            pairs += more
    paired = min(len(ours), len(theirs))
    pairs += zip(ours[:paired], theirs[:paired], strict=True)
    matched = surplus = 0.0
    missing = float(len(theirs) - paired)
    surplus = float(len(ours) - paired)
    for row, gold_row in pairs:
        width = gold_row.total()
        shared = (row & gold_row).total()
        matched += shared / width
        surplus += (row.total() - shared) / width
        missing += (width - shared) / width
    return _f1(matched, surplus, missing)


def _f1(matched: float, surplus: float, missing: float) -> float:
    precision = matched / (matched + surplus) if matched + surplus > 0 else 0.0
    recall = matched / (matched + missing) if matched + missing > 0 else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


_Bags = list[Counter[Any]]
_Pairs = list[tuple[Counter[Any], Counter[Any]]]


def _pair_equals(ours: _Bags, theirs: _Bags) -> tuple[_Pairs, _Bags, _Bags]:
    waiting: dict[frozenset[tuple[Any, int]], list[int]] = {}
    for index in reversed(range(len(ours))):
        waiting.setdefault(frozenset(ours[index].items()), []).append(index)
    pairs: _Pairs = []
    rest: _Bags = []
    taken: set[int] = set()
    for row in theirs:
        partners = waiting.get(frozenset(row.items()))
        if partners:
            taken.add(index := partners.pop())
            pairs.append((ours[index], row))
        else:
            rest.append(row)
    return pairs, [row for index, row in enumerate(ours) if index not in taken], rest


def _pair_best(ours: _Bags, theirs: _Bags) -> tuple[_Pairs, _Bags, _Bags]:
    shared = [
        (-(row & gold_row).total(), i, j)
        for i, row in enumerate(ours)
        for j, gold_row in enumerate(theirs)
        if row.keys() & gold_row.keys()
    ]
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, j in sorted(shared):  # most in common first, then in the order of rows
        if i not in partner and j not in taken:
            partner[i] = j
            taken.add(j)
    pairs = [(ours[i], theirs[j]) for i, j in partner.items()]
    return (
        pairs,
        [row for i, row in enumerate(ours) if i not in partner],
        [row for j, row in enumerate(theirs) if j not in taken],
    )
