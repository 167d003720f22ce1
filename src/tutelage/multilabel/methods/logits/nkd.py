"""Normalised knowledge distillation."""

# B batch, K labels

from torch import Tensor

from tutelage.multilabel.methods.logits.functional import normalised_kd
from tutelage.multilabel.methods.logits.per_image import PerImage
from tutelage.multilabel.methods.settings import not_negative, positive


class Nkd(PerImage):
    """−p_T log p_S of the present label − γT²·Σ p̂_T log p̂_S of the others (NKD, ICCV 2023, arXiv 2303.13005).

    p̂ is the softmax of the others by themselves.

    Given several present labels, as with ``force_softmax``, each has a target term.
    """

    labels = "single"
    multi_label_counterpart = "ps"

    def __init__(self, *, gamma: float, temperature: float) -> None:
        """Choose.

        Args:
            gamma: Weight of the labels that are not present.
            temperature: T of their softmax; the present label's is at 1.
        """
        super().__init__()
        self.gamma, self.temperature = not_negative("gamma", gamma), positive("temperature", temperature)

    def each(self, student_BK: Tensor, teacher_BK: Tensor, target_BK: Tensor, known_BK: Tensor) -> dict[str, Tensor]:
        loss_B = normalised_kd(
            student_BK, teacher_BK, target_BK, counted_BK=known_BK, gamma=self.gamma, temperature=self.temperature
        )
        return {"nkd": loss_B}
