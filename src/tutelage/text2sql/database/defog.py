"""The files of Defog's SQL-Eval (defog-ai/sql-eval, defog-ai/defog-data; Apache 2.0), as its scorer reads them."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Literal

from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.database.address import Database, DatabaseUrl, parse_database

DefogDialect = Literal["sqlite", "duckdb", "postgresql"]
# DuckDB runs most of PostgreSQL's queries; nobody published golds of its own.
_FILES: dict[DefogDialect, str] = {
    "sqlite": "questions_gen_sqlite.csv",
    "duckdb": "questions_gen_postgres.csv",
    "postgresql": "questions_gen_postgres.csv",
}
_UNANSWERABLE_FILE = "idk.csv"
UNANSWERABLE = "unanswerable"  # the category of its questions
CATEGORIES = ("group_by", "order_by", "ratio", "table_join", "instruct", "date_functions", UNANSWERABLE)
_TODAY = re.compile(r"'now'|\bcurrent_(?:date|timestamp|time)\b|\bnow\s*\(|\btoday\s*\(", re.IGNORECASE)
_BRACES = re.compile(r"\{(.*?)\}", re.DOTALL)
# A query that says something and reads nothing: SELECT 'Sorry, …' AS answer
_REFUSAL = re.compile(
    r"""\s*select\s+'(?:[^']|'')*[a-z](?:[^']|'')*'(?:\s+(?:as\s+)?["`\w]+)?\s*;?\s*""", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class DefogQuestion:
    """One question.

    Attributes:
        id: Its place in the file, from 0; of a question that cannot be answered, ``idk-`` and its place.
        golds: Any of these queries is right. Of a question that cannot be answered: the query that says so.
        category: One of `CATEGORIES`.
        instructions: What the asker adds; empty for most.
        answerable: Whether the database can answer it.
    """

    id: str
    db_id: str
    question: str
    golds: tuple[str, ...]
    category: str
    instructions: str
    answerable: bool

    @property
    def asks_for_today(self) -> bool:
        """Whether a gold reads the clock: what it gives then changes from day to day, and may become empty."""
        return any(_TODAY.search(gold) for gold in self.golds)


def read_defog(root: Path, *, dialect: DefogDialect, unanswerable: bool) -> tuple[list[DefogQuestion], list[str]]:
    """Read the 210 questions, and with ``unanswerable`` the 105 of ``idk.csv`` after them.

    Returns:
        The questions, and what is wrong with rows that are left out.

    Raises:
        DataError: A file is missing, or has no row that can be used.
    """
    questions: list[DefogQuestion] = []
    bad: list[str] = []
    for name, answerable in ((_FILES[dialect], True), *([(_UNANSWERABLE_FILE, False)] if unanswerable else [])):
        found = 0
        for number, row in _rows(root / name):
            golds = tuple(expand(row.get("query") or "")) if answerable else ((row.get("query") or "").strip(),)
            texts = [(row.get(key) or "").strip() for key in ("question", "db_name")]
            if not all([*golds, *texts]) or not golds:
                bad.append(f"{name}, row {number} lacks a question, a db_name or a query")
                continue
            found += 1
            questions.append(
                DefogQuestion(
                    id=str(number) if answerable else f"idk-{number}",
                    db_id=texts[1],
                    question=texts[0],
                    golds=golds,
                    category=(row.get("query_category") or "unknown") if answerable else UNANSWERABLE,
                    instructions=(row.get("instructions") or "").strip(),
                    answerable=answerable,
                )
            )
        if not found:
            hint = "take the file of the repository defog-ai/sql-eval"
            raise DataError("data.root", f"no question in {root / name}", hint)
    return questions, bad


def expand(gold: str) -> Iterator[str]:
    """All queries that a gold stands for.

    Semicolons part queries, each of which is right. Braces around columns mean any of them, alone or together, in
    their order; ``GROUP BY {}`` behind them groups by the same. So says ``get_all_minimal_queries`` of sql-eval.

    >>> list(expand("SELECT {a,b} FROM t GROUP BY {}; SELECT 1;"))[2:]
    ['SELECT a, b FROM t GROUP BY a, b', 'SELECT 1']
    """
    for query in (part.strip() for part in gold.split(";")):
        if not query:
            continue
        match = _BRACES.search(query)
        if match is None:
            yield query
            continue
        columns = [column.strip() for column in match.group(1).split(",")]
        some = chain.from_iterable(combinations(columns, count) for count in range(1, len(columns) + 1))
        for chosen in map(", ".join, some):
            yield query[: match.start()] + chosen + query[match.end() :].replace("GROUP BY {}", f"GROUP BY {chosen}")


def declines(sql: str) -> bool:
    """Whether a prediction abstains: it is empty, or selects one text in words and reads no table.

    >>> [declines("SELECT 'I cannot answer that.' AS answer;"), declines("SELECT 'a' FROM t"), declines("SELECT '7'")]
    [True, False, False]
    """
    return not sql.strip() or _REFUSAL.fullmatch(sql) is not None


def defog_database(root: Path, db_id: str, dialect: DefogDialect, *, server: str | None = None) -> Database:
    """Where a database lies.

    Raises:
        ConfigError: PostgreSQL, and no server.
    """
    if dialect == "sqlite":
        return root / "database" / db_id / f"{db_id}.sqlite"
    if dialect == "duckdb":
        return DatabaseUrl(f"duckdb:///{(root / 'duckdb' / f'{db_id}.duckdb').absolute()}", "duckdb")
    if server is None:
        what = "no server of the PostgreSQL databases"
        hint = "load postgres/frozen/*.sql, a database each, and give data.server=postgresql://user@host"
        raise ConfigError("data.server", what, hint)
    return parse_url(f"{server.rstrip('/')}/{db_id}")


def parse_url(text: str) -> DatabaseUrl:
    """Read a server's URL.

    Raises:
        ConfigError: It is none.
    """
    found = parse_database(text, where="data.server")
    if isinstance(found, Path):
        raise ConfigError("data.server", "no URL", "write postgresql://user@host")
    return found


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    if not path.is_file():
        hint = "point data.root at the folder that holds questions_gen_*.csv, idk.csv and database/"
        raise DataError("data.root", f"no {path.name} in {path.parent}", hint)
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(enumerate(csv.DictReader(file)))
