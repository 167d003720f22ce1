"""One for all: heads at the student's stages learn the teacher's softmax, whatever the two architectures."""

import math

import torch
from torch import Tensor, nn

from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.features import functional
from tutelage.multilabel.methods.features.stages import paired_stages
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import image_mean
from tutelage.multilabel.methods.settings import positive
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput


class Ofa(Method):
    """−Σ_k [(p_T + y)^γ − y] log p of heads at the last stages and of the student itself (OFA-KD, NeurIPS 2023).

    arXiv 2310.19444. A head halves a stage's grid to the last one's by separable convolutions, averages and classifies.
    Their code gives transformers patch merging and blocks instead; here every network has the same heads.
    """

    labels = "single"
    multi_label_counterpart = "mld"
    student_reads = frozenset({"stages", "logits_BK"})
    teacher_reads = frozenset({"logits_BK"})

    def __init__(self, *, stages: int, exponent: float, temperature: float) -> None:
        """Choose how many of the last stages, γ, and the temperature."""
        super().__init__()
        self.stages = positive("stages", stages)
        self.exponent, self.temperature = positive("exponent", exponent), positive("temperature", temperature)

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        self.places = [pair.student for pair in paired_stages(student, student, most=self.stages)]
        channels = max(student.shape.embedding_dim, teacher.shape.embedding_dim)
        last = student.shape.stage_grids[-1][0]
        self.heads = nn.ModuleList(
            _head(
                student.shape.stage_channels[place],
                channels,
                halvings=round(math.log2(student.shape.stage_grids[place][0] / last)),
                num_labels=student.shape.num_labels,
            )
            for place in self.places
        )
        return None

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        heads = [head(student.stages[place]) for head, place in zip(self.heads, self.places, strict=True)]
        losses = [
            image_mean(
                functional.ofa(
                    logits_BK,
                    teacher.logits_BK,
                    batch.target_BK,
                    exponent=self.exponent,
                    temperature=self.temperature,
                ),
                batch,
            )
            for logits_BK in (*heads, student.logits_BK)
        ]
        return {"stages": torch.stack(losses[:-1]).sum(), "logits": losses[-1]}


def _head(in_channels: int, channels: int, *, halvings: int, num_labels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for left in range(halvings, 0, -1):
        out_channels = channels if left == 1 else 2 * in_channels
        layers.append(_separable(in_channels, out_channels))
        in_channels = out_channels
    if not layers:
        layers.append(nn.Conv2d(in_channels, channels, 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_labels))


def _separable(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride=2, padding=1, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, in_channels, 1, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.ReLU(),
        nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
