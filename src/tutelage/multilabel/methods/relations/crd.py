"""Contrastive representation distillation with a memory of all samples."""

# B batch of this process, G batch of all, N samples, M candidates, K labels, D channels of the embedding

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.distributed import gather_rows, global_mean
from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import ABSENT, IGNORED, PRESENT, Batch
from tutelage.multilabel.methods.hashing import hashed
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.precision import full_precision
from tutelage.multilabel.methods.reductions import image_mean, real_images
from tutelage.multilabel.methods.relations import functional
from tutelage.multilabel.methods.settings import positive
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput


class Crd(Method):
    """Noise-contrastive estimation against the other network's memory, both ways (CRD, ICLR 2020, arXiv 1910.10699).

    For several labels (ours): negatives are images that share no label with the anchor. A label that is not known may
    be shared. Candidates are drawn once a step for the whole batch, which gives each anchor as many as the paper draws
    for it alone; those that share a label do not count, nor do samples that were not seen yet. At its first visit a
    sample's memory is its present embedding (the paper begins with random vectors).

    The memory holds an embedding of each network and the labels of each sample, in checkpoints too: COCO, 128 channels,
    about 90 MB.
    """

    labels = "any"
    student_reads = frozenset({"embedding_BC"})
    teacher_reads = frozenset({"embedding_BC"})

    memory_student_ND: Tensor
    memory_teacher_ND: Tensor
    labels_NK: Tensor
    seen_N: Tensor
    scales: Tensor
    step: Tensor

    def __init__(self, *, channels: int, negatives: int, temperature: float, momentum: float) -> None:
        """Choose D, M, τ, and how much of a memory stays when its sample is seen again.

        Raises:
            ConfigError: A value out of its range.
        """
        super().__init__()
        if not 0 <= momentum < 1:
            raise ConfigError("method.momentum", f"{momentum} is no share below 1", "give a number in [0, 1)")
        self.channels, self.negatives = positive("channels", channels), positive("negatives", negatives)
        self.temperature, self.momentum = positive("temperature", temperature), momentum

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        self.num_samples = data.num_samples
        self.embed_student = nn.Linear(student.shape.embedding_dim, self.channels)
        self.embed_teacher = nn.Linear(teacher.shape.embedding_dim, self.channels)
        rows = data.num_samples + 1  # padding writes to the last, which is never read
        self.register_buffer("memory_student_ND", torch.zeros(rows, self.channels))
        self.register_buffer("memory_teacher_ND", torch.zeros(rows, self.channels))
        self.register_buffer("labels_NK", torch.zeros(rows, len(data.label_names), dtype=torch.int8))
        self.register_buffer("seen_N", torch.zeros(rows, dtype=torch.bool))
        self.register_buffer("scales", torch.zeros(2))  # Z of the student's and of the teacher's scores
        self.register_buffer("step", torch.tensor(0))
        return None

    @full_precision
    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        assert student.embedding_BC is not None and teacher.embedding_BC is not None
        student_BD = F.normalize(self.embed_student(student.embedding_BC.float()), dim=1)
        teacher_BD = F.normalize(self.embed_teacher(teacher.embedding_BC.float()), dim=1)
        row_B = torch.where(real_images(batch), batch.index_B, self.num_samples)
        self._visit(
            gather_rows(row_B),
            gather_rows(batch.target_BK),
            gather_rows(student_BD.detach()),
            gather_rows(teacher_BD.detach()),
        )
        candidate_M = self._candidates()
        counts_BM = self.seen_N[candidate_M] & (candidate_M != row_B[:, None])
        counts_BM &= ~share_label(batch.target_BK, self.labels_NK[candidate_M])
        losses = {
            name: self._estimate(i, embedding_BD, memory_ND, row_B, candidate_M, counts_BM, batch)
            for i, (name, embedding_BD, memory_ND) in enumerate(
                (("student", student_BD, self.memory_teacher_ND), ("teacher", teacher_BD, self.memory_student_ND))
            )
        }
        self._remember(gather_rows(row_B), gather_rows(student_BD.detach()), gather_rows(teacher_BD.detach()))
        self.step += 1
        return losses

    def _estimate(
        self,
        which: int,
        embedding_BD: Tensor,
        memory_ND: Tensor,
        row_B: Tensor,
        candidate_M: Tensor,
        counts_BM: Tensor,
        batch: Batch,
    ) -> Tensor:
        # Copies: the memory is written to before the backward pass.
        positive_B = ((embedding_BD * memory_ND[row_B]).sum(1) / self.temperature).exp()
        negative_BM = (embedding_BD @ memory_ND[candidate_M].T / self.temperature).exp()
        with torch.no_grad():  # Z is what the first step finds
            scores = torch.cat([positive_B[:, None], negative_BM], 1)
            counts = torch.cat([real_images(batch)[:, None], counts_BM & real_images(batch)[:, None]], 1)
            found = global_mean(scores, counts) * self.num_samples
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                found = gather_rows(found[None]).mean()
            self.scales[which] = torch.where(self.scales[which] > 0, self.scales[which], found)
        scale = self.scales[which].clone()
        loss_B = functional.crd(
            positive_B / scale, negative_BM / scale, counts_BM=counts_BM, num_samples=self.num_samples
        )
        return image_mean(loss_B, batch)

    def _candidates(self) -> Tensor:
        places_M = torch.arange(min(self.negatives, self.num_samples), device=self.step.device)
        if self.negatives >= self.num_samples:
            return places_M
        return hashed(places_M, key=self.step) % self.num_samples

    def _visit(self, row_G: Tensor, target_GK: Tensor, student_GD: Tensor, teacher_GD: Tensor) -> None:
        new_G1 = ~self.seen_N[row_G][:, None]
        for memory_ND, embedding_GD in (
            (self.memory_student_ND, student_GD),
            (self.memory_teacher_ND, teacher_GD),
        ):
            memory_ND[row_G] = torch.where(new_G1, embedding_GD, memory_ND[row_G])
        self.labels_NK[row_G] = target_GK.to(torch.int8)
        self.seen_N[row_G] = True

    def _remember(self, row_G: Tensor, student_GD: Tensor, teacher_GD: Tensor) -> None:
        for memory_ND, embedding_GD in (
            (self.memory_student_ND, student_GD),
            (self.memory_teacher_ND, teacher_GD),
        ):
            mixed_GD = self.momentum * memory_ND[row_G] + (1 - self.momentum) * embedding_GD
            memory_ND[row_G] = F.normalize(mixed_GD, dim=1)


def share_label(target_BK: Tensor, other_MK: Tensor) -> Tensor:
    """Say which pairs of images have a label in common, or may have: one has it and the other's is not known.

    Args:
        target_BK: 1 present, 0 absent, −1 unknown.
        other_MK: Likewise.

    Returns:
        [B, M].
    """
    assert (PRESENT, ABSENT, IGNORED) == (1, 0, -1)
    has_BK, may_BK = (target_BK == PRESENT).float(), (target_BK != ABSENT).float()
    other_has_MK, other_may_MK = (other_MK == PRESENT).float(), (other_MK != ABSENT).float()
    return (has_BK @ other_may_MK.T + may_BK @ other_has_MK.T) > 0
