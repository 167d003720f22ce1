"""Questions of one's own about any number of databases, as JSON lines."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.store import Store, content_hash, file_hash
from tutelage.text2sql.data.examples import Example, Split
from tutelage.text2sql.data.questions import Questions
from tutelage.text2sql.data.rows import Row, Rows, read_rows
from tutelage.text2sql.database.address import Database, dialect_of, parse_database
from tutelage.text2sql.database.check import check_database
from tutelage.text2sql.database.kept_catalog import fingerprint

_ROW = 'write rows as {"question": "…", "sql": "…", "db_id": "…"}, or with "database": a file or URL'


class Jsonl(Questions):
    """Each row has ``question``, ``sql``, and ``db_id`` or ``database``; optionally ``evidence`` and ``difficulty``."""

    def __init__(
        self,
        *,
        store: str,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        databases: str | Mapping[str, str] | None = None,
    ) -> None:
        """Read the questions, and look for their databases.

        Args:
            store: The folder that keeps catalogs.
            train: A file of JSON lines to train on; None for none. An id is the split's name and the row's number.
            val: The same to pick a checkpoint by; None to hold some out of what is trained on.
            test: The same to score on.
            databases: Where a row's ``db_id`` lies: a folder that holds ``<db_id>/<db_id>.sqlite`` or
                ``<db_id>.sqlite``, or a file or URL for each db_id. A row's own ``database`` comes before it, and is
                relative to the folder of the file of questions.

        Raises:
            ConfigError: No file of questions, or no such folder.
            DataError: A file of questions is missing, or not one of its rows can be used.
        """
        files = {"train": train, "val": val, "test": test}
        given = {name: Path(file) for name, file in files.items() if file is not None}
        if not given:
            raise ConfigError("data", "no questions", "give data.train=, data.val= or data.test=, files of JSON lines")
        if isinstance(databases, str) and not Path(databases).is_dir():
            raise ConfigError("data.databases", f"no folder {databases}", "give the folder that holds the databases")
        self._places = databases
        found: dict[str, Database] = {}  # by db_id
        known: dict[str, tuple[str, Database | str]] = {}  # db_id → its place, and what lies there or what is wrong
        splits: dict[Split, list[Example]] = {"train": [], "val": [], "test": []}
        bad: list[str] = []
        names: tuple[Split, ...] = ("train", "val", "test")
        for split in names:
            if split not in given:
                continue
            rows = read_rows(given[split], split=split)
            kept: list[Row] = []
            for row in rows.good:
                db_id, place = self._place(row, given[split].parent)
                if db_id not in known and place:
                    known[db_id] = (place, _open(place))
                problem = _problem(row, db_id, place, known)
                if problem:
                    rows.bad.append(problem)
                    continue
                database = known[db_id][1]
                assert not isinstance(database, str)  # no problem was found with it
                found[db_id] = database
                kept.append(row)
                splits[split].append(
                    Example(
                        id=f"jsonl/{split}/{row.number}",
                        db_id=db_id,
                        question=" ".join(row.question.split()),
                        sql=row.sql,
                        evidence=row.evidence,
                        difficulty=row.difficulty,
                    )
                )
            Rows(rows.path, kept, rows.bad).say_bad(split)
            bad += [f"{rows.path.name}, {text}" for text in rows.bad]
        super().__init__(
            name="jsonl",
            splits=splits,
            databases=dict(sorted(found.items())),
            notes={
                "files": {name: path.name for name, path in given.items()},
                "missing_databases": sorted(name for name, (_, file) in known.items() if isinstance(file, str)),
                "dialects": {name: dialect_of(database) for name, database in sorted(found.items())},
                "left_out": bad,
            },
            fingerprint=content_hash(
                {name: file_hash(path) for name, path in given.items()}
                | {f"database {name}": fingerprint(database) for name, database in sorted(found.items())}
            ),
            store=Store(Path(store)),
        )

    def _place(self, row: Row, folder: Path) -> tuple[str, str]:
        """What a row's database is called, and its file or URL; empty where nothing says it."""
        if row.database:
            url = "://" in row.database
            place = row.database if url else str(folder / row.database)
            called = urlsplit(row.database).path if url else row.database
            return row.db_id or Path(called).stem, place
        if isinstance(self._places, str):
            root = Path(self._places)
            tried = [root / row.db_id / f"{row.db_id}.sqlite", root / f"{row.db_id}.sqlite"]
            return row.db_id, str(next((path for path in tried if path.is_file()), tried[0])) if row.db_id else ""
        return row.db_id, (self._places or {}).get(row.db_id, "")


def _open(place: str) -> Database | str:
    """Where a database lies, or what is wrong with it."""
    try:
        database = parse_database(place, where="its database")
        check_database(database, where="its database")
    except (ConfigError, DataError) as error:
        return str(error)
    return database


def _problem(row: Row, db_id: str, place: str, known: Mapping[str, tuple[str, Database | str]]) -> str:
    if not place:
        asked = f"its db_id {db_id} is not in data.databases" if db_id else "neither db_id nor database"
        return f"row {row.number}: {asked} ({_ROW})"
    at, file = known[db_id]
    if at != place:
        return f"row {row.number}: another row calls another database {db_id}: give them different db_ids"
    return f"row {row.number}: {file}" if isinstance(file, str) else ""
