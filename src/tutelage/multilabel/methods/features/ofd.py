"""Overhaul of feature distillation: features before the ReLU, compared where they count."""

import torch
from torch import Tensor, nn

from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.features import functional
from tutelage.multilabel.methods.features.functional import batch_norm_margin, on_smaller_grid
from tutelage.multilabel.methods.features.stages import PreActivations, paired_stages
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import image_mean
from tutelage.multilabel.methods.settings import positive
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput


class Ofd(Method):
    """Partial L2 after a margin ReLU, summed; each stage weighs half of the next (OFD, ICCV 2019, arXiv 1904.01866).

    The margins come from the last batch norm of each of the teacher's stages. The student may be any network.
    """

    labels = "any"
    # What may be read; setup leaves what these networks need.
    student_reads = frozenset({"features", "stages"})
    teacher_reads = frozenset({"features", "stages"})

    def __init__(self, *, stages: int) -> None:
        """Choose how many of the last stages."""
        super().__init__()
        self.stages = positive("stages", stages)

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        pairs = paired_stages(student, teacher, most=self.stages)
        norms = teacher.stage_norms()
        for i, pair in enumerate(pairs):
            norm = norms[pair.teacher]
            if norm is None or norm.num_features != pair.teacher_channels:
                raise ConfigError(
                    "model.teacher.name",
                    f"ofd takes its margins from batch norms, and a stage of {teacher.spec.name} ends without one",
                    "choose a convolutional teacher with batch norms, or method=reviewkd, which needs none",
                )
            margin_C = batch_norm_margin(norm.weight.detach(), norm.bias.detach())
            self.register_buffer(f"margin_{i}_C", margin_C.to(norm.weight.device))
        self.of_student = PreActivations(student, [pair.student for pair in pairs])
        self.of_teacher = PreActivations(teacher, [pair.teacher for pair in pairs])
        self.student_reads, self.teacher_reads = self.of_student.reads, self.of_teacher.reads
        self.connectors = nn.ModuleList(_connector(pair.student_channels, pair.teacher_channels) for pair in pairs)
        return None

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = []
        stages = zip(self.connectors, self.of_student.read(student), self.of_teacher.read(teacher), strict=True)
        for i, (connector, student_BCHW, teacher_BCHW) in enumerate(stages):
            student_BCHW, teacher_BCHW = on_smaller_grid(student_BCHW, teacher_BCHW)
            margin_C = self.get_buffer(f"margin_{i}_C")
            loss_B = functional.ofd(connector(student_BCHW), teacher_BCHW, margin_C=margin_C)
            losses.append(image_mean(loss_B, batch) / 2 ** (len(self.connectors) - 1 - i))
        return {"ofd": torch.stack(losses).sum()}


def _connector(in_channels: int, out_channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    nn.init.normal_(convolution.weight, std=(2 / out_channels) ** 0.5)  # OFD's code
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))
