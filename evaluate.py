"""Score a finished run again, compare two, or score anybody's predictions.

``run=…``, also with other data or settings (``run=… scoring.split=val``), ``run=… against=…``, or
``task=text2sql data=spider predictions=…``.
"""

import sys
from pathlib import Path

from omegaconf import DictConfig

from tutelage.core import cli, startup

# Of a run: its data and how it answers can be changed; without one, a language model of the hub is scored as it is.
GROUPS = {"task": "text2sql", "data": None, "model": "text2sql", "prompt": None, "inference": None}


def job(cfg: DictConfig, folder: Path) -> None:
    """Score predictions; a run's folder is recognised before."""
    from tutelage.core import build

    build.locate(cfg.task, where="task").score(cfg, folder=folder)  # type: ignore[attr-defined]


def rescore(run: cli.FinishedRun) -> None:
    """Score a run again, with the changes that were typed; ``out=`` says where the scores go."""
    startup.prepare()
    from tutelage.core.evaluate import evaluate

    changes = [text for text in run.overrides if not text.startswith("out=")]
    out = next((Path(text.removeprefix("out=")) for text in run.overrides if text.startswith("out=")), None)
    evaluate(run.folder, changes=changes, out=out, trusted=run.trusted)


def compare(run: cli.FinishedRun, other: Path) -> None:
    """Print how two runs differ on what both were tested on."""
    startup.prepare()
    from tutelage.core.evaluate import compare as compare_runs

    compare_runs(run.folder, other, trusted=run.trusted)


if __name__ == "__main__":
    # Hydra would take predictions=a,b for a sweep; here it is two systems to compare.
    sys.argv[1:] = [
        f"predictions=[{a[12:]}]" if a.startswith("predictions=") and "," in a and "[" not in a else a
        for a in sys.argv[1:]
    ]
    cli.main("evaluate", job, of_run=rescore, of_two=compare, groups=GROUPS)
