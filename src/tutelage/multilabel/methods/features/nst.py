"""Neuron selectivity transfer: which places the channels respond to, as a distribution over channels."""

import torch
from torch import Tensor

from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.features import functional
from tutelage.multilabel.methods.features.functional import on_smaller_grid
from tutelage.multilabel.methods.features.stages import paired_stages
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import image_mean
from tutelage.multilabel.methods.settings import positive
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput


class Nst(Method):
    """Squared MMD between the channels of a stage, polynomial kernel, summed over stages (NST, arXiv 1707.01219).

    Channels are compared as a set: no adaptor is needed, whatever their numbers.
    """

    labels = "any"
    student_reads = frozenset({"stages"})
    teacher_reads = frozenset({"stages"})

    def __init__(self, *, stages: int) -> None:
        """Choose how many of the last stages."""
        super().__init__()
        self.stages = positive("stages", stages)

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        self.pairs = paired_stages(student, teacher, most=self.stages)
        return None

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = [
            image_mean(
                functional.nst(*on_smaller_grid(student.stages[pair.student], teacher.stages[pair.teacher])), batch
            )
            for pair in self.pairs
        ]
        return {"nst": torch.stack(losses).sum()}
