"""The scored questions of a run, one by one: ``items.csv``."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.core.errors import DataError
from tutelage.core.store import write_atomically
from tutelage.text2sql.data.examples import Example

ITEMS = "items.csv"
COLUMNS = ("id", "db_id", "source", "difficulty", "level", "right", "status", "question", "gold", "sql", "error")


@dataclass(frozen=True, slots=True)
class Item:
    """One scored question.

    Attributes:
        example: The question.
        sql: The model's query; empty for none.
        right: Whether its result is the gold's; None where the gold itself does not run, which counts nowhere.
        status: How running it ended, in the executor's words.
        error: What the database said.
    """

    example: Example
    sql: str
    right: bool | None
    status: str
    error: str


def write_items(path: Path, items: Sequence[Item]) -> None:
    """Write a row a scored question."""
    with io.StringIO(newline="") as buffer:
        out = csv.writer(buffer)
        out.writerow(COLUMNS)
        for item in items:
            e = item.example
            right = "" if item.right is None else int(item.right)
            question_cells = [e.id, e.db_id, e.source, e.difficulty, e.level]
            out.writerow([*question_cells, right, item.status, e.question, e.sql, item.sql, item.error])
        write_atomically(path, buffer.getvalue())


def read_examples(path: Path) -> list[Example]:
    """Read the questions that a run was scored on.

    Raises:
        DataError: The file is gone, or is something else.
    """
    try:
        rows = read_items(path)
    except (OSError, ValueError) as error:
        raise DataError(str(path), f"cannot be read ({error})", "train the run again") from None
    return [
        Example(
            id=row["id"],
            db_id=row["db_id"],
            question=row["question"],
            sql=row["gold"],
            difficulty=row["difficulty"],
            level=int(row["level"]),
            source="explored" if row["source"] == "explored" else "seed",
        )
        for row in rows
    ]


def read_items(path: Path) -> list[dict[str, str]]:
    """Read the rows again.

    Raises:
        OSError, ValueError: The file is gone, or is something else.
    """
    csv.field_size_limit(2**31 - 1)  # a query may be longer than 128 kB, Python's own limit
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and not set(COLUMNS) <= rows[0].keys():
        raise ValueError(f"{path} has other columns")
    return rows
