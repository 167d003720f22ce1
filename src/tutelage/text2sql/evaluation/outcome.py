"""What became of one prediction, and what a benchmark's judge offers to the scorer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tutelage.text2sql.database.address import Database
from tutelage.text2sql.database.executor import NO_STATEMENT, Result
from tutelage.text2sql.evaluation.gold import Item

ItemStatus = Literal[
    "correct",
    "wrong",  # it ran, and its result is another one
    "empty",  # there is no prediction
    "declined",  # Defog: it says that there is no answer, and there is one
    "error",  # SQLite refuses it
    "timeout",
    "refused",  # it would do more than read
    "too_large",
    "crashed",
    "gold_error",  # the item cannot be scored
    "gold_timeout",
    "scorer_error",  # our scorer failed on it: a bug of ours
]
STATUSES: tuple[ItemStatus, ...] = (
    "correct",
    "wrong",
    "empty",
    "declined",
    "error",
    "timeout",
    "refused",
    "too_large",
    "crashed",
    "gold_error",
    "gold_timeout",
    "scorer_error",
)
Run = Callable[[Database, str], Result]
_PREVIEW_ROWS = 10
_PREVIEW_COLUMNS = 50
_PREVIEW_LENGTH = 200  # of a cell, in characters or bytes


@dataclass(frozen=True, slots=True)
class Preview:
    """The beginning of a result, for a reader."""

    columns: tuple[str, ...]
    num_columns: int
    rows: list[tuple[Any, ...]]
    num_rows: int
    error: str

    @classmethod
    def of(cls, result: Result) -> "Preview":
        """Keep the first rows and columns, and the beginnings of their cells: a cell may have hundreds of MB."""
        rows = [tuple(map(_beginning, row[:_PREVIEW_COLUMNS])) for row in result.rows[:_PREVIEW_ROWS]]
        columns = tuple(map(_beginning, result.columns[:_PREVIEW_COLUMNS]))
        return cls(columns, len(result.columns), rows, len(result.rows), result.error)


def _beginning(cell: Any) -> Any:
    return cell[:_PREVIEW_LENGTH] if isinstance(cell, str | bytes) else cell


NO_PREVIEW = Preview((), 0, [], 0, "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one prediction was judged.

    Attributes:
        official: Values by metric, as the published scorer gives them; in [0, 1], R-VES's reward up to 1.25.
        strict: The same with the documented quirks corrected.
        status: By the official first metric.
        status_strict: By the strict one.
        reasons: Where official and strict differ: the quirks at work in this item.
        message: What went wrong, if something did.
        gold: What the gold gives.
        predicted: What the prediction gives.
    """

    official: dict[str, float]
    strict: dict[str, float]
    status: ItemStatus
    status_strict: ItemStatus
    reasons: tuple[str, ...]
    message: str
    gold: Preview
    predicted: Preview


@dataclass(frozen=True, slots=True)
class Needs:
    """The queries that judging one prediction takes."""

    gold: list[tuple[Database, str]] = field(default_factory=list)
    predicted: list[tuple[Database, str]] = field(default_factory=list)


class Judge(Protocol):
    """The rules of one benchmark.

    Attributes:
        metrics: The columns of ``items.csv``; the first one decides between right and wrong.
        group_name: What items are grouped by: hardness or difficulty.
        groups: Its values, easy ones first.
    """

    metrics: tuple[str, ...]
    group_name: str
    groups: tuple[str, ...]

    def group(self, item: Item, *, strict: bool) -> str:
        """The group of an item."""
        ...

    def needs(self, item: Item, prediction: str) -> Needs:
        """Which queries must run."""
        ...

    def judge(self, item: Item, prediction: str, *, gold: Run, predicted: Run) -> Outcome:
        """Score one prediction."""
        ...


def ran(result: Result, sql: str) -> bool:
    """Whether the official scorers have rows of a query, maybe none.

    A text without a statement gives none. A statement that writes is executed there and gives none, mostly; here it
    is refused.
    """
    return result.status == "ok" or result.error == NO_STATEMENT or writes(result, sql)


def writes(result: Result, sql: str) -> bool:
    """Whether a query was refused as a single statement that changes something and says nothing of it."""
    speaks = any(word in sql.upper() for word in ("PRAGMA", "RETURNING"))
    single = "one statement" not in result.error and "function" not in result.error
    return result.status == "refused" and single and not speaks


def failed_status(result: Result, prediction: str) -> ItemStatus:
    """The status of a prediction that gives no result."""
    if not prediction.strip():
        return "empty"
    return "error" if result.status == "ok" else result.status
