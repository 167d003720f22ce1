"""Which of several candidate queries is the answer: what happens when they are run decides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tutelage.text2sql.database.executor import Result, Status
from tutelage.text2sql.evaluation.execution import comparable, orders_rows, same_rows

Selection = Literal["first", "first_that_runs", "majority"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A query that a model proposed, and how it went.

    Attributes:
        text: The model's whole answer.
        sql: The query in it; empty if there is none.
        status: Of running it; None if it was not run.
        error: Why there is no result.
        votes: Candidates with the same result, itself included; 0 if it was not counted.
        round: 0 for the first answers, then the number of the repair.
    """

    text: str
    sql: str
    status: Status | None = None
    error: str = ""
    votes: int = 0
    round: int = 0


def first_that_runs(results: Sequence[Result]) -> int:
    """The first candidate with a result; the first of all if there is none (CodeS, arXiv 2402.16347)."""
    return next((index for index, result in enumerate(results) if result.status == "ok"), 0)


def votes(sqls: Sequence[str], results: Sequence[Result]) -> list[int]:
    """Count for each candidate how many have its result (self-consistency by execution, as in DAIL-SQL).

    Results are equal if their rows are equal as bags, or as lists if both queries order theirs, up to the order of
    columns. What did not run has no vote.
    """
    groups: list[list[int]] = []
    for index, result in enumerate(results):
        if result.status != "ok":
            continue
        for group in groups:
            first = group[0]
            ordered = orders_rows(sqls[first]) and orders_rows(sqls[index])
            same_width = len(results[first].columns) == len(result.columns)
            if same_width and same_rows(comparable(results[first].rows), comparable(result.rows), ordered=ordered):
                group.append(index)
                break
        else:
            groups.append([index])
    counts = [0] * len(results)
    for group in groups:
        for index in group:
            counts[index] = len(group)
    return counts


def choose(selection: Selection, sqls: Sequence[str], results: Sequence[Result]) -> tuple[int, list[int]]:
    """Choose a candidate.

    Args:
        selection: ``first``: the likeliest, run or not; ``first_that_runs``; or ``majority`` by result, the
            likeliest of the largest group, and where none runs the first.
        sqls: The candidates, the likeliest first.
        results: Of running them.

    Returns:
        The chosen one's index, and each candidate's votes (all 0 unless ``majority``).
    """
    if selection == "majority":
        counts = votes(sqls, results)
        return max(range(len(counts)), key=lambda index: counts[index]), counts
    return (0 if selection == "first" else first_that_runs(results)), [0] * len(results)
