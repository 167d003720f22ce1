"""A threshold for each label, tuned on the selection split and kept with the run."""

# N images, K labels

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.core.results import read_json, write_json

THRESHOLDS = "thresholds.json"
DEFAULT = 0.5


def tune_thresholds(
    logits_NK: NDArray[np.float32], targets_NK: NDArray[np.int8], *, default: float = DEFAULT, least_positives: int = 5
) -> NDArray[np.float32]:
    """Choose for each label the probability above which F1 is best.

    The threshold lies half-way between two neighbouring probabilities, so that it does not hang on one image's last
    digit. Of several best thresholds the one nearest to the default is taken.

    Args:
        logits_NK: Of the selection split, never of the test split.
        targets_NK: 1 present, 0 absent, −1 ignored.
        default: For labels with fewer than ``least_positives`` positives, whose best threshold would be noise.
        least_positives: See ``default``.

    Returns:
        thresholds_K, each in (0, 1).
    """
    thresholds_K = np.full(logits_NK.shape[1], default, np.float32)
    for k in range(logits_NK.shape[1]):
        known_N = targets_NK[:, k] >= 0
        positive_N = targets_NK[known_N, k] == 1
        if positive_N.sum() < least_positives:
            continue
        probability_N = 1 / (1 + np.exp(-logits_NK[known_N, k].astype(np.float64)))
        order_N = np.argsort(-probability_N, kind="stable")
        sorted_N = probability_N[order_N]
        hits_N = np.cumsum(positive_N[order_N])
        f1_N = 2 * hits_N / (np.arange(1, len(hits_N) + 1) + positive_N.sum())
        cut_N = np.append((sorted_N[:-1] + sorted_N[1:]) / 2, sorted_N[-1] / 2)
        f1_N[:-1][sorted_N[:-1] == sorted_N[1:]] = -1  # no threshold parts equal scores
        best = np.flatnonzero(f1_N >= f1_N.max() - 1e-12)
        thresholds_K[k] = cut_N[best[np.argmin(np.abs(cut_N[best] - default))]]
    return np.clip(thresholds_K, 1e-6, 1 - 1e-6)


def write_thresholds(run: Path, *, labels: tuple[str, ...], thresholds_K: NDArray[np.float32]) -> None:
    """Keep thresholds with a run."""
    write_json(run / THRESHOLDS, dict(zip(labels, (round(float(value), 6) for value in thresholds_K), strict=True)))


def read_thresholds(run: Path, *, labels: tuple[str, ...]) -> NDArray[np.float32]:
    """Return the run's thresholds in the order of ``labels``; 0.5 for each where none were kept."""
    if not (run / THRESHOLDS).is_file():
        return np.full(len(labels), DEFAULT, np.float32)
    kept = read_json(run / THRESHOLDS)
    return np.array([kept.get(label, DEFAULT) for label in labels], np.float32)
