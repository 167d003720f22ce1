"""The default logger: one long CSV (step, name, value) that survives a kill and a resume."""

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from tutelage.core.store import write_atomically

HEADER = ("step", "name", "value")


class CurvesLogger(Logger):
    """Appends every logged number to ``curves.csv`` at once.

    Lightning's own CSV logger deletes the file of the run that it resumes.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "curves.csv"

    @property
    def name(self) -> str:
        return "curves"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            rows = csv.writer(file)
            if new:
                rows.writerow(HEADER)
            rows.writerows((step, name, repr(float(value))) for name, value in metrics.items() if name != "epoch")

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """The run's folder already holds the whole config."""

    @rank_zero_only
    def forget_from(self, step: int) -> None:
        """Drop what a killed run wrote after the checkpoint that is being resumed."""
        if self.path.exists():
            with self.path.open(newline="") as file:
                # A kill can cut the last line short.
                rows = [row for row in csv.reader(file) if len(row) == 3 and row[0].isdigit() and int(row[0]) < step]
            write_atomically(self.path, "".join(",".join(row) + "\n" for row in [HEADER, *rows]))


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return each logged name's points, (step, value)."""
    path = folder / "curves.csv"
    curves: dict[str, list[tuple[int, float]]] = {}
    if path.exists():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                curves.setdefault(row["name"], []).append((int(row["step"]), float(row["value"])))
    return curves
