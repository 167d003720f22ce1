"""Distillation of class activation maps (CAMs).

"Knowledge Distillation from Single to Multi Labels: an Empirical Study" (arXiv 2303.08360) proposes it; no code of
its authors is known and only its abstract could be read. What stands here is our reconstruction:

    L = (1/|Ω|) Σ_{(i,k) ∈ Ω} D(φ(CAM^S_ik), φ(CAM^T_ik))

Student and teacher have a map for each label, so neither needs an adaptor; they only need a common grid.
The closest published code is CAT-KD's (CVPR 2023): pooled maps, MSE, L2 over space for unlike architectures.
"""

# B batch, K labels, H W map, r common grid, P = H·W places

import warnings
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.core.distributed import global_mean
from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.method import Method
from tutelage.multilabel.networks.output import NetOutput

Transform = Literal["identity", "relu", "l2", "min_max", "softmax"]
Distance = Literal["mse", "l1", "kl", "cosine"]
Region = Literal["all", "positives", "teacher_top_k", "teacher_above"]


class CamKD(Method):
    """Class activation map distillation (arXiv 2303.08360, reconstructed)."""

    student_reads = frozenset({"cams_BKHW"})
    teacher_reads = frozenset({"logits_BK", "cams_BKHW"})
    labels = "multi"

    def __init__(
        self,
        *,
        transform: Transform = "identity",
        distance: Distance = "mse",
        region: Region = "all",
        grid: int | None = None,
        temperature: float = 1.0,
        top_k: int = 3,
        threshold: float = 0.5,
        weigh_by_teacher: bool = False,
        logit_weight: float = 1.0,
        spatial_weight: float = 1.0,
    ) -> None:
        """Choose φ, D and Ω.

        Args:
            transform: φ, applied to each map. ``l2`` divides a map by its norm over space (CAT-KD), ``softmax`` is
                over space (CWD, arXiv 2011.13256).
            distance: D, a mean over places; ``kl`` needs ``transform=softmax``.
            region: Ω, the (image, label) pairs that count.
            grid: Side of the common grid; None takes the coarser of the two maps.
            temperature: τ of the spatial softmax; the loss is multiplied by τ².
            top_k: For ``region=teacher_top_k``.
            threshold: Teacher probability, for ``region=teacher_above``.
            weigh_by_teacher: Weigh each pair by the teacher's probability.
            logit_weight: Weight of the squared difference of the maps' means, which is the logits' (biases aside).
            spatial_weight: Weight of what remains of the MSE, the variance of the difference over space.
                Together they test the paper's thesis: logits alone do not carry what maps do.

        Raises:
            ConfigError: A combination that has no meaning.
        """
        super().__init__()
        if (distance == "kl") != (transform == "softmax"):
            raise ConfigError(
                "method.distance",
                f"transform={transform} with distance={distance}: kl compares distributions over space",
                "use transform=softmax with distance=kl, or neither",
            )
        if (logit_weight, spatial_weight) != (1.0, 1.0) and (transform, distance) != ("identity", "mse"):
            raise ConfigError(
                "method.logit_weight",
                "only the MSE of untransformed maps splits into a logit and a spatial part",
                "use transform=identity distance=mse, or leave both weights at 1",
            )
        if transform == "l2" and region == "all" and not weigh_by_teacher:
            warnings.warn(
                "method: transform=l2 gives maps of absent labels full weight, which is mostly noise; "
                "take region=positives or weigh_by_teacher=true",
                stacklevel=2,
            )
        self.transform, self.distance, self.region = transform, distance, region
        self.grid, self.temperature = grid, temperature
        self.top_k, self.threshold, self.weigh_by_teacher = top_k, threshold, weigh_by_teacher
        self.logit_weight, self.spatial_weight = logit_weight, spatial_weight

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        assert student.cams_BKHW is not None and teacher.cams_BKHW is not None
        # Squares of half-precision maps lose the small differences that are the signal late in training.
        student_BKP, teacher_BKP = on_common_grid(student.cams_BKHW.float(), teacher.cams_BKHW.float(), grid=self.grid)
        distance_BK = self._distances(self._transformed(student_BKP), self._transformed(teacher_BKP))
        weights_BK = self._region_weights(teacher.logits_BK.float(), batch.target_BK)
        return {"cam": global_mean(distance_BK, weights_BK * (batch.index_B >= 0)[:, None])}

    def _transformed(self, cams_BKP: Tensor) -> Tensor:
        match self.transform:
            case "identity":
                return cams_BKP
            case "relu":
                return cams_BKP.relu()
            case "l2":
                return F.normalize(cams_BKP, dim=-1)
            case "min_max":
                low_BK1, high_BK1 = cams_BKP.amin(-1, keepdim=True), cams_BKP.amax(-1, keepdim=True)
                return (cams_BKP - low_BK1) / (high_BK1 - low_BK1).clamp(min=1e-6)
            case "softmax":
                return (cams_BKP / self.temperature).log_softmax(-1)

    def _distances(self, student_BKP: Tensor, teacher_BKP: Tensor) -> Tensor:
        difference_BKP = student_BKP - teacher_BKP
        match self.distance:
            case "mse":
                logit_BK, spatial_BK = split_mse(difference_BKP)
                return self.logit_weight * logit_BK + self.spatial_weight * spatial_BK
            case "l1":
                return difference_BKP.abs().mean(-1)
            case "kl":  # both are log-probabilities over space
                return self.temperature**2 * (teacher_BKP.exp() * -difference_BKP).sum(-1)
            case "cosine":
                return 1 - F.cosine_similarity(student_BKP, teacher_BKP, dim=-1)

    def _region_weights(self, teacher_logits_BK: Tensor, target_BK: Tensor) -> Tensor:
        match self.region:
            case "all":
                weights_BK = torch.ones_like(teacher_logits_BK)
            case "positives":
                weights_BK = (target_BK == 1).float()
            case "teacher_top_k":
                best_Bk = teacher_logits_BK.topk(min(self.top_k, teacher_logits_BK.shape[1]), dim=1).indices
                weights_BK = torch.zeros_like(teacher_logits_BK).scatter_(1, best_Bk, 1.0)
            case "teacher_above":
                weights_BK = (teacher_logits_BK.sigmoid() > self.threshold).float()
        return weights_BK * teacher_logits_BK.sigmoid() if self.weigh_by_teacher else weights_BK


