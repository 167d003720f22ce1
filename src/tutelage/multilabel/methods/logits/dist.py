"""Distillation from a stronger teacher: correlations instead of values."""

# B batch, K labels; G the batch of all processes

from torch import Tensor

from tutelage.core.distributed import gather_rows
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.logits.functional import pearson_distance
from tutelage.multilabel.methods.method import Method
from tutelage.multilabel.methods.reductions import known_labels
from tutelage.multilabel.methods.settings import not_negative, positive
from tutelage.multilabel.networks.output import NetOutput


class Dist(Method):
    """β·(1 − ρ over the labels of an image) + γ·(1 − ρ over the images of a label), ·τ² (DIST, NeurIPS 2022).

    ρ is Pearson's correlation of σ(z/τ); the paper (arXiv 2205.10536), made for single labels, has a
    softmax there. Columns are of the global batch. An image or a label with fewer than two known entries counts in
    neither.
    """

    student_reads = frozenset({"logits_BK"})
    teacher_reads = frozenset({"logits_BK"})
    labels = "any"

    def __init__(self, *, beta: float, gamma: float, temperature: float) -> None:
        """Choose.

        Args:
            beta: Weight of the correlation between the labels of an image.
            gamma: Weight of the correlation between the images of a label.
            temperature: τ.
        """
        super().__init__()
        self.beta, self.gamma = not_negative("beta", beta), not_negative("gamma", gamma)
        self.temperature = positive("temperature", temperature)

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        student_GK = gather_rows((student.logits_BK.float() / self.temperature).sigmoid())
        teacher_GK = gather_rows((teacher.logits_BK.float() / self.temperature).sigmoid())
        known_GK = gather_rows(known_labels(batch))
        return {
            name: weight * self.temperature**2 * _mean_distance(student_GK, teacher_GK, known_GK, dim=dim)
            for name, weight, dim in (("inter", self.beta, 1), ("intra", self.gamma, 0))
        }


def _mean_distance(student_GK: Tensor, teacher_GK: Tensor, known_GK: Tensor, *, dim: int) -> Tensor:
    distance, defined = pearson_distance(student_GK, teacher_GK, counted=known_GK, dim=dim)
    return distance.masked_fill(~defined, 0).sum() / defined.sum().clamp(min=1)
