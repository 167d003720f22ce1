"""Multi-label logits distillation at a temperature below 1."""

from functools import partial

from tutelage.core.errors import ConfigError
from tutelage.multilabel.methods.logits.functional import mean_bernoulli_kl
from tutelage.multilabel.methods.matching import Matching
from tutelage.multilabel.methods.settings import positive


class Tld(Matching):
    """Σ_k KL(Bern σ(z_T/T) ‖ Bern σ(z_S/T))·T² at T < 1, mean over images (TLD).

    `method=mld` otherwise. From "Unleashing the Potential of Temperature Scaling for Multi-Label Logit Distillation": a
    softmax is softened, T > 1, to show what is below its maximum. Sigmoids show all labels as they are: sharpening
    them lets those near the boundary weigh more. Known from reviews of the paper only.
    """

    labels = "multi"

    def __init__(self, *, temperature: float) -> None:
        """Choose T.

        Raises:
            ConfigError: T is not in (0, 1).
        """
        if positive("temperature", temperature) >= 1:
            raise ConfigError("method.temperature", f"{temperature} is not below 1", "that is method=mld")
        divergence = partial(mean_bernoulli_kl, temperature=temperature)
        super().__init__("tld", view="logits_BK", divergence=divergence, reduction="sum_over_labels")
