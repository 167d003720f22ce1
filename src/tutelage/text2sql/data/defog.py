"""Defog's SQL-Eval: 210 questions on eleven small databases, most of which have more than one right query."""

from pathlib import Path

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.store import content_hash, file_hash
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.data.questions import Questions, say_bad_rows
from tutelage.text2sql.database.defog import DefogDialect, defog_database, read_defog


class Defog(Questions):
    """To score on: there are no training questions. All are published, so a model may have seen them."""

    def __init__(
        self, *, root: str, unanswerable: bool = False, dialect: DefogDialect = "sqlite", server: str | None = None
    ) -> None:
        """Read the questions.

        Args:
            root: The folder that holds ``questions_gen_sqlite.csv``, ``idk.csv`` and ``database/``.
            unanswerable: Ask the 105 questions of ``idk.csv`` as well, whose right answer is a query that says that
                there is none, in words that the question prescribes.
            dialect: Of the databases and golds; others than SQLite are for predictions (`evaluation.gold.load_defog`).
            server: PostgreSQL: the URL of the server without a database.

        Raises:
            ConfigError: Another dialect than SQLite.
            DataError: A file is missing or broken, or not one database is at hand.
        """
        if dialect != "sqlite":
            raise ConfigError(
                "data.dialect",
                f"models are asked in SQLite here, not in {dialect}",
                "give predictions=…, which are scored in any dialect, or data.dialect=sqlite",
            )
        folder = Path(root)
        questions, bad = read_defog(folder, dialect=dialect, unanswerable=unanswerable)
        say_bad_rows(bad, total=len(questions) + len(bad))
        names = sorted({question.db_id for question in questions})
        files = {db_id: defog_database(folder, db_id, dialect, server=server) for db_id in names}
        databases = {db_id: path for db_id, path in files.items() if isinstance(path, Path) and path.is_file()}
        if not databases:
            hint = "take the databases of defog-ai/defog-data"
            raise DataError("data.root", f"no database such as {files[names[0]]}", hint)
        tested = [question for question in questions if question.db_id in databases]
        super().__init__(
            name="defog",
            splits={
                "train": [],
                "val": [],
                "test": [
                    Example(
                        id=f"defog/{dialect}/{question.id}",
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
                "dialect": dialect,
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
