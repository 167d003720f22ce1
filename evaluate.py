"""Score a finished run again, compare two, or score anybody's predictions.

``run=…``, ``run=… against=…``, or ``task=text2sql data=spider predictions=…``.
"""

import sys
from pathlib import Path

from omegaconf import DictConfig

from tutelage.core import cli, startup


def job(cfg: DictConfig, folder: Path) -> None:
    """Score predictions; a run's folder is recognised before."""
    from tutelage.core import build

    build.locate(cfg.task, where="task").score(cfg, folder=folder)  # type: ignore[attr-defined]


def again(_: DictConfig, folder: Path) -> None:
    """Score a run again."""
    startup.prepare()
    from tutelage.core.run import evaluate

    evaluate(folder)


def compare(folder: Path, other: Path) -> None:
    """Print how two runs differ on what both were tested on."""
    startup.prepare()
    from tutelage.core.run import compare as compare_runs

    compare_runs(folder, other)


if __name__ == "__main__":
    # Hydra would take predictions=a,b for a sweep; here it is two systems to compare.
    sys.argv[1:] = [
        f"predictions=[{a[12:]}]" if a.startswith("predictions=") and "," in a and "[" not in a else a
        for a in sys.argv[1:]
    ]
    cli.main("evaluate", job, of_run=again, of_two=compare)
