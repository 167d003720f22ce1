"""Distillation of singular vectors: how the principal directions of one stage lie to those of the next."""

from torch import Tensor, nn

from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.features import functional
from tutelage.multilabel.methods.features.stages import paired_stages
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import image_mean
from tutelage.multilabel.methods.settings import positive
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput


class KdSvd(Method):
    """RBF kernels between the singular vectors of neighbouring stages (KDSVD, ECCV 2018, arXiv 1807.06819).

    The vectors are over channels, so the student needs as many as the teacher; where it has not, a 1×1 convolution
    brings it there (ours; the paper's pairs have equal channels).
    """

    labels = "any"
    student_reads = frozenset({"stages"})
    teacher_reads = frozenset({"stages"})

    def __init__(self, *, stages: int, rank: int) -> None:
        """Choose how many of the last stages, two or more, and how many singular vectors of each."""
        super().__init__()
        self.stages, self.rank = positive("stages", stages), positive("rank", rank)

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        self.pairs = paired_stages(student, teacher, most=self.stages)
        if len(self.pairs) < 2:
            raise ConfigError("method.stages", "kdsvd compares a stage with the next", "give 2 or more")
        self.projections = nn.ModuleList(
            nn.Identity()
            if pair.student_channels == pair.teacher_channels
            else nn.Conv2d(pair.student_channels, pair.teacher_channels, 1, bias=False)
            for pair in self.pairs
        )
        return None

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        of_student = [
            project(student.stages[pair.student]) for project, pair in zip(self.projections, self.pairs, strict=True)
        ]
        of_teacher = [teacher.stages[pair.teacher] for pair in self.pairs]
        return {"kdsvd": image_mean(functional.kdsvd(of_student, of_teacher, rank=self.rank), batch)}
