"""Locality-sensitive hashing: the student's embedding lies on the same side of many hyperplanes as the teacher's."""

# C channels of the teacher's embedding, N hashes, S samples

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.features.functional import lsh, mse
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import image_mean, real_images
from tutelage.multilabel.methods.settings import positive
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput

# Medians of larger training sets are taken from every s-th sample: 65,536 × 2,048 hashes are half a gigabyte.
MOST_SAMPLES = 65_536


class LshFm(Method):
    """MSE(P f_S, f_T) + BCE(W P f_S + b, 1[W f_T + b > 0]) (LSHFM, TPAMI 2021: an early code for multi-label KD).

    W is random and fixed; b is minus the median of W f_T over the training set, so that each hyperplane halves it. P is
    linear: the student's embedding seldom has the teacher's channels.
    """

    labels = "any"
    student_reads = frozenset({"embedding_BC"})
    teacher_reads = frozenset({"embedding_BC"})
    calibrates = True

    weight_NC: Tensor
    bias_N: Tensor

    def __init__(self, *, hashes: int, std: float) -> None:
        """Choose how many hashes, and the standard deviation of W's entries."""
        super().__init__()
        self.hashes, self.std = positive("hashes", hashes), positive("std", std)

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        channels = teacher.shape.embedding_dim
        self.projection = nn.Linear(student.shape.embedding_dim, channels)
        generator = torch.Generator().manual_seed(0)  # the same hyperplanes for every student, as for every process
        self.register_buffer("weight_NC", self.std * torch.randn(self.hashes, channels, generator=generator))
        self.register_buffer("bias_N", torch.zeros(self.hashes))
        self.every = -(-data.num_samples // MOST_SAMPLES)
        return None

    def calibrate(self, teacher: Iterable[tuple[NetOutput, Batch]]) -> None:
        kept = []
        for output, batch in teacher:
            assert output.embedding_BC is not None
            rows = real_images(batch) & (batch.index_B % self.every == 0)
            kept.append(F.linear(output.embedding_BC[rows].float(), self.weight_NC).cpu())
        self.bias_N.copy_(-torch.cat(kept).median(dim=0).values)

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        assert student.embedding_BC is not None and teacher.embedding_BC is not None
        found_BC = self.projection(student.embedding_BC)
        hash_B = lsh(found_BC, teacher.embedding_BC, weight_NC=self.weight_NC, bias_N=self.bias_N)
        return {
            "mse": image_mean(mse(found_BC, teacher.embedding_BC), batch),
            "hash": image_mean(hash_B, batch),
        }
