"""How much a method's loss weighs against the task's."""

import torch
from torch import Tensor, nn


class Weight(nn.Module):
    """λ: set by the user, or calibrated so that λ·L_kd equals the task loss over the first steps, then fixed.

    Calibration takes the ratio of the two losses' sums over the first ``calibration_steps`` steps (over all
    processes); until it is done, λ is the ratio so far. λ and the sums are buffers: a resumed run goes on with them.
    """

    value: Tensor
    task_sum: Tensor
    method_sum: Tensor
    steps: Tensor

    def __init__(self, *, value: float | None, calibration_steps: int, ramp_steps: int) -> None:
        """Set λ or have it calibrated.

        Args:
            value: λ; None calibrates it.
            calibration_steps: Length of the calibration.
            ramp_steps: Steps over which the loss is faded in linearly; 0 begins in full.
        """
        super().__init__()
        self.calibrated, self.calibration_steps, self.ramp_steps = value is None, calibration_steps, ramp_steps
        self.register_buffer("value", torch.tensor(1.0 if value is None else value))
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
