"""Defog's SQL-Eval: 210 questions on eleven small databases, most of which have more than one right query."""

from pathlib import Path

from tutelage.core.errors import DataError
from tutelage.core.store import content_hash, file_hash
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.data.questions import Questions, say_bad_rows
from tutelage.text2sql.database.defog import database_file, read_defog


class Defog(Questions):
    """To score on: there are no training questions. All are published, so a model may have seen them."""

    def __init__(self, *, root: str, unanswerable: bool = False) -> None:
        """Read the questions.

        Args:
            root: The folder that holds ``questions_gen_sqlite.csv``, ``idk.csv`` and ``database/``.
            unanswerable: Ask the 105 questions of ``idk.csv`` as well, whose right answer is a query that says that
                there is none, in words that the question prescribes.

        Raises:
            DataError: A file is missing or broken, or not one database is at hand.
        """
        folder = Path(root)
        questions, bad = read_defog(folder, dialect="sqlite", unanswerable=unanswerable)
        say_bad_rows(bad, total=len(questions) + len(bad))
        files = {db_id: database_file(folder, db_id, "sqlite") for db_id in sorted({q.db_id for q in questions})}
        databases = {db_id: path for db_id, path in files.items() if path.is_file()}
        if not databases:
            hint = "take the databases of defog-ai/defog-data"
            raise DataError("data.root", f"no <db_id>/<db_id>.sqlite in {folder / 'database'}", hint)
        tested = [question for question in questions if question.db_id in databases]
        super().__init__(
            name="defog",
            splits={
                "train": [],
                "val": [],
                "test": [
                    Example(
                        id=f"defog/test/{question.id}",
                        db_id=question.db_id,
                        question=" ".join(question.question.split()),
                        sql=question.golds[0],
                        evidence=question.instructions,
                        difficulty=question.category,
                        alternatives=question.golds[1:],
                    )
                    for question in tested
                ],
            },
            databases=databases,
            notes={
                "unanswerable": sum(not question.answerable for question in tested),
                "ask_for_today": [question.id for question in tested if question.asks_for_today],
                "left_out": bad,
                "missing_databases": sorted(files.keys() - databases.keys()),
                "questions_without_database": len(questions) - len(tested),
            },
            fingerprint=content_hash(
                {
                    "questions": [(q.db_id, q.question, *q.golds, q.instructions) for q in tested],
                    **{db_id: file_hash(path) for db_id, path in databases.items()},
                }
            ),
        )
