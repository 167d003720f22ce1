"""Partial softmax: each present label against the absent ones."""

# B batch, K labels

from torch import Tensor

from tutelage.multilabel.methods.logits.functional import partial_softmax_kl
from tutelage.multilabel.methods.logits.per_image import PerImage


class Ps(PerImage):
    """Σ_j KL of the softmaxes over {j} ∪ absent labels, over present j, mean over images (a baseline of L2D)."""

    labels = "multi"

    def each(self, student_BK: Tensor, teacher_BK: Tensor, target_BK: Tensor, known_BK: Tensor) -> dict[str, Tensor]:
        return {"ps": partial_softmax_kl(student_BK, teacher_BK, target_BK, counted_BK=known_BK)}
