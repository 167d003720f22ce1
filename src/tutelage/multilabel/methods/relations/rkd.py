"""Relational knowledge distillation: distances and angles between images."""

from torch import Tensor

from tutelage.core.distributed import gather_rows
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.method import Method
from tutelage.multilabel.methods.reductions import real_images
from tutelage.multilabel.methods.relations.functional import rkd_angle, rkd_distance
from tutelage.multilabel.methods.settings import not_negative
from tutelage.multilabel.networks.output import NetOutput


class Rkd(Method):
    """Huber losses between distances, and between angles, of embeddings (RKD, CVPR 2019, arXiv 1904.05068).

    Angles of all triples: memory grows with the square of the batch times the channels.
    """

    labels = "any"
    student_reads = frozenset({"embedding_BC"})
    teacher_reads = frozenset({"embedding_BC"})

    def __init__(self, *, distance_weight: float, angle_weight: float) -> None:
        """Choose the two weights."""
        super().__init__()
        self.distance_weight = not_negative("distance_weight", distance_weight)
        self.angle_weight = not_negative("angle_weight", angle_weight)

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        assert student.embedding_BC is not None and teacher.embedding_BC is not None
        student_BC, teacher_BC = gather_rows(student.embedding_BC.float()), gather_rows(teacher.embedding_BC.float())
        valid_B = gather_rows(real_images(batch))
        losses = {}
        if self.distance_weight:
            losses["distance"] = self.distance_weight * rkd_distance(student_BC, teacher_BC, valid_B=valid_B)
        if self.angle_weight:
            losses["angle"] = self.angle_weight * rkd_angle(student_BC, teacher_BC, valid_B=valid_B)
        return losses
