"""Balanced distillation of present and absent labels."""

# B batch, K labels

from torch import Tensor

from tutelage.core.errors import ConfigError
from tutelage.multilabel.methods.logits.functional import balanced_kl
from tutelage.multilabel.methods.logits.per_image import PerImage
from tutelage.multilabel.methods.settings import not_negative, positive


class Mbd(PerImage):
    """T²·Σ_k w_k·p_k·log(p_k / q_k) of partial softmaxes p of teacher, q of student (MBD of MSKD, AAAI 2025).

    The weight w is the distance of the student from a mixture of teacher and label, to a power. This is MSKD's loss
    alone, with a teacher; MSKD is self-distillation with three losses around it.
    """

    labels = "multi"

    def __init__(self, *, omega: float, gamma_present: float, gamma_absent: float, temperature: float) -> None:
        """Choose.

        Args:
            omega: The teacher's share of the mixture, in [0, 1]; the label has the rest.
            gamma_present: Exponent of the distance for present labels. Far below the other: they keep their weight.
            gamma_absent: For absent labels, of which there are many.
            temperature: T.

        Raises:
            ConfigError: A value out of its range.
        """
        super().__init__()
        if not 0 <= omega <= 1:
            raise ConfigError("method.omega", f"{omega} is no share", "give a number in [0, 1]")
        self.omega, self.temperature = omega, positive("temperature", temperature)
        self.gamma_present = not_negative("gamma_present", gamma_present)
        self.gamma_absent = not_negative("gamma_absent", gamma_absent)

    def each(self, student_BK: Tensor, teacher_BK: Tensor, target_BK: Tensor, known_BK: Tensor) -> dict[str, Tensor]:
        loss_B = balanced_kl(
            student_BK,
            teacher_BK,
            target_BK,
            counted_BK=known_BK,
            temperature=self.temperature,
            omega=self.omega,
            gamma_present=self.gamma_present,
            gamma_absent=self.gamma_absent,
        )
        return {"mbd": loss_B}
