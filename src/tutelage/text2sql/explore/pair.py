"""What passes between the stages of an exploration: a walk, a candidate, an accepted pair."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from tutelage.core.errors import DataError
from tutelage.text2sql.api.journal import Json as Json

# One operator is added a level, so a pair of level k has k - 1 of them; level 1 is a plain projection.
Operator = Literal[
    "filter",
    "join",
    "aggregate",
    "group",
    "having",
    "order",
    "limit",
    "nesting",
    "set_operation",
    "cte",
    "window",
]
OPERATORS: tuple[Operator, ...] = (
    "filter",
    "join",
    "aggregate",
    "group",
    "having",
    "order",
    "limit",
    "nesting",
    "set_operation",
    "cte",
    "window",
)


@dataclass(frozen=True, slots=True)
class Walk:
    """The columns that a sampler chose together.

    ``id`` names the walk: the same seed and id give the same columns, whatever was sampled before.
    """

    id: int
    columns: tuple[tuple[str, str], ...]  # (table, column), in the order they were reached
    sampler: str

    @property
    def tables(self) -> tuple[str, ...]:
        """The walk's tables, each once, in the order they were reached."""
        return tuple(dict.fromkeys(table for table, _ in self.columns))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A question and its SQL as a synthesizer wrote them, not yet checked.

    ``state`` is the synthesizer's own: what it needs to extend this pair. Nobody else reads it.
    """

    question: str
    sql: str
    level: int
    operators: tuple[str, ...]  # of OPERATORS, in the order they were added
    state: Mapping[str, Json]
    evidence: str = ""  # what one must know of the database to answer, and the question does not say


@dataclass(frozen=True, slots=True)
class Pair:
    """An accepted candidate.

    ``id`` is a function of the walk and of the path of extensions that led here, so it is stable over runs.
    """

    id: str
    db_id: str
    level: int
    question: str
    sql: str
    operators: tuple[str, ...]
    sampler: str
    parent: str | None  # the id of the pair that this one extends; None at level 1
    walk: int
    columns: tuple[str, ...]  # "table.column", as the SQL uses them
    tables: tuple[str, ...]
    state: Mapping[str, Json]
    evidence: str = ""  # what one must know of the database to answer, and the question does not say
    solved: float | None = None  # share of a model's independent answers that were right; None where none was asked
    native_sql: str = ""  # the query in the database's own dialect, as it ran there; empty where that is SQLite's

    def to_json(self) -> dict[str, Json]:
        """Give the fields as JSON values."""
        return {
            "id": self.id,
            "db_id": self.db_id,
            "level": self.level,
            "question": self.question,
            "sql": self.sql,
            "operators": list(self.operators),
            "sampler": self.sampler,
            "parent": self.parent,
            "walk": self.walk,
            "columns": list(self.columns),
            "tables": list(self.tables),
            "state": dict(self.state),
            "evidence": self.evidence,
            "solved": self.solved,
            **({"native_sql": self.native_sql} if self.native_sql else {}),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> "Pair":
        """Make a pair of what :meth:`to_json` gave."""
        record = {"evidence": "", "solved": None, "native_sql": "", **record}  # explorations of old have none
        values = {field.name: record[field.name] for field in fields(cls)}
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})  # type: ignore[arg-type]


def read_pairs(folder: Path) -> list[Pair]:
    """Read the accepted pairs of an exploration, in the order in which they were found.

    Raises:
        DataError: The folder holds no finished exploration, or its file is damaged.
    """
    path = folder / "pairs.jsonl"
    if not path.is_file():
        raise DataError("pairs", f"no pairs.jsonl in {folder}", "give the folder of a finished exploration")
    pairs = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                pairs.append(Pair.from_json(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                what = f"line {number} of {path} is no pair ({type(error).__name__}: {error})"
                raise DataError("pairs", what, "explore again: the file was changed or cut off") from None
    return pairs
