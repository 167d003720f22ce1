"""Multi-label logits distillation: each label is a binary problem of its own."""

from functools import partial

from tutelage.multilabel.methods.logits.functional import mean_bernoulli_kl
from tutelage.multilabel.methods.matching import Matching
from tutelage.multilabel.methods.settings import positive


class Mld(Matching):
    """Σ_k KL(Bern σ(z_T/T) ‖ Bern σ(z_S/T))·T², mean over images (MLD of L2D, ICCV 2023, arXiv 2308.06453)."""

    labels = "multi"

    def __init__(self, *, temperature: float) -> None:
        """Choose T, 1 in the paper."""
        divergence = partial(mean_bernoulli_kl, temperature=positive("temperature", temperature))
        super().__init__("mld", view="logits_BK", divergence=divergence, reduction="sum_over_labels")
