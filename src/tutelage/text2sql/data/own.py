"""A database of one's own: explored pairs to train on, questions of one's own to test on."""

from pathlib import Path
from typing import Any

from tutelage.core.errors import DataError
from tutelage.core.store import Store, content_hash, file_hash
from tutelage.text2sql.data.examples import Example, Split
from tutelage.text2sql.data.questions import Questions
from tutelage.text2sql.data.rows import read_rows
from tutelage.text2sql.database.address import dialect_of, name_of, parse_database
from tutelage.text2sql.database.check import check_database
from tutelage.text2sql.database.kept_catalog import fingerprint as database_fingerprint
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.pair import read_pairs


class Own(Questions):
    """One database, what explore.py found in it, and whatever questions with SQL there are."""

    def __init__(
        self,
        *,
        database: str,
        store: str,
        explored: str | None = None,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        descriptions: str | None = None,
        facts: str | None = None,
    ) -> None:
        """Read the questions.

        Args:
            database: A SQLite or DuckDB file, or a ``postgresql://``, ``mysql://`` or ``duckdb:///`` URL. Questions are
                asked, and their queries run, in its own dialect.
            store: The folder that keeps its catalog.
            explored: The folder that ``explore.py database=…`` wrote; None to explore before training.
            train: Questions with SQL to train on, as JSON lines of ``question`` and ``sql``; None for none.
            val: The same to pick a checkpoint by; None to hold some out of what is trained on.
            test: The same to test on; None to score on held-out explored pairs only.
            descriptions: A folder of CSV files that say what columns mean, as BIRD lays it out.
            facts: The ``facts.jsonl`` of an exploration: prompts then say what columns, units and codes mean.

        Raises:
            DataError: The database, the folder or a file is missing, broken or empty.
        """
        lies_at = parse_database(database, where="data.database")
        check_database(lies_at, where="data.database")
        db_id = name_of(lies_at)
        folder = None if explored is None else Path(explored)
        if folder is not None:
            check_explored(folder, db_id=db_id)
        splits: dict[Split, list[Example]] = {
            "train": _read(train, db_id=db_id, split="train"),
            "val": _read(val, db_id=db_id, split="val"),
            "test": _read(test, db_id=db_id, split="test"),
        }
        meanings = None if descriptions is None else Path(descriptions)
        if meanings is not None and not meanings.is_dir():
            raise DataError("data.descriptions", f"no folder {meanings}", "give the folder of its CSV files, or null")
        known = None if facts is None else Facts.read(Path(facts))
        inputs: dict[str, Any] = {"database": database_fingerprint(lies_at)}
        files = {"train": train, "val": val, "test": test}
        inputs |= {name: file_hash(Path(file)) for name, file in files.items() if file is not None}
        if folder is not None:
            inputs["explored"] = file_hash(folder / "pairs.jsonl")
        if meanings is not None:
            inputs |= {file.name: file_hash(file) for file in sorted(meanings.glob("*.csv"))}
        if facts is not None:
            inputs["facts"] = file_hash(Path(facts))
        super().__init__(
            name="own",
            splits=splits,
            databases={db_id: lies_at},
            notes={"database": lies_at.name, "dialect": dialect_of(lies_at)},
            fingerprint=content_hash(inputs),
            explored=folder,
            descriptions=meanings,
            facts=known,
            store=Store(Path(store)),
        )


def check_explored(folder: Path, *, db_id: str) -> None:
    """Refuse a folder that holds no pairs about a database.

    Raises:
        DataError: No such folder, an exploration that was broken off, one that found nothing, or one of another
            database.
    """
    hint = "run explore.py database=… and give the folder that it names at its end"
    if not folder.is_dir():
        raise DataError("data.explored", f"no folder {folder}", hint)
    pairs = folder / "pairs.jsonl"
    if not pairs.is_file():
        raise DataError("data.explored", f"no pairs.jsonl in {folder}", hint)
    if not pairs.stat().st_size:
        raise DataError(
            "data.explored",
            f"{pairs} is empty",
            "look at the rejections that explore.py printed; explore with more walks",
        )
    others = sorted({pair.db_id for pair in read_pairs(folder)} - {db_id})
    if others:
        raise DataError(
            "data.explored",
            f"{pairs} asks about {', '.join(others)}, but data.database is {db_id}",
            f"give the folder that was explored in {db_id}, or name the file as its database was called: db_id is the "
            "file's name without its ending",
        )


def _read(file: str | None, *, db_id: str, split: Split) -> list[Example]:
    if file is None:
        return []
    rows = read_rows(Path(file), split=split)
    asked = [row for row in rows.good if row.db_id in ("", db_id)]
    if rows.good and not asked:
        raise DataError(f"data.{split}", f"no question about {db_id} in {file}", "name another file, or null")
    rows.say_bad(split)
    return [
        Example(f"own/{split}/{number}", db_id, row.question, row.sql, row.evidence, row.difficulty)
        for number, row in enumerate(asked)
    ]
