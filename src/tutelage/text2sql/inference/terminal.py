"""A session in a terminal: ``python ask.py run=…`` without a question."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tutelage.core.errors import DataError, RunError, UserError
from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.inference.session import Reply, Session, write_csv

HELP = r"""Ask in words. A line that begins with + continues from the question before: + and in March?
  \sql            edit the last query and run it; \sql SELECT … runs that one
  \why            how the last query was found: matching values, candidates, votes, repairs
  \csv FILE       write all rows of the last result
  \schema [NAME]  the tables, or those whose name holds NAME
  \quit           leave (so does Ctrl-D); Ctrl-C drops the line, or stops an answer"""
# Reads one line; the second argument is the text that stands there to be edited.
Read = Callable[[str, str], str]


def converse(session: Session, *, rows: int, read: Read | None = None) -> None:
    """Answer until the person leaves. An error is said, and ends nothing.

    Args:
        session: The database and its model.
        rows: The most rows that are printed of an answer.
        read: Reads a line; None for the terminal with history and editing, or for lines of standard input.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{session.db_id}: {len(session.catalog.tables)} tables. Ask in words; \\help lists what else.")
    reader = read or _reader()
    last: Reply | None = None
    for line in _lines(reader):
        try:
            last = _turn(session, line, last, rows=rows, read=reader, console=console)
        except UserError as error:
            console.print(f"error: {error}")
        except KeyboardInterrupt:
            console.print("stopped")


def _lines(read: Read) -> Iterator[str]:
    while True:
        try:
            line = read("> ", "").strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if line in ("\\quit", "\\q"):
            return
        if line:
            yield line


def _turn(session: Session, line: str, last: Reply | None, *, rows: int, read: Read, console: Console) -> Reply | None:
    """Do what one line asks for; return the reply that the next line may go on from."""
    command, _, rest = line.partition(" ")
    rest = rest.strip()
    match command:
        case "\\help" | "\\h" | "\\?":
            console.print(HELP)
        case "\\schema":
            for described in session.schema():
                if rest.lower() in described.partition(":")[0].lower():
                    console.print(described)
        case "\\sql":
            sql = rest or read("sql> ", last.sql if last else "").strip()
            if sql:
                last = session.run_sql(sql)
                print_answer(last.sql, last.result, rows=rows)
        case "\\why":
            for told in session.why(_known(last).answer):
                console.print(told)
        case "\\csv":
            reply = _known(last)
            if not rest:
                raise DataError("\\csv", "no file was named", "type \\csv rows.csv")
            console.print(f"{write_csv(Path(rest).expanduser(), reply.result)} rows in {rest}")
        case _ if command.startswith("\\"):
            raise DataError(command, "no such command", "\\help lists them")
        case _ if line.startswith("+"):
            before = _known(last)
            last = session.ask(line[1:], after=(before.question, before.sql))
            print_answer(last.sql, last.result, rows=rows)
        case _:
            last = session.ask(line)
            print_answer(last.sql, last.result, rows=rows)
    return last


def _known(last: Reply | None) -> Reply:
    if last is None:
        raise DataError("question", "nothing was asked yet", "ask in words first")
    return last


def _reader() -> Read:
    if not sys.stdin.isatty():
        return lambda prompt, text: input()
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory

    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tutelage"
    folder.mkdir(parents=True, exist_ok=True)
    # Kept line by line, so that an interrupted session loses nothing that was typed.
    prompts: PromptSession[str] = PromptSession(history=FileHistory(str(folder / "ask_history")))
    return lambda prompt, text: prompts.prompt(prompt, default=text)


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
