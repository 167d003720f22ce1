"""The scored questions of a run, one by one: ``items.csv``."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.text2sql.data.examples import Example

ITEMS = "items.csv"


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
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(
            ["id", "db_id", "source", "difficulty", "level", "right", "status", "question", "gold", "sql", "error"]
        )
        for item in items:
            e = item.example
            right = "" if item.right is None else int(item.right)
            out.writerow(
                [
                    e.id,
                    e.db_id,
                    e.source,
                    e.difficulty,
                    e.level,
                    right,
                    item.status,
                    e.question,
                    e.sql,
                    item.sql,
                    item.error,
                ]
            )
