"""The questions of Spider and BIRD with their gold queries, as scoring needs them."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.database.address import Database, file_of
from tutelage.text2sql.database.defog import DefogDialect, defog_database, read_defog
from tutelage.text2sql.database.executor import Executor, Limits
from tutelage.text2sql.database.guard import connect
from tutelage.text2sql.database.published import bird_files, spider_files
from tutelage.text2sql.evaluation.exact_match import key_map
from tutelage.text2sql.evaluation.spider_sql import Schema

BenchmarkName = Literal["spider", "bird", "defog"]
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
        difficulty: BIRD's word for it, or Defog's category; Spider's hardness is worked out from the gold.
        evidence: BIRD's hint, or Defog's instructions.
        alternatives: Defog: other queries that are as right as the gold.
    """

    id: str
    db_id: str
    question: str
    sql: str
    difficulty: str = ""
    evidence: str = ""
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What predictions are scored against.

    Attributes:
        name: Which rules of scoring hold.
        split: Which questions.
        all_items: In the data's order.
        databases: Where each database lies that can be read, its own first; more than one is a test suite.
        not_asked: How many questions were left out, since a run that is scored was not asked them.
        unreadable: Why a database whose file is there cannot be read, by db_id.
        keys: Spider: the columns that foreign keys make one, by db_id.
        today: Defog: the ids of questions that ask for today, whose golds may have gone stale.
    """

    name: BenchmarkName
    split: str
    all_items: Sequence[Item]
    databases: Mapping[str, tuple[Database, ...]]
    unreadable: Mapping[str, str]
    keys: Mapping[str, Mapping[str, str]]
    not_asked: int = 0
    today: frozenset[str] = frozenset()

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


def load_benchmark(
    name: BenchmarkName, *, root: Path, split: str, on_missing: OnMissing, variants: Path | None = None
) -> Benchmark:
    """Read a benchmark's questions and find its databases.

    Args:
        name: Whose layout and rules.
        root: The folder that holds the questions: Spider's with ``dev.json`` and ``database/``, BIRD's with
            ``dev.json`` and ``dev_databases/``.
        split: Spider and BIRD: ``dev``, ``test``, ``train``, a name that `published` knows (``syn``, ``realistic``,
            ``dk``; ``mini_dev``, ``corrected``), or the name of any other file of questions. Defog:
            ``with_unanswerable`` adds the questions of ``idk.csv``; any other has those that can be answered.
        on_missing: Whether questions without a database that can be read are an error, or left out and counted.
        variants: Where Spider's variants lie; see `published.spider_files`.

    Raises:
        DataError: A file is missing or of another shape; databases are missing.
    """
    if not root.is_dir():
        raise DataError("data.root", f"no folder {root}", "point data.root at the folder that holds the questions")
    if name == "defog":
        return load_defog(root, unanswerable=split == "with_unanswerable", on_missing=on_missing)
    files_of = spider_files(root, split, variants=variants) if name == "spider" else bird_files(root, split)
    query = "query" if name == "spider" else "SQL"
    records = [record for path in files_of.questions for record in _read(path, query)]
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
    databases: dict[str, tuple[Database, ...]] = {}
    unreadable: dict[str, str] = {}
    for db_id in sorted({item.db_id for item in items}):
        files = _files(files_of.database(db_id), suite=name == "spider")
        try:
            for file in files:
                connect(file).close()
        except DataError as error:
            unreadable[db_id] = str(error)
        else:
            if files:
                databases[db_id] = files
    keys = _keys(files_of.tables)
    benchmark = Benchmark(name, split, items, databases, unreadable, keys)
    _check_missing(benchmark, files_of.databases, on_missing)
    return benchmark


def load_defog(
    root: Path,
    *,
    unanswerable: bool,
    on_missing: OnMissing,
    dialect: DefogDialect = "sqlite",
    server: str | None = None,
) -> Benchmark:
    """Read Defog's questions, with golds in a dialect, and find its databases.

    Args:
        root: Their folder.
        unanswerable: Whether the questions of ``idk.csv`` are scored as well.
        on_missing: Whether questions without a database that can be read are an error, or left out and counted.
        dialect: Of golds and predictions. DuckDB has PostgreSQL's golds.
        server: PostgreSQL: the URL of the server, without a database; each database is called as in the files.

    Raises:
        ConfigError: No server for PostgreSQL.
        DataError: A file is missing or has bad rows; databases are missing.
    """
    questions, bad = read_defog(root, dialect=dialect, unanswerable=unanswerable)
    if bad:
        raise DataError("data.root", f"{len(bad)} questions cannot be used: {bad[0]}", "take the published file")
    items = [Item(q.id, q.db_id, q.question, q.golds[0], q.category, q.instructions, q.golds[1:]) for q in questions]
    databases: dict[str, tuple[Database, ...]] = {}
    unreadable: dict[str, str] = {}
    with Executor(workers=1, limits=Limits()) as executor:  # it starts at its first query, so not for SQLite
        for db_id in sorted({item.db_id for item in items}):
            database = defog_database(root, db_id, dialect, server=server)
            file = file_of(database)
            if file is None and dialect != "postgresql":
                continue
            if why := _why_unreadable(database, executor):
                unreadable[db_id] = why
            else:
                databases[db_id] = (database,)
    today = frozenset(question.id for question in questions if question.asks_for_today)
    split = f"{dialect}{', with unanswerable questions' if unanswerable else ''}"
    benchmark = Benchmark("defog", split, items, databases, unreadable, {}, today=today)
    _check_missing(benchmark, (root / ("duckdb" if dialect == "duckdb" else "database"),), on_missing)
    return benchmark


def _why_unreadable(database: Database, executor: Executor) -> str:
    if not isinstance(database, Path):
        return executor.run(database, "SELECT 1").error
    try:
        connect(database).close()
    except DataError as error:
        return str(error)
    return ""


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


def _files(own: Path | None, *, suite: bool) -> tuple[Path, ...]:
    if own is None:
        return ()
    others = sorted(path for path in own.parent.iterdir() if path.suffix == ".sqlite" and path != own) if suite else []
    return own, *others


def _keys(tables: tuple[Path, ...]) -> dict[str, dict[str, str]]:
    # Only exact match needs them, and test sets bring them in a file of their own.
    entries = [entry for path in tables for entry in json.loads(path.read_text(encoding="utf-8"))]
    return {entry["db_id"]: key_map(entry) for entry in entries}


def _check_missing(benchmark: Benchmark, folders: tuple[Path, ...], on_missing: OnMissing) -> None:
    missing = benchmark.missing
    if not missing:
        return
    why = benchmark.unreadable
    named = ", ".join(
        f"{db_id} ({count}{f'; {why[db_id]}' if db_id in why else ''})" for db_id, count in sorted(missing.items())
    )
    total = len(benchmark.all_items)
    where = ", ".join(map(str, folders))
    if on_missing == "error" or not benchmark.databases:
        raise DataError(
            "data.root",
            f"{sum(missing.values())} of {total} questions have no database that can be read in {where}: {named}",
            "fetch these databases"
            + (", or score the other questions alone with on_missing=skip" if benchmark.databases else ""),
        )
