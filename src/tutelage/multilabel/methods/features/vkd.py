"""Embeddings through an orthogonal projection."""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.features import functional
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import image_mean
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput


class Vkd(Method):
    """smoothL1(P f_S, LayerNorm f_T), P with orthonormal rows or columns (VkD, CVPR 2024, arXiv 2403.06213).

    P keeps the student's geometry, so it cannot learn the teacher in the student's place.
    """

    labels = "any"
    student_reads = frozenset({"embedding_BC"})
    teacher_reads = frozenset({"embedding_BC"})

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        self.projection = orthogonal(nn.Linear(student.shape.embedding_dim, teacher.shape.embedding_dim, bias=False))
        return None

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        assert student.embedding_BC is not None and teacher.embedding_BC is not None
        return {"vkd": image_mean(functional.vkd(self.projection(student.embedding_BC), teacher.embedding_BC), batch)}
