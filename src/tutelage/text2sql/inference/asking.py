"""A question in words, a query and its rows in return: what ``ask.py`` does."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from tutelage.core.arguments import parse_arguments
from tutelage.core.errors import ConfigError, RunError
from tutelage.core.store import Store
from tutelage.text2sql.data.examples import Source
from tutelage.text2sql.data.questions import Questions
from tutelage.text2sql.database.executor import Executor, Result
from tutelage.text2sql.database.sqlite_file import check_file

if TYPE_CHECKING:
    from tutelage.text2sql.inference.answer import Answerer
    from tutelage.text2sql.inference.generate import Engine
    from tutelage.text2sql.model.language_model import LanguageModel

USAGE = 'python ask.py run=runs/… "How many flights left JFK late?"'


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """A finished run, opened to be asked.

    Attributes:
        model: In eval mode, on its device.
        engine: Generates with the model.
        answerer: Of the run's own databases, with the prompt and the inference that it was scored with.
    """

    model: "LanguageModel"
    engine: "Engine"
    answerer: "Answerer"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskSettings:
    """The command line.

    Attributes:
        run: The folder of a finished run.
        question: In words; empty for a session.
        database: Another SQLite file to ask than the run's own; null for the run's.
        db_id: Which of the run's databases; null where there is only one.
        rows: The most rows that are shown.
        format: How one answer is printed: for people, or as a line of JSON for programs.
    """

    run: Path
    question: str = ""
    database: Path | None = None
    db_id: str | None = None
    rows: int = 20
    format: Literal["table", "json"] = "table"


def parse(arguments: Sequence[str]) -> AskSettings:
    """Read ``key=value`` and the question, which is whatever has no key.

    Raises:
        ConfigError: No run, an unknown key, or a value of another type.
    """
    keyed = [argument for argument in arguments if argument.partition("=")[1] and argument.split("=")[0].isidentifier()]
    spoken = " ".join(argument for argument in arguments if argument not in keyed).strip()
    return parse_arguments([*keyed, *([f"question={spoken}"] if spoken else [])], AskSettings, usage=USAGE)


def choose_database(source: Source, settings: AskSettings, *, store: Store | None) -> tuple[Source, str]:
    """Find the database that is asked: another file, the one named, or the only one.

    Args:
        source: The run's.
        settings: The command line.
        store: Where the catalog of another file is kept.

    Raises:
        ConfigError: The run knows several, and none or no known one was named.
        DataError: The file is not there, or is no SQLite database.
    """
    if settings.database is not None:
        check_file(settings.database)
        name = settings.database.stem
        databases = {name: settings.database}
        return Questions(name="asked", splits={}, databases=databases, notes={}, fingerprint="", store=store), name
    names = sorted(source.databases)
    db_id = settings.db_id or (names[0] if len(names) == 1 else None)
    if db_id not in source.databases:
        what = "the run knows several databases" if db_id is None else f"the run knows no database {db_id}"
        known = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise ConfigError("db_id", f"{what}: {known}", "name one of them with db_id=…, or give database=<SQLite file>")
    check_file(source.databases[db_id])
    return source, db_id


def ask(settings: AskSettings, load_run: Callable[..., LoadedRun]) -> None:
    """Answer one question, or hold a session where there is none. Databases are only read.

    Args:
        settings: The command line.
        load_run: Opens a run's folder: ``task.load_run``.

    Raises:
        ConfigError, DataError: The run, the database or the question cannot be used.
        RunError: The model wrote no query that runs.
    """
    # Before the model's libraries, which take seconds to load.
    if not settings.run.is_dir():
        raise ConfigError("run", f"no folder {settings.run}", "give the folder that train.py named at its end")
    if settings.database is not None:
        check_file(settings.database)
    if settings.format == "json" and not settings.question:
        raise ConfigError("format", "a session is for people", f"ask one question: {USAGE}")
    import torch

    from tutelage.text2sql.inference.session import LIMITS, Session, record
    from tutelage.text2sql.inference.terminal import converse

    run = load_run(settings.run, device="cuda" if torch.cuda.is_available() else "cpu")
    source, db_id = choose_database(run.answerer.source, settings, store=run.answerer.store)
    with Executor(workers=1, limits=LIMITS) as executor:
        session = Session(run, source=source, db_id=db_id, executor=executor)
        if not settings.question:
            converse(session, rows=settings.rows)
            return
        reply = session.ask(settings.question)
        if settings.format == "json":
            print(json.dumps(record(reply, rows=settings.rows), ensure_ascii=False))
        if settings.format == "table" or reply.result.status != "ok":
            print_answer(reply.sql, reply.result, rows=settings.rows)


def print_answer(sql: str, result: Result, *, rows: int) -> None:
    """Print a query and what it gave.

    Raises:
        RunError: It gave an error.
    """
    # Text of a database is text: rich would take [brackets] in it for styles.
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(sql)
    if result.status != "ok":
        raise RunError("answer", f"this query gives no rows ({result.error})", "ask in other words, or train longer")
    table = Table(*[_text(column) for column in result.columns], box=box.SIMPLE)
    for row in result.rows[:rows]:
        table.add_row(*[_text(value) for value in row])
    console.print(table)
    shown = min(rows, len(result.rows))
    count = f"{shown} of {len(result.rows)} rows" if shown < len(result.rows) else f"{shown} row{'s' * (shown != 1)}"
    console.print(f"{count}, {result.seconds:.2f} s")


def _text(value: Any) -> str:
    """A cell: NULL is not the text None, and a blob is not printed."""
    if value is None:
        return "NULL"
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)
