"""The questions of Spider and BIRD with their gold queries, as scoring needs them."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.database.guard import connect
from tutelage.text2sql.evaluation.exact_match import key_map
from tutelage.text2sql.evaluation.spider_sql import Schema

BenchmarkName = Literal["spider", "bird"]
OnMissing = Literal["error", "skip"]
# In common copies of Spider, wta_1's `rankings` is empty and `players` cut off: wrong queries score right there.
DOUBTFUL_DATABASES = ("wta_1",)


@dataclass(frozen=True, slots=True)
class Item:
    """A question to be scored.

    Attributes:
        id: Spider: the place in the file, from 0. BIRD: the question_id.
        db_id: Its database.
        question: As asked.
        sql: The gold query.
        difficulty: BIRD's word for it; Spider's hardness is worked out from the gold.
        evidence: BIRD's hint.
    """

    id: str
    db_id: str
    question: str
    sql: str
    difficulty: str = ""
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What predictions are scored against.

    Attributes:
        name: Which rules of scoring hold.
        split: Which questions.
        all_items: In the data's order.
        databases: The files of each database that can be read, its own first; more than one is a test suite.
        not_asked: How many questions were left out, since a run that is scored was not asked them.
        unreadable: Why a database whose file is there cannot be read, by db_id.
        keys: Spider: the columns that foreign keys make one, by db_id.
    """

    name: BenchmarkName
    split: str
    all_items: Sequence[Item]
    databases: Mapping[str, tuple[Path, ...]]
    unreadable: Mapping[str, str]
    keys: Mapping[str, Mapping[str, str]]
    not_asked: int = 0

    @property
    def items(self) -> list[Item]:
        """Those whose database can be read."""
        return [item for item in self.all_items if item.db_id in self.databases]

    def without(self, places: Collection[int]) -> "Benchmark":
        """The same without some of `items`, by their place."""
        left_out = {id(item) for place, item in enumerate(self.items) if place in places}
        kept = [item for item in self.all_items if id(item) not in left_out]
        return replace(self, all_items=kept, not_asked=self.not_asked + len(left_out))

    @property
    def missing(self) -> dict[str, int]:
        """The number of questions by database that is not there, or cannot be read."""
        return dict(Counter(item.db_id for item in self.all_items if item.db_id not in self.databases))


def load_benchmark(name: BenchmarkName, *, root: Path, split: str, on_missing: OnMissing) -> Benchmark:
    """Read a benchmark's questions and find its databases.

    Args:
        name: Whose layout and rules.
        root: The folder that holds the questions: Spider's with ``dev.json`` and ``database/``, BIRD's with
            ``dev.json`` and ``dev_databases/``.
        split: ``dev``, BIRD's ``mini_dev``, ``test``, ``train``, or the name of any other file of questions.
        on_missing: Whether questions without a database that can be read are an error, or left out and counted.

    Raises:
        DataError: A file is missing or of another shape; databases are missing.
    """
    if not root.is_dir():
        raise DataError("data.root", f"no folder {root}", "point data.root at the folder that holds the questions")
    paths = _question_files(name, root, split)
    query = "query" if name == "spider" else "SQL"
    records = [record for path in paths for record in _read(path, query)]
    items = [
        Item(
            id=str(record.get("question_id", number)) if name == "bird" else str(number),
            db_id=record["db_id"],
            question=str(record["question"]),
            sql=record[query],
            difficulty=str(record.get("difficulty") or "unknown") if name == "bird" else "",
            evidence=str(record.get("evidence") or ""),
        )
        for number, record in enumerate(records)
    ]
    folder = _database_folder(name, root, split)
    databases: dict[str, tuple[Path, ...]] = {}
    unreadable: dict[str, str] = {}
    for db_id in sorted({item.db_id for item in items}):
        files = _files(folder / db_id, db_id, suite=name == "spider")
        try:
            for file in files:
                connect(file).close()
        except DataError as error:
            unreadable[db_id] = str(error)
        else:
            if files:
                databases[db_id] = files
    keys = _keys(root) if name == "spider" else {}
    benchmark = Benchmark(name, split, items, databases, unreadable, keys)
    _check_missing(benchmark, folder, on_missing)
    return benchmark


def read_schema(database: Path) -> Schema:
    """The names of tables and columns, as Spider's scorer takes them from the file."""
    with closing(connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return Schema(
            {
                table.lower(): [
                    column.lower()
                    for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
                ]
                for (table,) in tables
            }
        )


def _question_files(name: BenchmarkName, root: Path, split: str) -> list[Path]:
    if split == "train":
        train = {"spider": ["train_spider.json", "train_others.json"], "bird": ["train/train.json"]}
        paths = [root / path for path in train[name]]
        return [path for path in paths if path.is_file()] or paths[:1]
    return [root / ("mini_dev_sqlite.json" if (name, split) == ("bird", "mini_dev") else f"{split}.json")]


def _database_folder(name: BenchmarkName, root: Path, split: str) -> Path:
    if name == "spider":
        return root / ("test_database" if split == "test" and (root / "test_database").is_dir() else "database")
    return root / ("train/train_databases" if split == "train" else "dev_databases")


def _read(path: Path, query: str) -> list[dict[str, Any]]:
    if not path.is_file():
        splits = ", ".join(sorted(file.stem for file in path.parent.glob("*.json"))) or "none"
        raise ConfigError("split", f"no {path.name} in {path.parent}", f"files of questions there: {splits}")
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError("data.root", f"{path} is not JSON ({error})", "download it again") from error
    fields = ("db_id", "question", query)
    if not isinstance(records, list) or not all(
        isinstance(record, dict) and all(isinstance(record.get(field), str) for field in fields) for record in records
    ):
        raise DataError(
            "data.root",
            f"{path} is not a list of objects with {', '.join(fields)}",
            "choose the data set that this file belongs to",
        )
    return records


def _files(folder: Path, db_id: str, *, suite: bool) -> tuple[Path, ...]:
    own = folder / f"{db_id}.sqlite"
    if not own.is_file():
        return ()
    others = sorted(path for path in folder.iterdir() if path.suffix == ".sqlite" and path != own) if suite else []
    return own, *others


def _keys(root: Path) -> dict[str, dict[str, str]]:
    # Only exact match needs them, and test sets bring them in a file of their own.
    entries = [
        entry
        for name in ("tables.json", "test_tables.json")
        if (path := root / name).is_file()
        for entry in json.loads(path.read_text(encoding="utf-8"))
    ]
    return {entry["db_id"]: key_map(entry) for entry in entries}


def _check_missing(benchmark: Benchmark, folder: Path, on_missing: OnMissing) -> None:
    missing = benchmark.missing
    if not missing:
        return
    why = benchmark.unreadable
    named = ", ".join(
        f"{db_id} ({count}{f'; {why[db_id]}' if db_id in why else ''})" for db_id, count in sorted(missing.items())
    )
    total = len(benchmark.all_items)
    if on_missing == "error" or not benchmark.databases:
        raise DataError(
            "data.root",
            f"{sum(missing.values())} of {total} questions have no database that can be read in {folder}: {named}",
            "fetch these databases"
            + (", or score the other questions alone with on_missing=skip" if benchmark.databases else ""),
        )
