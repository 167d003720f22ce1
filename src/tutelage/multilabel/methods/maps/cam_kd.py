"""Distillation of class activation maps (CAMs).

"Knowledge Distillation from Single to Multi Labels: an Empirical Study" (arXiv 2303.08360) proposes it; no code of
its authors is known and only its abstract could be read. What stands here is our reconstruction:

    L = (1/|Ω|) Σ_{(i,k) ∈ Ω} D(CAM^S_ik, CAM^T_ik)

Student and teacher have a map for each label, so neither needs an adaptor; they only need a common grid.
"""

from typing import Literal

from torch import Tensor

from tutelage.core.errors import ConfigError
from tutelage.multilabel.methods.maps.functional import absolute_error, cosine_distance, split_mse, squared_error
from tutelage.multilabel.methods.maps.heads import require_mean_is_logit
from tutelage.multilabel.methods.matching import (
    EVERY_LABEL,
    POSITIVES,
    TEACHER_PROBABILITY,
    Divergence,
    Matching,
    Support,
    teacher_above,
    teacher_top,
)
from tutelage.multilabel.methods.method import DataInfo
from tutelage.multilabel.methods.settings import not_negative, positive
from tutelage.multilabel.networks.network import Network

SupportName = Literal["all", "positives", "teacher_top", "teacher_above", "teacher_probability"]


class CamKd(Matching):
    """mean (CAM_S − CAM_T)² over images, labels and places, or another D over Ω (arXiv 2303.08360, reconstructed)."""

    labels = "multi"

    def __init__(
        self,
        *,
        divergence: Literal["mse", "l1", "cosine"],
        logit_weight: float,
        spatial_weight: float,
        support: SupportName,
        top_k: int,
        threshold: float,
    ) -> None:
        """Choose D and Ω.

        Maps pooled to a coarse grid are `method=cat_kd`, spatial softmaxes `method=cwd`.

        Args:
            divergence: D. ``cosine`` is the MSE of maps that are divided by their norm (CAT-KD) times half the number
                of places; with ``support=all`` it gives absent labels full weight, which is mostly noise.
            logit_weight: In the MSE, weight of the squared difference of the maps' means, which is the logits' (biases
                aside).
            spatial_weight: Weight of what remains of the MSE, the variance of the difference over space.
                Together they test the paper's thesis: logits alone do not carry what maps do.
            support: Ω, the (image, label) pairs that count; ``teacher_probability`` takes all, each as much as the
                teacher believes in it.
            top_k: Of ``support=teacher_top``.
            threshold: Of ``support=teacher_above``.

        Raises:
            ConfigError: A value out of its range, or weights for a divergence that does not split.
        """
        self.split = (logit_weight, spatial_weight) != (1.0, 1.0)
        if self.split and divergence != "mse":
            raise ConfigError(
                "method.logit_weight",
                "only the MSE splits into a logit and a spatial part",
                "use divergence=mse, or leave both weights at 1",
            )
        if not 0 <= threshold < 1:
            raise ConfigError("method.threshold", f"{threshold} is no probability below 1", "give a number in [0, 1)")
        supports: dict[SupportName, Support] = {
            "all": EVERY_LABEL,
            "positives": POSITIVES,
            "teacher_top": teacher_top(positive("top_k", top_k)),
            "teacher_above": teacher_above(threshold),
            "teacher_probability": TEACHER_PROBABILITY,
        }
        logit_weight = not_negative("logit_weight", logit_weight)
        spatial_weight = not_negative("spatial_weight", spatial_weight)

        def weighted_mse(student_BKP: Tensor, teacher_BKP: Tensor) -> Tensor:
            logit_BK, spatial_BK = split_mse(student_BKP - teacher_BKP)
            return logit_weight * logit_BK + spatial_weight * spatial_BK

        mse = weighted_mse if self.split else squared_error
        divergences: dict[str, Divergence] = {"mse": mse, "l1": absolute_error, "cosine": cosine_distance}
        super().__init__("cam", view="cams_BKHW", divergence=divergences[divergence], support=supports[support])

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        if self.split:
            require_mean_is_logit(student, teacher, key="logit_weight")
        return super().setup(student, teacher, data)
