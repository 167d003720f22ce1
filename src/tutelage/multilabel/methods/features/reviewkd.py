"""Knowledge review: each stage of the teacher is learned from the student's stage and all deeper ones."""

# B batch, C channels, D channels of the fusion, H W map

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.features.functional import hierarchical_context
from tutelage.multilabel.methods.features.stages import PreActivations, paired_stages, projection
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import image_mean
from tutelage.multilabel.methods.settings import positive
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput


class ReviewKd(Method):
    """Fusion from deep to shallow and a pyramid of MSEs, summed over stages (ReviewKD, CVPR 2021, arXiv 2104.09044).

    The levels are the last stages, before their last activation, and the embedding as a map of one place. Channels and
    grids are read off both networks.
    """

    labels = "any"
    # What may be read; setup leaves what these networks need.
    student_reads = frozenset({"features", "stages", "embedding_BC"})
    teacher_reads = frozenset({"features", "stages", "embedding_BC"})

    def __init__(self, *, stages: int, channels: int) -> None:
        """Choose how many of the last stages, and the channels of the fusion."""
        super().__init__()
        self.stages, self.channels = positive("stages", stages), positive("channels", channels)

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        pairs = paired_stages(student, teacher, most=self.stages)
        self.of_student = PreActivations(student, [pair.student for pair in pairs])
        self.of_teacher = PreActivations(teacher, [pair.teacher for pair in pairs])
        self.student_reads = self.of_student.reads | {"embedding_BC"}
        self.teacher_reads = self.of_teacher.reads | {"embedding_BC"}
        channels = [(pair.student_channels, pair.teacher_channels) for pair in pairs]
        channels.append((student.shape.embedding_dim, teacher.shape.embedding_dim))
        self.fusions = nn.ModuleList(
            Fusion(of_student, self.channels, of_teacher, deepest=i == len(pairs))
            for i, (of_student, of_teacher) in enumerate(channels)
        )
        return None

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        assert student.embedding_BC is not None and teacher.embedding_BC is not None
        of_student = [*self.of_student.read(student), student.embedding_BC[:, :, None, None]]
        of_teacher = [*self.of_teacher.read(teacher), teacher.embedding_BC[:, :, None, None]]
        losses, deeper_BDHW = [], None
        for fusion, student_BCHW, teacher_BCHW in reversed(
            list(zip(self.fusions, of_student, of_teacher, strict=True))
        ):
            height, width = teacher_BCHW.shape[2:]
            found_BCHW, deeper_BDHW = fusion(student_BCHW, deeper_BDHW, size=(height, width))
            losses.append(image_mean(hierarchical_context(found_BCHW, teacher_BCHW), batch))
        return {"reviewkd": torch.stack(losses).sum()}


class Fusion(nn.Module):
    """Attention-based fusion (ABF) of a stage with what came from the deeper ones."""

    def __init__(self, in_channels: int, channels: int, out_channels: int, *, deepest: bool) -> None:
        super().__init__()
        self.enter = projection(in_channels, channels)
        self.attention = None if deepest else nn.Sequential(nn.Conv2d(2 * channels, 2, 1), nn.Sigmoid())
        self.leave = nn.Sequential(
            nn.Conv2d(channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)
        )
        for part in self.modules():
            if isinstance(part, nn.Conv2d) and part.bias is None:
                nn.init.kaiming_uniform_(part.weight, a=1)

    def forward(
        self, stage_BCHW: Tensor, deeper_BDHW: Tensor | None, *, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Fuse.

        Args:
            stage_BCHW: Student's stage.
            deeper_BDHW: Second result for the next deeper stage; None for the deepest.
            size: Of the teacher's stage.

        Returns:
            What is compared with the teacher's stage, and what goes on to the next shallower stage, both of ``size``.
        """
        mixed_BDHW = self.enter(stage_BCHW)
        if self.attention is not None:
            assert deeper_BDHW is not None
            deeper_BDHW = F.interpolate(deeper_BDHW, mixed_BDHW.shape[2:], mode="nearest")
            attention_B2HW = self.attention(torch.cat([mixed_BDHW, deeper_BDHW], 1))
            mixed_BDHW = mixed_BDHW * attention_B2HW[:, :1] + deeper_BDHW * attention_B2HW[:, 1:]
        if tuple(mixed_BDHW.shape[2:]) != size:
            mixed_BDHW = F.interpolate(mixed_BDHW, size, mode="nearest")
        return self.leave(mixed_BDHW), mixed_BDHW
