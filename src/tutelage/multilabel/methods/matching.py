"""The methods that differ only in what they look at, how far it is off, which labels count and how they are averaged.

    loss = average over (image, label) of weight · divergence(view of the student, view of the teacher)

Such a method is a class whose constructor chooses the four. Divergences are functions of `logits/functional.py` and
`maps/functional.py`; supports, which say what counts, are here.
"""

# B batch, K labels (or the L chosen ones of each image), H W map, P places

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tutelage.core.distributed import global_mean
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.maps.functional import on_common_grid
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import known_labels, weighted_label_sum
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput

# The field of NetOutput that is compared. Logits are maps of one place.
View = Literal["logits_BK", "cams_BKHW", "label_cams", "grad_cams"]
# How far two views [B, K, P] are apart: [B, K].
Divergence = Callable[[Tensor, Tensor], Tensor]


class Support(NamedTuple):
    """Which (image, label) pairs count. Labels that are not known never do.

    Attributes:
        weigh: Teacher's logits [B, K] and targets [B, K] → weights [B, K].
        most: The most labels of one image that have a weight; None: all may have.
    """

    weigh: Callable[[Tensor, Tensor], Tensor]
    most: Callable[[DataInfo], int] | None = None


EVERY_LABEL = Support(lambda teacher_BK, target_BK: torch.ones_like(teacher_BK))
POSITIVES = Support(lambda teacher_BK, target_BK: (target_BK == 1).to(teacher_BK), lambda data: data.max_positives)
# Every label, as much as the teacher believes in it.
TEACHER_PROBABILITY = Support(lambda teacher_BK, target_BK: teacher_BK.sigmoid())


def teacher_above(threshold: float) -> Support:
    """The labels that the teacher gives a probability above a threshold."""
    return Support(lambda teacher_BK, target_BK: (teacher_BK.sigmoid() > threshold).to(teacher_BK))


def teacher_top(k: int) -> Support:
    """The k labels of each image that the teacher believes in most."""

    def weigh(teacher_BK: Tensor, target_BK: Tensor) -> Tensor:
        best_BL = teacher_BK.topk(min(k, teacher_BK.shape[1]), dim=1).indices
        return torch.zeros_like(teacher_BK).scatter_(1, best_BL, 1.0)

    return Support(weigh, lambda data: k)


class Matching(Method):
    """Brings a view of the student near the same view of the teacher."""

    # Maps of chosen labels are made where there are so many times more labels than can be chosen. With few labels
    # nothing is gained; with 9,605 a step takes half the time (benchmarks/results/methods_maps.md).
    CHOOSE_FROM = 8

    def __init__(
        self,
        name: str,
        *,
        view: View,
        divergence: Divergence,
        support: Support = EVERY_LABEL,
        reduction: Literal["mean", "sum_over_labels"] = "mean",
        grid: int | None = None,
    ) -> None:
        """Choose.

        Args:
            name: Of the loss.
            view: What is compared.
            divergence: How far apart.
            support: Which labels count.
            reduction: ``mean`` over the pairs that count, or ``sum_over_labels`` of an image and mean over images.
            grid: Side of the grid that both views are pooled to; None takes the coarser of the two.
        """
        super().__init__()
        self.name, self.divergence, self.support = name, divergence, support
        self.reduction, self.grid = reduction, grid
        self.positives_only = support is POSITIVES
        self.most: int | None = None
        self._look_at(student=view, teacher=view)

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        if self.student_view == "cams_BKHW" and self.support.most is not None:
            most = self.support.most(data)
            if self.CHOOSE_FROM * most <= len(data.label_names):
                self.most = most
                self._look_at(student="label_cams", teacher="label_cams")
        return None

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        weight_BK, labels_BL = self.choose(teacher.logits_BK, batch)
        # Squares of half-precision maps lose the small differences that are the signal late in training.
        views = _show(student, self.student_view, labels_BL), _show(teacher, self.teacher_view, labels_BL)
        student_BKP, teacher_BKP = on_common_grid(views[0].float(), views[1].float(), grid=self.grid)
        distance_BK = self.divergence(student_BKP, teacher_BKP)
        if self.reduction == "mean":
            return {self.name: global_mean(distance_BK, weight_BK)}
        return {self.name: weighted_label_sum(distance_BK, weight_BK, batch)}

    def choose(self, teacher_logits_BK: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Choose the labels whose maps are made, before they are.

        Returns:
            The labels' weights, and the labels [B, L]. Where maps of all are made: all weights [B, K], and None.
        """
        weight_BK = self.support.weigh(teacher_logits_BK.float(), batch.target_BK) * known_labels(batch)
        if self.most is None:
            return weight_BK, None
        weight_BL, labels_BL = weight_BK.topk(min(self.most, weight_BK.shape[1]), dim=1)
        return weight_BL, labels_BL

    def _look_at(self, *, student: View, teacher: View) -> None:
        self.student_view, self.teacher_view = student, teacher
        self.student_reads = frozenset({student})
        self.teacher_reads = frozenset({teacher, "logits_BK"})


def _show(output: NetOutput, view: View, labels_BL: Tensor | None) -> Tensor:
    match view:
        case "logits_BK":
            return output.logits_BK[:, :, None, None]
        case "cams_BKHW":
            assert output.cams_BKHW is not None
            return output.cams_BKHW
        case "label_cams":
            assert labels_BL is not None
            return output.chosen_cams(labels_BL)
        case "grad_cams":
            assert labels_BL is not None and output.grad_cams is not None
            return output.grad_cams(labels_BL)
