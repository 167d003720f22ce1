"""Decoupled knowledge distillation."""

# B batch, K labels

from torch import Tensor

from tutelage.multilabel.methods.logits.functional import decoupled_kl
from tutelage.multilabel.methods.logits.per_image import PerImage
from tutelage.multilabel.methods.settings import not_negative, positive


class Dkd(PerImage):
    """α·TCKD + β·NCKD: the two parts of `method=kd`, weighed apart (CVPR 2022, arXiv 2203.08679, eq. 7).

    Given several present labels, as with ``force_softmax``, they are taken for one class.
    """

    labels = "single"
    multi_label_counterpart = "mld"

    def __init__(self, *, alpha: float, beta: float, temperature: float) -> None:
        """Choose.

        Args:
            alpha: Weight of the present label against all others (TCKD).
            beta: Weight of the other labels among themselves (NCKD).
            temperature: T.
        """
        super().__init__()
        self.alpha, self.beta = not_negative("alpha", alpha), not_negative("beta", beta)
        self.temperature = positive("temperature", temperature)

    def each(self, student_BK: Tensor, teacher_BK: Tensor, target_BK: Tensor, known_BK: Tensor) -> dict[str, Tensor]:
        target_B, other_B = decoupled_kl(
            student_BK, teacher_BK, target_BK, counted_BK=known_BK, temperature=self.temperature
        )
        return {"tckd": self.alpha * target_B, "nckd": self.beta * other_B}
