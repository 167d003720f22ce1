"""A question about a database, with the SQL that answers it, and what every source of them offers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tutelage.text2sql.database.address import Database
from tutelage.text2sql.database.schema import Catalog

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Example:
    """One question.

    Attributes:
        id: Stable and unique within its source, such as ``spider/dev/17``.
        db_id: Which of the source's databases it asks about.
        question: In natural language.
        sql: The gold query, or None where nobody wrote one.
        evidence: What the asker knows besides (BIRD's external knowledge); empty for none.
        difficulty: The source's own word for it; empty for none.
        level: Of an explored pair: how many operators were composed; 0 for a seed.
        source: Written by people (seed) or found by exploring.
        solved: Of an explored pair: the share of a model's answers, before training, that were right; None where no
            model was asked.
        alternatives: Other queries that are as right as ``sql``.
    """

    id: str
    db_id: str
    question: str
    sql: str | None
    evidence: str = ""
    difficulty: str = ""
    level: int = 0
    source: Literal["seed", "explored"] = "seed"
    alternatives: tuple[str, ...] = ()
    solved: float | None = None


class Source(Protocol):
    """What ``conf/data/*.yaml`` builds for this task: questions by split, and the databases they ask.

    Attributes:
        name: The name in file names and tables.
        databases: Where each database lies that is at hand, by db_id.
        notes: What a reader of its scores must know (counts, protocol, missing databases), as JSON values.
        fingerprint: A hash of everything read, for manifests and the store.
        explored: A folder that explore.py wrote, to train on instead of exploring anew; None for none.
    """

    name: str
    databases: dict[str, Database]
    notes: dict[str, Any]
    fingerprint: str
    explored: Path | None

    def split(self, name: Split) -> list[Example]:
        """The questions of a split; seeds only, explored pairs come from ``explored.py``."""
        ...

    def catalog(self, db_id: str) -> Catalog:
        """The schema of a database, with the descriptions that the source has of it."""
        ...