def split_mse(difference_BKP: Tensor) -> tuple[Tensor, Tensor]:
    """Split a mean square over space into the square of the mean and the variance.

    mean_p Δ² = (mean_p Δ)² + Var_p Δ. For CAMs of linear GAP heads the mean of Δ is the difference of the logits
    less that of the biases: the first term is logit distillation, the second is purely spatial.
    """
    mean_BK1 = difference_BKP.mean(-1, keepdim=True)
    return mean_BK1.squeeze(-1).square(), (difference_BKP - mean_BK1).square().mean(-1)


def on_common_grid(a_BKHW: Tensor, b_BKHW: Tensor, *, grid: int | None) -> tuple[Tensor, Tensor]:
    """Pool two sets of maps to one grid, flattened to [B, K, P].

    Args:
        a_BKHW: One set.
        b_BKHW: The other; its H and W may differ.
        grid: Side of the grid; None takes the smaller height and the smaller width.
    """
    if grid is None:
        size = (min(a_BKHW.shape[2], b_BKHW.shape[2]), min(a_BKHW.shape[3], b_BKHW.shape[3]))
    else:
        size = (grid, grid)
    a_BKrr, b_BKrr = (
        cams if cams.shape[2:] == size else F.adaptive_avg_pool2d(cams, size) for cams in (a_BKHW, b_BKHW)
    )
    return a_BKrr.flatten(2), b_BKrr.flatten(2)
