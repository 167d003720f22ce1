"""How much a method's loss weighs against the task's."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.distributed import world_size
from tutelage.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighting:
    """``method.weight``: λ of one method.

    Attributes:
        value: λ; None calibrates it on the task loss.
        calibration_steps: Length of the calibration, in batches.
        ramp_steps: Batches over which the method's loss is faded in linearly; 0 begins in full.
    """

    value: float | None = None
    calibration_steps: int = 50
    ramp_steps: int = 0

    def __post_init__(self) -> None:
        if self.calibration_steps < 1:
            raise ConfigError(
                "method.weight.calibration_steps",
                f"{self.calibration_steps} is not a number of steps",
                "give 1 or more",
            )
        if self.ramp_steps < 0:
            raise ConfigError("method.weight.ramp_steps", f"{self.ramp_steps} is negative", "give 0 for no ramp")


class Weight(nn.Module):
    """λ: set by the user, or calibrated so that λ·L_kd equals the task loss over the first steps, then fixed.

    Calibration takes the ratio of the two losses' sums over the first ``calibration_steps`` batches (over all
    processes); until it is done, λ is the ratio so far. λ and the sums are buffers: a resumed run goes on with them.
    """

    value: Tensor
    task_sum: Tensor
    method_sum: Tensor
    steps: Tensor

    def __init__(self, weighting: Weighting) -> None:
        super().__init__()
        self.calibrated = weighting.value is None
        self.calibration_steps, self.ramp_steps = weighting.calibration_steps, weighting.ramp_steps
        self.register_buffer("value", torch.tensor(1.0 if weighting.value is None else weighting.value))
        for name in ("task_sum", "method_sum"):
            self.register_buffer(name, torch.tensor(0.0))
        self.register_buffer("steps", torch.tensor(0))
        # The same count for Python, which may branch on it without waiting for a GPU; None reads it off the buffer.
        self._step: int | None = None
        self.register_load_state_dict_post_hook(_forget_step)  # type: ignore[no-untyped-call]

    def forward(self, task_loss: Tensor, method_loss: Tensor) -> Tensor:
        """Return λ as it stands at this training step, without gradient."""
        step = int(self.steps) if self._step is None else self._step
        with torch.no_grad():
            if self.calibrated and step < self.calibration_steps:
                sums = torch.stack([task_loss.detach().float(), method_loss.detach().float()])
                if world_size() > 1:
                    torch.distributed.all_reduce(sums)
                    sums /= world_size()  # as one process would have it
                self.task_sum += sums[0]
                self.method_sum += sums[1]
                # Identical networks have no loss to balance; their λ stays 1.
                ratio = torch.where(self.method_sum > 0, self.task_sum / self.method_sum, torch.ones_like(self.value))
                self.value.copy_(ratio)
            self._step = step + 1
            self.steps += 1
            return self.value * min(self._step / self.ramp_steps, 1.0) if self.ramp_steps else self.value.clone()


def _forget_step(weight: nn.Module, incompatible: Any) -> None:
    assert isinstance(weight, Weight)
    weight._step = None
