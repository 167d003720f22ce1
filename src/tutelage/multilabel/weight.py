"""How much a method's loss weighs against the task's."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighting:
    """The part of ``method`` that is not the method's own.

    Attributes:
        weight: λ; None calibrates it.
        calibration_steps: Length of the calibration.
        ramp_steps: Steps over which the method's loss is faded in linearly; 0 begins in full.
        force_softmax: Use a method made for single labels all the same.
    """

    weight: float | None = None
    calibration_steps: int = 50
    ramp_steps: int = 0
    force_softmax: bool = False


class Weight(nn.Module):
    """λ: set by the user, or calibrated so that λ·L_kd equals the task loss over the first steps, then fixed.

    Calibration takes the ratio of the two losses' sums over the first ``calibration_steps`` steps (over all
    processes); until it is done, λ is the ratio so far. λ and the sums are buffers: a resumed run goes on with them.
    """

    value: Tensor
    task_sum: Tensor
    method_sum: Tensor
    steps: Tensor

    def __init__(self, weighting: Weighting) -> None:
        super().__init__()
        self.calibrated = weighting.weight is None
        self.calibration_steps, self.ramp_steps = weighting.calibration_steps, weighting.ramp_steps
        self.register_buffer("value", torch.tensor(1.0 if weighting.weight is None else weighting.weight))
        for name in ("task_sum", "method_sum"):
            self.register_buffer(name, torch.tensor(0.0))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, task_loss: Tensor, method_loss: Tensor) -> Tensor:
        """Return λ as it stands at this training step, without gradient."""
        with torch.no_grad():
            if self.calibrated:
                sums = torch.stack([task_loss.detach().float(), method_loss.detach().float()])
                if torch.distributed.is_available() and torch.distributed.is_initialized():
                    torch.distributed.all_reduce(sums)
                    sums /= torch.distributed.get_world_size()  # as one process would have it
                # Written without branching on a tensor, so that a GPU is never waited for.
                open_ = (self.steps < self.calibration_steps).to(sums.dtype)
                self.task_sum += open_ * sums[0]
                self.method_sum += open_ * sums[1]
                # Identical networks have no loss to balance; their λ stays 1.
                ratio = torch.where(self.method_sum > 0, self.task_sum / self.method_sum, torch.ones_like(self.value))
                self.value.copy_(ratio)
            self.steps += 1
            fade = (self.steps / self.ramp_steps).clamp(max=1.0) if self.ramp_steps else 1.0
            return self.value * fade
