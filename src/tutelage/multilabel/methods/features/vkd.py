"""Embeddings through an orthogonal projection."""

# B batch, C channels of an embedding, k channels of the smaller one, R channels that the larger has more

import torch
from torch import Tensor, nn

from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.features import functional
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import image_mean
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput


class Vkd(Method):
    """smoothL1(P f_S, LayerNorm f_T), P with orthonormal rows or columns (VkD, CVPR 2024, arXiv 2403.06213).

    P keeps the student's geometry, so it cannot learn the teacher in the student's place. It is kept orthogonal by a
    Cayley transform (ours), which takes one linear system a step.
    """

    labels = "any"
    student_reads = frozenset({"embedding_BC"})
    teacher_reads = frozenset({"embedding_BC"})

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        self.projection = OrthogonalProjection(student.shape.embedding_dim, teacher.shape.embedding_dim)
        return None

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        assert student.embedding_BC is not None and teacher.embedding_BC is not None
        return {"vkd": image_mean(functional.vkd(self.projection(student.embedding_BC), teacher.embedding_BC), batch)}


class OrthogonalProjection(nn.Module):
    """A linear layer without bias whose matrix stays orthogonal whatever its parameters are."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        small, large = sorted((in_channels, out_channels))
        # All entries of the skew-symmetric matrix have the variance 1/C: it turns by up to a right angle.
        self.square_kk = nn.Parameter(torch.randn(small, small) / (2 * large) ** 0.5)
        self.rest_Rk = nn.Parameter(torch.randn(large - small, small) / large**0.5)

    def forward(self, features_BC: Tensor) -> Tensor:
        """Project [B, in_channels] to [B, out_channels], in fp32."""
        return functional.orthogonal_projection(features_BC, square_kk=self.square_kk, rest_Rk=self.rest_Rk)
