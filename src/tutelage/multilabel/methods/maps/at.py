"""Attention transfer: where the stages of a network are active."""

# B batch, P places

import torch
from torch import Tensor

from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.maps.functional import attention, normalised_squared_error, on_common_grid
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import image_mean
from tutelage.multilabel.methods.settings import positive
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput


class At(Method):
    """Σ_stages mean (a_S/‖a_S‖ − a_T/‖a_T‖)², a = mean_c F² (ICLR 2017, arXiv 1612.03928, eq. 2).

    Squared and averaged over places as in its code; its eq. 2 has a norm (see torchdistill's two modes). Stages are
    paired from the deepest; where their grids differ, the finer attention is pooled.
    """

    student_reads = frozenset({"stages"})
    teacher_reads = frozenset({"stages"})
    labels = "any"

    def __init__(self, *, stages: int) -> None:
        """Choose how many stages, counted from the deepest."""
        super().__init__()
        self.stages = positive("stages", stages)

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        for role, network in (("student", student), ("teacher", teacher)):
            found = len(network.shape.stage_channels)
            if found < self.stages:
                raise ConfigError(
                    "method.stages",
                    f"{self.stages}, but the {role}, {network.spec.name}, shows {found}",
                    f"give at most {found}" if found else "choose another network, or a method of maps or logits",
                )
        return None

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses_B = []
        pairs = zip(student.stages[-self.stages :], teacher.stages[-self.stages :], strict=True)
        for student_BCHW, teacher_BCHW in pairs:
            student_BP, teacher_BP = on_common_grid(attention(student_BCHW), attention(teacher_BCHW))
            losses_B.append(normalised_squared_error(student_BP, teacher_BP))
        return {"at": image_mean(torch.stack(losses_B).sum(0), batch)}
