"""Similarity-preserving distillation: which images activate alike."""

from torch import Tensor

from tutelage.core.distributed import gather_rows
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.method import Method
from tutelage.multilabel.methods.reductions import real_images
from tutelage.multilabel.methods.relations import functional
from tutelage.multilabel.networks.output import NetOutput


class Sp(Method):
    """‖n(G_S) − n(G_T)‖²/B² of G = F Fᵀ, F the last feature maps, flattened (SP, ICCV 2019, arXiv 1907.09682)."""

    labels = "any"
    student_reads = frozenset({"feature_map_BCHW"})
    teacher_reads = frozenset({"feature_map_BCHW"})

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        assert student.feature_map_BCHW is not None and teacher.feature_map_BCHW is not None
        student_BC, teacher_BC = gather_rows(student.feature_map_BCHW), gather_rows(teacher.feature_map_BCHW)
        return {"sp": functional.sp(student_BC, teacher_BC, valid_B=gather_rows(real_images(batch)))}
