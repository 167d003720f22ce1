"""Two runs side by side, on the test pictures that both were scored on."""

# N images, K labels

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from tutelage.core.errors import DataError
from tutelage.core.results import print_table, read_metrics
from tutelage.multilabel import metrics as scoring

PREDICTIONS = "predictions.npz"
NUM_LABELS = 5


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a run's ``predictions.npz`` holds."""

    ids_N: NDArray[Any]
    logits_NK: scoring.Floats
    targets_NK: NDArray[np.int8]
    labels_K: NDArray[Any]


def read_predictions(folder: Path) -> Predictions:
    """Read what a run predicted for the test split.

    Raises:
        DataError: The file is gone, or cut off.
    """
    path = folder / PREDICTIONS
    try:
        with np.load(path) as kept:
            return Predictions(kept["ids"], kept["logits"], kept["targets"], kept["labels"])
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise DataError(
            str(path), f"cannot be read ({error})", f"write it again: python evaluate.py run={folder}"
        ) from None


def compare(folder: Path, other: Path) -> None:
    """Print what one run scores above another, with the interval of the difference in mAP.

    Raises:
        DataError: They were scored on other pictures, labels or truths.
    """
    first, second = read_predictions(folder), read_predictions(other)
    for what in ("labels_K", "ids_N", "targets_NK"):
        if not np.array_equal(getattr(first, what), getattr(second, what)):
            raise DataError(
                "against",
                f"{other} was not scored on {folder}'s test data ({what.split('_')[0]} differ)",
                "compare runs with the same data and the same test split",
            )
    targets_NK = first.targets_NK
    scores = [scoring.scores(predictions.logits_NK, targets_NK) for predictions in (first, second)]
    low, high = scoring.difference_interval(first.logits_NK, second.logits_NK, targets_NK)
    pairs = {name: [100 * found[name] for found in scores] for name in ("mAP", "CF1", "OF1", "CF1@3", "OF1@3")}
    kept = [read_metrics(run) or {} for run in (folder, other)]
    for name in ("pointing_game", "cam_mass"):  # boxes are not among the predictions
        if all(f"test/{name}" in metrics for metrics in kept):
            pairs[name] = [float(metrics[f"test/{name}"]) for metrics in kept]
    rows = []
    for name, (mine, theirs) in pairs.items():
        interval = f" [{100 * low:+.2f}, {100 * high:+.2f}]" if name == "mAP" else ""
        rows.append([name, f"{mine:.2f}", f"{theirs:.2f}", f"{mine - theirs:+.2f}{interval}"])
    print_table(
        f"{folder}\nagainst {other}, on the same {len(targets_NK)} test pictures",
        ["", "run", "against", "difference [95 %]"],
        rows,
        caption="The interval says what other test pictures would change, and nothing about other seeds.",
    )
    print_table("Labels that differ most", ["AP", "positives", "run", "against", "difference"], _labels(first, second))


def _labels(first: Predictions, second: Predictions) -> list[list[str]]:
    """Return the labels that gained most, then those that lost most."""
    mine_K, theirs_K = (100 * scoring.average_precision(found.logits_NK, first.targets_NK) for found in (first, second))
    positives_K = np.sum(first.targets_NK == 1, axis=0)
    order = [k for k in np.argsort(theirs_K - mine_K, kind="stable") if positives_K[k]]
    shown = order if len(order) <= 2 * NUM_LABELS else [*order[:NUM_LABELS], *order[-NUM_LABELS:]]
    return [
        [
            str(first.labels_K[k]),
            str(positives_K[k]),
            f"{mine_K[k]:.2f}",
            f"{theirs_K[k]:.2f}",
            f"{mine_K[k] - theirs_K[k]:+.2f}",
        ]
        for k in shown
    ]
