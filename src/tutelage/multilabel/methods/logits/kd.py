"""Classical knowledge distillation: softened softmaxes."""

# B batch, K labels

from torch import Tensor

from tutelage.multilabel.methods.logits.functional import softmax_kl
from tutelage.multilabel.methods.logits.per_image import PerImage
from tutelage.multilabel.methods.settings import positive


class Kd(PerImage):
    """T²·KL(softmax(z_T/T) ‖ softmax(z_S/T)), mean over images (Hinton et al., 2015, arXiv 1503.02531)."""

    labels = "single"
    multi_label_counterpart = "mld"

    def __init__(self, *, temperature: float) -> None:
        """Choose T."""
        super().__init__()
        self.temperature = positive("temperature", temperature)

    def each(self, student_BK: Tensor, teacher_BK: Tensor, target_BK: Tensor, known_BK: Tensor) -> dict[str, Tensor]:
        return {"kd": softmax_kl(student_BK, teacher_BK, counted_BK=known_BK, temperature=self.temperature)}
