"""Variational information distillation: a Gaussian of the teacher's features, given the student's."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.features import functional
from tutelage.multilabel.methods.features.functional import on_smaller_grid
from tutelage.multilabel.methods.features.stages import paired_stages
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import image_mean
from tutelage.multilabel.methods.settings import positive
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput


class Vid(Method):
    """½[(μ(F_S) − F_T)²/σ² + log σ²] summed over stages (VID, CVPR 2019, arXiv 1904.05835).

    μ is three 1×1 convolutions; σ² = softplus(·) + ε is trained, one a channel of the teacher.
    """

    labels = "any"
    student_reads = frozenset({"stages"})
    teacher_reads = frozenset({"stages"})

    def __init__(self, *, stages: int, initial_variance: float, epsilon: float = 1e-5) -> None:
        """Choose how many of the last stages, and where σ² begins."""
        super().__init__()
        self.stages = positive("stages", stages)
        self.initial_variance, self.epsilon = positive("initial_variance", initial_variance), epsilon

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        self.pairs = paired_stages(student, teacher, most=self.stages)
        self.means = nn.ModuleList([_mean_network(pair.student_channels, pair.teacher_channels) for pair in self.pairs])
        start = torch.tensor(self.initial_variance - self.epsilon, dtype=torch.float64).expm1().log().item()
        # In a ParameterList: in a plain list, as in mdistiller's code, they would never train.
        self.log_scales_C = nn.ParameterList(
            [nn.Parameter(torch.full((pair.teacher_channels,), start)) for pair in self.pairs]
        )
        return None

    def variances(self) -> list[Tensor]:
        """Return σ² of each stage, [C_T] each."""
        return [F.softplus(log_scale_C) + self.epsilon for log_scale_C in self.log_scales_C]

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = []
        for pair, mean, variance_C in zip(self.pairs, self.means, self.variances(), strict=True):
            student_BCHW, teacher_BCHW = on_smaller_grid(student.stages[pair.student], teacher.stages[pair.teacher])
            losses.append(image_mean(functional.vid(mean(student_BCHW), teacher_BCHW, variance_C=variance_C), batch))
        return {"vid": torch.stack(losses).sum()}


def _mean_network(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 1, bias=False),
    )
