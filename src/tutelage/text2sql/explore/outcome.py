"""What an exploration has found: accepted pairs, and rejected candidates with their reasons."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tutelage.text2sql.explore.pair import Pair


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candidate that was not taken, and why."""

    id: str
    walk: int
    level: int
    parent: str | None
    question: str
    sql: str
    operators: tuple[str, ...]
    reason: str  # one of the filter's
    detail: str

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Rejected":
        """Make one of its fields as JSON values."""
        return cls(**{**record, "operators": tuple(record["operators"])})


@dataclass(slots=True)
class Outcome:
    """All of it so far, in the order in which it was found."""

    pairs: list[Pair]
    rejected: list[Rejected]
    num_walks: int
