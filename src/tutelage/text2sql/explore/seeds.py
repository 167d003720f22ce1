"""Seed questions and queries of the user's: they weigh the graph and teach the shapes of queries."""

import json
from dataclasses import dataclass
from pathlib import Path

from tutelage.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Seed:
    """A question and its SQL; ``db_id`` is None where the file names no database."""

    question: str
    sql: str
    db_id: str | None

    def asks(self, db_id: str) -> bool:
        """Whether it is about a database; without a name, it is about the one that is explored."""
        return self.db_id is None or self.db_id == db_id


def read_seeds(path: Path) -> tuple[Seed, ...]:
    """Read Spider's or BIRD's JSON, or JSON lines with ``question`` and ``sql``.

    Raises:
        DataError: No such file, not JSON, or a row without SQL.
    """
    if not path.is_file():
        raise DataError("seeds", f"no file {path}", "give Spider's or BIRD's JSON, or JSON lines of question and sql")
    text = path.read_text(encoding="utf-8-sig")
    try:
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise DataError(
            "seeds", f"{path} is not JSON ({error})", "give a JSON list, or one JSON object a line"
        ) from error
    return tuple(_seed(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1))


def _seed(row: object, place: str) -> Seed:
    if isinstance(row, dict):
        # Spider says query, BIRD says SQL.
        sql = next((row[key] for key in ("sql", "query", "SQL") if isinstance(row.get(key), str)), None)
        question, db_id = row.get("question", ""), row.get("db_id")
        if sql is not None and isinstance(question, str) and isinstance(db_id, str | None):
            return Seed(question, sql, db_id)
    raise DataError("seeds", f"{place} has no SQL", 'write rows as {"question": "…", "sql": "…"}')
