"""Task losses of independent labels. A target of −1 is ignored; all arithmetic is in fp32."""

# B batch, K labels

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutelage.core.distributed import global_mean, global_sum
from tutelage.core.errors import ConfigError

Reduction = Literal["mean", "sum"]


class TaskLoss(nn.Module, ABC):
    """A loss of each (image, label), reduced over those that are not ignored.

    Attributes:
        reduction: ``mean``, or ``sum`` over batch and labels as in L2D and ASL, where the loss, and with SGD the
            step, grows with the batch. Both are over the batches of all processes; batches that
            ``trainer.accumulate_grad_batches`` gathers are averaged.
    """

    def __init__(self, *, reduction: Reduction) -> None:
        super().__init__()
        self.reduction = reduction

    @abstractmethod
    def each(self, logits_BK: Tensor, positive_BK: Tensor) -> Tensor:
        """Return the loss [B, K] of fp32 logits, where ``positive_BK`` says which labels are present."""

    def forward(self, logits_BK: Tensor, target_BK: Tensor) -> Tensor:
        """Reduce to a scalar. A batch in which all is ignored costs nothing.

        Args:
            logits_BK: Of any float type.
            target_BK: 1 present, 0 absent, −1 ignored.
        """
        counted_BK = target_BK >= 0
        loss_BK = self.each(logits_BK.float(), target_BK > 0)
        reduce = global_mean if self.reduction == "mean" else global_sum
        return reduce(loss_BK, counted_BK)


class Bce(TaskLoss):
    """Binary cross-entropy."""

    def each(self, logits_BK: Tensor, positive_BK: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits_BK, positive_BK.float(), reduction="none")


class Focal(TaskLoss):
    """Focal loss (Lin et al., ICCV 2017) without its class weight: (1 − p_t)^γ · BCE, whose weight carries gradient."""

    def __init__(self, *, reduction: Reduction, gamma: float) -> None:
        super().__init__(reduction=reduction)
        _at_least("loss.gamma", gamma, 0)
        self.gamma = gamma

    def each(self, logits_BK: Tensor, positive_BK: Tensor) -> Tensor:
        towards_BK = torch.where(positive_BK, logits_BK, -logits_BK)
        # p_t = σ(towards), so 1 − p_t = σ(−towards), without cancellation.
        return -(torch.sigmoid(-towards_BK) ** self.gamma) * functional.logsigmoid(towards_BK)


class Asl(TaskLoss):
    """Asymmetric loss (Ridnik et al., ICCV 2021, arXiv 2009.14119).

    −y (1 − p)^γ₊ log p − (1 − y) p_m^γ₋ log(1 − p_m), with p_m = max(p − margin, 0). As in its code, the focal weights
    carry no gradient.
    """

    def __init__(self, *, reduction: Reduction, gamma_positive: float, gamma_negative: float, margin: float) -> None:
        super().__init__(reduction=reduction)
        _at_least("loss.gamma_positive", gamma_positive, 0)
        _at_least("loss.gamma_negative", gamma_negative, 0)
        if not 0 <= margin < 1:
            raise ConfigError(
                "loss.margin", f"{margin} is not in [0, 1)", "give the amount by which probabilities are shifted"
            )
        self.gamma_positive = gamma_positive
        self.gamma_negative = gamma_negative
        self.margin = margin

    def each(self, logits_BK: Tensor, positive_BK: Tensor) -> Tensor:
        absence_BK = torch.sigmoid(-logits_BK)
        if self.margin > 0:
            shifted_BK = (absence_BK + self.margin).clamp(max=1)  # 1 − p_m, never below the margin
            log_absence_BK = shifted_BK.log()
            excess_BK = 1 - shifted_BK
        else:
            log_absence_BK = functional.logsigmoid(-logits_BK)
            excess_BK = torch.sigmoid(logits_BK)
        log_BK = torch.where(positive_BK, functional.logsigmoid(logits_BK), log_absence_BK)
        weight_BK = torch.where(positive_BK, absence_BK**self.gamma_positive, excess_BK**self.gamma_negative)
        return -weight_BK.detach() * log_BK


def _at_least(where: str, value: float, least: float) -> None:
    if not value >= least:
        raise ConfigError(where, f"{value} is below {least:g}", f"give {least:g} or more")
