"""A question in words, a query and its rows in return: what ``ask.py`` does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from tutelage.core.errors import ConfigError, RunError
from tutelage.core.store import Store
from tutelage.text2sql.data.examples import Example, Source
from tutelage.text2sql.data.questions import Questions
from tutelage.text2sql.database.executor import Executor, Limits, Result
from tutelage.text2sql.database.sqlite_file import check_file

if TYPE_CHECKING:
    from tutelage.text2sql.inference.answer import Answerer
    from tutelage.text2sql.inference.generate import Engine
    from tutelage.text2sql.model.language_model import LanguageModel

USAGE = 'python ask.py run=runs/… "How many flights left JFK late?"'
KEYS = ("run", "database", "db_id", "rows")
# A person waits; and what does not fit on a screen is no answer.
LIMITS = Limits(seconds=60.0, rows=100_000)


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


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line.

    Attributes:
        run: The folder of a finished run.
        question: In words.
        database: Another SQLite file to ask than the run's own; None for the run's.
        db_id: Which of the run's databases; None where there is only one.
        rows: The most rows that are printed.
    """

    run: Path
    question: str
    database: Path | None
    db_id: str | None
    rows: int


def parse(arguments: Sequence[str]) -> Asked:
    """Read ``key=value`` and the question, which is whatever has no key.

    Raises:
        ConfigError: No run, no question, or rows that are no number.
    """
    values: dict[str, str] = {}
    spoken = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key in KEYS:
            values[key] = value
        elif equals and key.isidentifier():
            raise ConfigError(key, "ask.py has no such key", f"use {', '.join(KEYS)}; quote the question")
        else:
            spoken.append(argument)
    question = " ".join(spoken).strip()
    if "run" not in values:
        raise ConfigError("run", "no run was named", f"train one (python train.py task=text2sql), then: {USAGE}")
    if not question:
        raise ConfigError("question", "nothing was asked", USAGE)
    rows = values.get("rows", "20")
    if not rows.isdecimal():
        raise ConfigError("rows", f"{rows!r} is not a number of rows", "give a whole number")
    database = values.get("database")
    return Asked(
        Path(values["run"]), question, None if database is None else Path(database), values.get("db_id"), int(rows)
    )


def choose_database(source: Source, asked: Asked, *, store: Store | None) -> tuple[Source, str]:
    """Find the database that is asked: another file, the one named, or the only one.

    Args:
        source: The run's.
        asked: The command line.
        store: Where the catalog of another file is kept.

    Raises:
        ConfigError: The run knows several, and none or no known one was named.
        DataError: The file is not there, or is no SQLite database.
    """
    if asked.database is not None:
        check_file(asked.database)
        name = asked.database.stem
        databases = {name: asked.database}
        return Questions(name="asked", splits={}, databases=databases, notes={}, fingerprint="", store=store), name
    names = sorted(source.databases)
    db_id = asked.db_id or (names[0] if len(names) == 1 else None)
    if db_id not in source.databases:
        what = "the run knows several databases" if db_id is None else f"the run knows no database {db_id}"
        known = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise ConfigError("db_id", f"{what}: {known}", "name one of them with db_id=…, or give database=<SQLite file>")
    check_file(source.databases[db_id])
    return source, db_id


def ask(asked: Asked, load_run: Callable[..., LoadedRun]) -> None:
    """Answer a question: print the query, then its rows. Databases are only read.

    Args:
        asked: The command line.
        load_run: Opens a run's folder: ``task.load_run``.

    Raises:
        ConfigError, DataError: The run, the database or the question cannot be used.
        RunError: The model wrote no query that runs.
    """
    # Before the model's libraries, which take seconds to load.
    if not asked.run.is_dir():
        raise ConfigError("run", f"no folder {asked.run}", "give the folder that train.py named at its end")
    if asked.database is not None:
        check_file(asked.database)
    import torch

    from tutelage.text2sql.inference.answer import Answerer

    run = load_run(asked.run, device="cuda" if torch.cuda.is_available() else "cpu")
    own = run.answerer
    source, db_id = choose_database(own.source, asked, store=own.store)
    # What fails gets one more chance, whatever the run's scores were taken with.
    inference = replace(own.inference, repair_rounds=max(1, own.inference.repair_rounds))
    with Executor(workers=1, limits=LIMITS) as executor:
        answerer = Answerer(source, prompt=own.prompt, inference=inference, executor=executor, store=own.store)
        example = Example("asked", db_id, asked.question, None)
        context = run.model.causal.config.get_text_config().max_position_embeddings
        answerer.check(run.model.tokenizer, [example], context=context)
        (answer,) = answerer.answer(run.engine, run.model.tokenizer, [example])
        if not answer.sql:
            raise RunError("answer", "the model wrote no query", "ask in other words, or train longer")
        print_answer(answer.sql, executor.run(source.databases[db_id], answer.sql), rows=asked.rows)


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
