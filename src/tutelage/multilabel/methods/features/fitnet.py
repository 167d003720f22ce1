"""Hints: a stage of the student regresses the teacher's."""

from torch import Tensor, nn

from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.features.functional import mse, on_smaller_grid
from tutelage.multilabel.methods.features.stages import paired_stages
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import image_mean
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput


class FitNet(Method):
    """mse(conv F_S, F_T) of one stage (FitNets, ICLR 2015, arXiv 1412.6550).

    The paper trains up to the hint first and the rest after it; as later comparisons do, both are trained together. The
    regressor is a 1×1 convolution on the coarser of the two grids (ours; theirs also changes the grid).
    """

    labels = "any"
    student_reads = frozenset({"stages"})
    teacher_reads = frozenset({"stages"})

    def __init__(self, *, stage: int) -> None:
        """Choose the stage, counted from the last, which is 1."""
        super().__init__()
        self.stage = stage

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        pairs = paired_stages(student, teacher, most=self.stage)
        if not 1 <= self.stage <= len(pairs):
            raise ConfigError(
                "method.stage",
                f"{self.stage} is no stage that {student.spec.name} and {teacher.spec.name} both have",
                f"give 1 (the last) to {min(len(student.shape.stage_channels), len(teacher.shape.stage_channels))}",
            )
        self.pair = pairs[0]
        self.regressor = nn.Conv2d(self.pair.student_channels, self.pair.teacher_channels, 1)
        return None

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        student_BCHW, teacher_BCHW = on_smaller_grid(
            student.stages[self.pair.student], teacher.stages[self.pair.teacher]
        )
        return {"fitnet": image_mean(mse(self.regressor(student_BCHW), teacher_BCHW), batch)}
