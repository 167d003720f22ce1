"""The terms of the loss beside the task's: each a method with a λ of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from tutelage.core.build import build, split
from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.method import Method
from tutelage.multilabel.networks.output import NetOutput
from tutelage.multilabel.weight import Weight, Weighting


@dataclass(frozen=True, slots=True, kw_only=True)
class TermOptions:
    """The keys of ``method`` that are not the method's own.

    Attributes:
        weight: λ.
        force_softmax: Use a method made for single labels all the same.
    """

    weight: Weighting = field(default_factory=Weighting)
    force_softmax: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TermSpec:
    """A method as the config gives it.

    Attributes:
        method: Built.
        options: The keys that are not its own.
        where: Its place in the config, for errors.
        teacher: The name of the teacher that it learns from.
    """

    method: Method
    options: TermOptions = field(default_factory=TermOptions)
    where: str = "method"
    teacher: str = "teacher"


class Term(nn.Module):
    """λ times the losses of a method."""

    calibrated: Tensor

    def __init__(self, spec: TermSpec) -> None:
        super().__init__()
        self.teacher = spec.teacher
        self.method, self.weight = spec.method, Weight(spec.options.weight)
        # Of the method, on the training set; see Method.calibrate. A buffer, so that a resumed run knows.
        self.register_buffer("calibrated", torch.tensor(False))

    def forward(
        self, task_loss: Tensor, student: NetOutput, teacher: NetOutput, batch: Batch, *, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted loss, and what to log."""
        named = self.method(student, teacher.detached(), batch, progress)
        method_loss = torch.stack(list(named.values())).sum()
        weight = self.weight(task_loss, method_loss)
        return weight * method_loss, {**{name: value.detach() for name, value in named.items()}, "weight": weight}


def build_terms(node: DictConfig, *, teachers: Sequence[str] = ("teacher",)) -> dict[str, TermSpec]:
    """Build the methods of ``cfg.method``: one, or several by name (``method=cam_kd+mld``).

    Args:
        node: Of the config.
        teachers: Under each of them there is a term of each method.
    """
    if "_target_" in node:
        nodes = {str(node["_target_"]).split(".")[-2]: ("method", node)}
    else:
        nodes = {str(name): (f"method.{name!s}", child) for name, child in node.items()}
    terms = {}
    for name, (where, child) in nodes.items():
        options, own = split(child, TermOptions, where=where)
        for teacher in teachers:
            key = name if len(teachers) == 1 else f"{name}@{teacher}"
            terms[key] = TermSpec(method=build(own, where=where), options=options, where=where, teacher=teacher)
    return terms


def check_softmax(term: TermSpec) -> None:
    """Refuse a softmax over independent labels, unless the user insists.

    Raises:
        ConfigError: The method is made for single labels.
    """
    if term.method.labels == "single" and not term.options.force_softmax:
        other = term.method.multi_label_counterpart
        raise ConfigError(
            term.where,
            f"{type(term.method).__name__} takes a softmax over the labels, as if each image had exactly one",
            f"{f'choose method={other}, its counterpart for several labels' if other else 'choose another method'}, "
            f"or insist with {term.where}.force_softmax=true",
        )
