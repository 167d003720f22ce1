"""Ask a trained run: ``python ask.py run=runs/… "How many flights left JFK late?"`` prints SQL and rows.

Without a question it stays, and answers one after the other. ``database=other.sqlite`` asks another database,
``db_id=…`` one of several, ``rows=50`` prints more, ``format=json`` is for programs. Databases are only read.
``inference=api inference.base_url=… inference.model=…`` asks a model behind a server, also without a run.
"""

import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tutelage.text2sql.inference.session import LoadedRun


def load_run(
    folder: Path | None, *, device: str, changes: tuple[str, ...], database: Path | None, trusted: Collection[str]
) -> "LoadedRun":
    """Open a run; the libraries of its model take seconds to load, so they wait until the command line is checked."""
    from tutelage.text2sql import task

    return task.load_run(folder, device=device, changes=changes, database=database, trusted=trusted)


def main() -> None:
    """Answer, or say in one line why not."""
    arguments = sys.argv[1:]
    if not arguments or {"--help", "-h"} & set(arguments):
        print(__doc__)
        return
    # Progress bars and notices of the libraries would stand between question and answer.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from tutelage.core import startup
    from tutelage.core.errors import UserError

    startup.prepare()
    from tutelage.text2sql.inference.asking import ask, parse

    try:
        ask(parse(arguments), load_run)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
