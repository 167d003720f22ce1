"""The card of a run: what one mean does not show. Where it ranks well, how sure it is, and how near to its teacher."""

# N pictures, K labels, B bins

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.multilabel.data.source import IGNORED, PRESENT, Boxes
from tutelage.multilabel.metrics import Floats, average_precision

FREQUENCIES = ("rare", "middle", "frequent")
SIZES = ("small", "medium", "large")
NUM_BINS = 15  # Guo et al.
PROTOCOLS = {
    "mAP_rare, mAP_middle, mAP_frequent": "mAP over a third of the labels each, by their number of training positives",
    "mAP_small, mAP_medium, mAP_large": "mAP with the positives of one size alone, the others ignored; its size "
    "is the area of its label's largest box, and the sizes are thirds of the split's positives",
    "ECE": f"expected calibration error over all (picture, label) pairs, {NUM_BINS} bins of equal width "
    "(Guo et al., ICML 2017)",
    "fidelity_kl": "KL divergence of the student's Bernoulli distributions from the teacher's, nats a label, mean",
    "rank_agreement": "Spearman's rank correlation of student and teacher over the pictures, mean over labels",
}

Array = NDArray[np.float64]
Targets = NDArray[np.int8]


def ap_by_frequency(ap_K: Array, train_positives_K: NDArray[np.int64]) -> dict[str, float]:
    """Mean AP of the labels with the fewest, the middle and the most training positives, a third of the labels each.

    LVIS (CVPR 2019) parts its categories so, by fixed counts; thirds say something about any data set. Labels without
    AP are in no mean, and a third without any is left out.
    """
    thirds = np.array_split(np.argsort(train_positives_K, kind="stable"), 3)
    return {name: float(np.nanmean(ap_K[third])) for name, third in zip(FREQUENCIES, thirds, strict=True)
            if (~np.isnan(ap_K[third])).any()}  # fmt: skip


def ap_by_size(logits_NK: Floats, targets_NK: Targets, area_NK: Array) -> dict[str, float]:
    """Mean AP with the positives of one size alone; as in COCO's AP by area, positives of another size are ignored.

    Args:
        logits_NK: Scores.
        targets_NK: 1 present, 0 absent, −1 ignored.
        area_NK: Of the largest box of a label in a picture, as a share of the picture; nan where it has none.

    Returns:
        For each third of the positives by their area, the mean over the labels that have such; empty without boxes.
    """
    present_NK = targets_NK == PRESENT
    known = area_NK[present_NK & ~np.isnan(area_NK)]
    if known.size < len(SIZES):
        return {}
    edges = [-np.inf, *np.quantile(known, [1 / 3, 2 / 3]), np.inf]
    found = {}
    for name, low, high in zip(SIZES, edges[:-1], edges[1:], strict=True):
        of_size_NK = present_NK & (area_NK > low) & (area_NK <= high)
        kept_NK = np.where(present_NK & ~of_size_NK, IGNORED, targets_NK).astype(np.int8)
        ap_K = average_precision(logits_NK, kept_NK)
        if (~np.isnan(ap_K)).any():
            found[name] = float(np.nanmean(ap_K))
    return found


def largest_areas(boxes: Sequence[Boxes | None], num_labels: int) -> Array:
    """Return the area of the largest box of each label in each picture, as a share of the picture; nan without one."""
    area_NK = np.full((len(boxes), num_labels), np.nan)
    for n, found in enumerate(boxes):
        if found is not None:
            width_M, height_M = (found.xyxy_N4[:, 2:] - found.xyxy_N4[:, :2]).T
            np.fmax.at(area_NK[n], found.labels_N, (width_M * height_M).astype(np.float64))
    return area_NK


class Reliability(NamedTuple):
    """How often a label is there where the network gives it a probability; bins of equal width from 0 to 1."""

    probability_B: Array  # mean of the bin; nan where it is empty
    share_B: Array  # of its pairs, how many are present; nan where it is empty
    count_B: NDArray[np.int64]

    @property
    def ece(self) -> float:
        """Expected calibration error: Σ_b n_b/n · |share_b − probability_b| (Guo et al., ICML 2017, eq. 3)."""
        gap_B = np.abs(np.nan_to_num(self.share_B) - np.nan_to_num(self.probability_B))
        return float(np.sum(self.count_B * gap_B) / max(self.count_B.sum(), 1))


