"""Knowledge distillation of standardised logits."""

# B batch, K labels

from torch import Tensor

from tutelage.multilabel.methods.logits.functional import softmax_kl, standardised
from tutelage.multilabel.methods.logits.per_image import PerImage
from tutelage.multilabel.methods.settings import positive


class LogitStd(PerImage):
    """`method=kd` of (z − mean z) / std z, over the labels of an image (CVPR 2024, arXiv 2403.01427).

    The student need not reach the teacher's scale: only the relations between the labels count.
    """

    labels = "single"
    multi_label_counterpart = "dist"

    def __init__(self, *, temperature: float) -> None:
        """Choose T."""
        super().__init__()
        self.temperature = positive("temperature", temperature)

    def each(self, student_BK: Tensor, teacher_BK: Tensor, target_BK: Tensor, known_BK: Tensor) -> dict[str, Tensor]:
        student_BK = standardised(student_BK, counted_BK=known_BK)
        teacher_BK = standardised(teacher_BK, counted_BK=known_BK)
        return {"logit_std": softmax_kl(student_BK, teacher_BK, counted_BK=known_BK, temperature=self.temperature)}
