"""A question in words, a query and its rows in return: what ``ask.py`` does."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tutelage.core.arguments import parse_arguments, split_names
from tutelage.core.errors import ConfigError
from tutelage.core.store import Store
from tutelage.text2sql.data.examples import Source
from tutelage.text2sql.data.questions import Questions
from tutelage.text2sql.database.address import name_of, parse_database
from tutelage.text2sql.database.check import check_database
from tutelage.text2sql.database.executor import Executor

if TYPE_CHECKING:
    from tutelage.text2sql.inference.session import LoadedRun

USAGE = 'python ask.py run=runs/… "How many flights left JFK late?"'
SERVED = "python ask.py database=my.sqlite inference=api inference.base_url=http://localhost:8000/v1 inference.model=…"
# What is changed of a run's config; anything else without a key is the question.
_CHANGE = re.compile(r"\+?(inference|prompt)(\.\w+)*=")


@dataclass(frozen=True, slots=True, kw_only=True)
class AskSettings:
    """The command line.

    Attributes:
        run: The folder of a finished run; null where a server answers (inference=api) about another database.
        changes: Of the run's config: ``inference=…``, ``inference.temperature=…``, ``prompt=…``.
        question: In words; empty for a session.
        database: Another database to ask than the run's own, a file or a URL; null for the run's.
        db_id: Which of the run's databases; null where there is only one.
        rows: The most rows that are shown.
        format: How one answer is printed: for people, or as a line of JSON for programs.
        web: Serve a page instead.
        host: Where the page is served; beyond this machine it asks for a token.
        port: Of the page; 0 takes any that is free.
        trust: Packages, with commas between them, whose classes the run's config may name.
    """

    run: Path | None = None
    changes: tuple[str, ...] = ()
    question: str = ""
    database: str | None = None
    db_id: str | None = None
    rows: int = 20
    format: Literal["table", "json"] = "table"
    web: bool = False
    host: str = "127.0.0.1"
    port: int = 7860
    trust: str = ""


def parse(arguments: Sequence[str]) -> AskSettings:
    """Read ``key=value`` and the question, which is whatever has no key.

    Raises:
        ConfigError: No run and no server, an unknown key, or a value of another type.
    """
    changes = [argument for argument in arguments if _CHANGE.match(argument)]
    others = [argument for argument in arguments if argument not in changes]
    keyed = [argument for argument in others if argument.partition("=")[1] and argument.split("=")[0].isidentifier()]
    spoken = " ".join(argument for argument in others if argument not in keyed).strip()
    read = parse_arguments([*keyed, *([f"question={spoken}"] if spoken else [])], AskSettings, usage=USAGE)
    settings = replace(read, changes=tuple(changes))
    served = "inference=api" in changes
    if settings.run is None and not served:
        raise ConfigError("run", "not given", f"{USAGE}, or inference=api for a model behind a server")
    if settings.run is None and settings.database is None:
        raise ConfigError("database", "not given", f"name a file or a URL: {SERVED}")
    return settings


def choose_database(source: Source, settings: AskSettings, *, store: Store | None) -> tuple[Source, str]:
    """Find the database that is asked: another file, the one named, or the only one.

    Args:
        source: The run's.
        settings: The command line.
        store: Where the catalog of another file is kept.

    Raises:
        ConfigError: The run knows several, and none or no known one was named.
        DataError: The database is not there, or cannot be read.
    """
    if settings.database is not None:
        database = parse_database(settings.database)
        check_database(database)
        name = name_of(database)
        return Questions(
            name="asked", splits={}, databases={name: database}, notes={}, fingerprint="", store=store
        ), name
    names = sorted(source.databases)
    db_id = settings.db_id or (names[0] if len(names) == 1 else None)
    if db_id not in source.databases:
        what = "the run knows several databases" if db_id is None else f"the run knows no database {db_id}"
        known = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise ConfigError("db_id", f"{what}: {known}", "choose one with db_id=…, or give database=<a file or a URL>")
    check_database(source.databases[db_id])
    return source, db_id


def ask(settings: AskSettings, load_run: Callable[..., "LoadedRun"]) -> None:
    """Answer one question, or hold a session where there is none. Databases are only read.

    Args:
        settings: The command line.
        load_run: Opens a run's folder, or a server: ``task.load_run``.

    Raises:
        ConfigError, DataError: The run, the database or the question cannot be used.
        RunError: The model wrote no query that runs.
    """
    # Before the model's libraries, which take seconds to load.
    if settings.run is not None and not settings.run.is_dir():
        raise ConfigError("run", f"no folder {settings.run}", "give the folder that train.py named at its end")
    if settings.database is not None:
        check_database(parse_database(settings.database))
    if settings.web and settings.question:
        raise ConfigError(
            "question", "with web=true questions are asked on the page", "leave out the question, or web=true"
        )
    if settings.format == "json" and not settings.question:
        raise ConfigError(
            "format", "format=json answers one question, and none was given", f"ask one question: {USAGE}"
        )
    if settings.web:
        from tutelage.text2sql.inference.web import check_page

        check_page(settings.host, settings.port)
    import torch

    from tutelage.text2sql.inference.session import LIMITS, Session, record
    from tutelage.text2sql.inference.terminal import converse, print_answer

    run = load_run(
        settings.run,
        device="cuda" if torch.cuda.is_available() else "cpu",
        changes=settings.changes,
        database=settings.database,
        trusted=split_names(settings.trust),
    )
    source, db_id = choose_database(run.answerer.source, settings, store=run.answerer.store)
    with Executor(workers=1, limits=LIMITS) as executor:
        session = Session(run, source=source, db_id=db_id, executor=executor)
        if settings.web:
            from tutelage.text2sql.inference.web import serve

            serve(session, host=settings.host, port=settings.port)
        elif not settings.question:
            converse(session, rows=settings.rows)
        else:
            reply = session.ask(settings.question)
            if settings.format == "json":
                print(json.dumps(record(reply, rows=settings.rows), ensure_ascii=False))
            if settings.format == "table" or reply.result.status != "ok":
                print_answer(reply.sql, reply.result, rows=settings.rows)
