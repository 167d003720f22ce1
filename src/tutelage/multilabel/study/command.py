"""The command of a study's ``run.py``: train what is left, or write the tables again."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tutelage.core import startup
from tutelage.core.errors import ConfigError, UserError
from tutelage.multilabel.study.plan import Study


def main(study: Study, *, folder: Path) -> None:
    """Read the command line: the study's places and the folder of the runs, or ``tables``.

    Args:
        study: What is run.
        folder: The study's, with README.md; results.csv, comparisons.csv and figures are written into it.
    """
    startup.prepare()
    from tutelage.multilabel.study import page  # after it, since this imports torch

    arguments = sys.argv[1:]
    try:
        if arguments != ["tables"]:
            _train(study, arguments, folder=folder)
        page.write(study, folder=folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _train(study: Study, arguments: Sequence[str], *, folder: Path) -> None:
    """Train what is left, then compare what there is.

    Raises:
        ConfigError: Too few arguments, too many, or options.
    """
    names = [*study.places, "runs"]
    if not len(study.places) <= len(arguments) <= len(names) or any(text.startswith("-") for text in arguments):
        usage = " ".join([*(name.upper() for name in study.places), "[RUNS]"])
        raise ConfigError("arguments", " ".join(arguments) or "none", f"give {usage}, or the word tables alone")
    given = dict(zip(names, arguments, strict=False))
    runs = Path(given.pop("runs", f"runs/{study.name}"))
    from tutelage.multilabel.study import runner, table  # here: the tables need no trainer

    outcomes = runner.run(study, places=given, runs=runs, out=folder)
    table.write_comparisons(folder, table.compare(study, table.rows(study, outcomes), runs=runs))
