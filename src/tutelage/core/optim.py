"""Optimisers and schedules of the published recipes.

One rule for parameter groups: weight decay is for weights. What has fewer than two dimensions (biases, the scales
and shifts of norms, single learned numbers) is not decayed, nor what the caller exempts.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import Parameter
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from tutelage.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Optim:
    """One optimiser and its schedule, as conf/optim/*.yaml gives them.

    Attributes:
        name: ``adam`` adds weight decay to the gradient (L2), ``adamw`` decays apart from it; ``adamw_8bit`` keeps
            AdamW's moments in eight bits (CUDA, the ``qlora`` extra).
        lr: The highest learning rate of the schedule.
        weight_decay: For weights only; 0 turns it off.
        schedule: ``onecycle`` is torch's, momentum cycle and all; ``cosine`` ends at zero.
        warmup: The part of the schedule spent rising, in [0, 1).
        momentum: SGD's momentum, or Adam's first beta. A onecycle schedule moves it between .95 and .85 instead.
        head_lr_factor: Multiplies the learning rate of the head's parameters.
        stretch: Length of the schedule in lengths of the run. The recipes that schedule 80 epochs and stop at 40
            have 2.
    """

    name: Literal["adam", "adamw", "adamw_8bit", "sgd"]
    lr: float
    weight_decay: float
    schedule: Literal["onecycle", "cosine", "constant"]
    warmup: float
    momentum: float = 0.9
    head_lr_factor: float = 1.0
    stretch: float = 1.0

    def __post_init__(self) -> None:
        checks = {
            "lr": (0 < self.lr < math.inf, "give a number above 0"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "give 0 or more"),
            "warmup": (0 <= self.warmup < 1, "give the part of the run spent rising, in [0, 1)"),
            "momentum": (0 <= self.momentum < 1, "give a number in [0, 1)"),
            "head_lr_factor": (0 < self.head_lr_factor < math.inf, "give a number above 0"),
            "stretch": (1 <= self.stretch < math.inf, "give 1, or more to stop before the schedule ends"),
        }
        for key, (good, hint) in checks.items():
            if not good:
                raise ConfigError(f"optim.{key}", f"{vars(self)[key]} cannot be used", hint)

    def configure(
        self,
        named_parameters: Iterable[tuple[str, Parameter]],
        *,
        total_steps: int,
        head: Collection[str] = (),
        undecayed: Collection[str] = (),
    ) -> dict[str, Any]:
        """Make the optimiser and its schedule.

        Args:
            named_parameters: All that is to be trained; frozen parameters are passed over.
            total_steps: Optimiser steps of the whole run.
            head: Names of the parameters whose learning rate ``head_lr_factor`` multiplies.
            undecayed: Names of parameters of two dimensions or more that are not decayed all the same.

        Returns:
            What Lightning's ``configure_optimizers`` returns; the schedule moves at each step.

        Raises:
            ConfigError: Nothing to train, a head factor where there is no head, or no bitsandbytes.
        """
        optimizer = self._optimizer(self._groups(named_parameters, head=head, undecayed=undecayed))
        schedule = self._schedule(optimizer, steps=max(1, round(total_steps * self.stretch)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _groups(
        self, named_parameters: Iterable[tuple[str, Parameter]], *, head: Collection[str], undecayed: Collection[str]
    ) -> list[dict[str, Any]]:
        head_names, exempt = frozenset(head), frozenset(undecayed)
        groups: dict[tuple[bool, bool], list[Parameter]] = {}
        for name, parameter in named_parameters:
            if parameter.requires_grad:
                decays = parameter.ndim > 1 and name not in exempt
                groups.setdefault((name in head_names, decays), []).append(parameter)
        if not groups:
            raise ConfigError("optim", "there is no parameter to train", "check what the adapter or the model freezes")
        if self.head_lr_factor != 1 and not any(in_head for in_head, _ in groups):
            raise ConfigError("optim.head_lr_factor", "this network has no head of its own", "set it to 1")
        return [
            {
                "params": parameters,
                "lr": self.lr * (self.head_lr_factor if in_head else 1),
                "weight_decay": self.weight_decay if decays else 0.0,
            }
            for (in_head, decays), parameters in groups.items()
        ]

    def _optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        betas = (self.momentum, 0.999)
        match self.name:
            case "adam":
                return torch.optim.Adam(groups, lr=self.lr, betas=betas)
            case "adamw":
                return torch.optim.AdamW(groups, lr=self.lr, betas=betas)
            case "adamw_8bit":
                try:
                    from bitsandbytes.optim import AdamW8bit
                except ImportError as error:
                    raise ConfigError(
                        "optim.name", f"adamw_8bit needs bitsandbytes ({error})", "pip install -e '.[qlora]'"
                    ) from None
                optimizer: torch.optim.Optimizer = AdamW8bit(groups, lr=self.lr, betas=betas)
                return optimizer
            case "sgd":
                return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum)

    def _schedule(self, optimizer: torch.optim.Optimizer, *, steps: int) -> LRScheduler:
        if self.schedule == "onecycle":
            # torch's phases must each have a step, or it divides by zero: a run of three steps is a test run.
            steps = max(steps, 4)
            return OneCycleLR(
                optimizer,
                max_lr=[group["lr"] for group in optimizer.param_groups],
                total_steps=steps,
                pct_start=max(self.warmup, 2 / steps),
            )
        rise = round(self.warmup * steps)

        def factor(step: int) -> float:
            if step < rise:
                return (step + 1) / (rise + 1)  # the first step moves, too
            if self.schedule == "constant":
                return 1.0
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))

        return LambdaLR(optimizer, factor)