def reliability(logits_NK: Floats, targets_NK: Targets, *, bins: int = NUM_BINS) -> Reliability:
    """Part all (picture, label) pairs that are known by the probability that the network gives."""
    known_NK = targets_NK != IGNORED
    probability_M = probabilities(logits_NK[known_NK])
    present_M = targets_NK[known_NK] == PRESENT
    bin_M = np.minimum((probability_M * bins).astype(int), bins - 1)
    count_B = np.bincount(bin_M, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            np.bincount(bin_M, weights=probability_M, minlength=bins) / count_B,
            np.bincount(bin_M, weights=present_M.astype(float), minlength=bins) / count_B,
            count_B,
        )


def probabilities(logits: NDArray[np.floating]) -> Array:
    """Return sigmoids in double precision."""
    return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))


def bernoulli_kl(teacher_NK: Floats, student_NK: Floats) -> float:
    """Mean of KL(Bern σ(z_T) ‖ Bern σ(z_S)) over all pictures and labels, in nats (`method=mld` at T = 1)."""
    teacher_NK, student_NK = teacher_NK.astype(np.float64), student_NK.astype(np.float64)
    p_NK = probabilities(teacher_NK)
    # log σ(z) = −softplus(−z): p·(log p − log q) + (1 − p)·(log(1 − p) − log(1 − q))
    there_NK = np.logaddexp(0, -student_NK) - np.logaddexp(0, -teacher_NK)
    away_NK = np.logaddexp(0, student_NK) - np.logaddexp(0, teacher_NK)
    return float(np.mean(p_NK * there_NK + (1 - p_NK) * away_NK))


def rank_agreement(teacher_NK: Floats, student_NK: Floats) -> float:
    """Spearman's rank correlation over the pictures, mean over labels: what AP ranks; equal scores share a rank.

    nan where no label has two different scores in both.
    """
    found = []
    for of_teacher_N, of_student_N in zip(teacher_NK.T, student_NK.T, strict=True):
        teacher_N, student_N = _centred_ranks(of_teacher_N), _centred_ranks(of_student_N)
        scale = float(np.sqrt((teacher_N**2).sum() * (student_N**2).sum()))
        if scale > 0:
            found.append(float((teacher_N * student_N).sum()) / scale)
    return float(np.mean(found)) if found else float("nan")


def _centred_ranks(score_N: NDArray[np.floating]) -> Array:
    _, place_N, count = np.unique(score_N, return_inverse=True, return_counts=True)
    rank_N: Array = (np.cumsum(count) - (count - 1) / 2)[place_N]
    centred_N: Array = rank_N - rank_N.mean()
    return centred_N


def card(
    logits_NK: Floats,
    targets_NK: Targets,
    *,
    train_positives_K: NDArray[np.int64],
    boxes: Sequence[Boxes | None],
    teacher_NK: Floats | None = None,
) -> dict[str, float]:
    """Return the card's numbers by name: percent, but ``fidelity_kl`` in nats.

    Args:
        logits_NK: Of the scored split.
        targets_NK: Likewise.
        train_positives_K: Of each label.
        boxes: Of each scored picture.
        teacher_NK: The teacher's logits of the same pictures.
    """
    ap_K = average_precision(logits_NK, targets_NK)
    area_NK = largest_areas(boxes, targets_NK.shape[1])
    parts = ap_by_frequency(ap_K, train_positives_K) | ap_by_size(logits_NK, targets_NK, area_NK)
    found = {f"mAP_{name}": 100 * value for name, value in parts.items()}
    found["ECE"] = 100 * reliability(logits_NK, targets_NK).ece
    if teacher_NK is not None:
        found["fidelity_kl"] = bernoulli_kl(teacher_NK, logits_NK)
        if not np.isnan(agreement := rank_agreement(teacher_NK, logits_NK)):
            found["rank_agreement"] = 100 * agreement
    return found
