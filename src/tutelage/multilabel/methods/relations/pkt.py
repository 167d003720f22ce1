"""Probabilistic knowledge transfer: how probable one image is as another's neighbour."""

from torch import Tensor

from tutelage.core.distributed import gather_rows
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.method import Method
from tutelage.multilabel.methods.reductions import real_images
from tutelage.multilabel.methods.relations import functional
from tutelage.multilabel.networks.output import NetOutput


class Pkt(Method):
    """KL between rows of cosine similarities of embeddings (PKT, ECCV 2018, arXiv 1803.10837)."""

    labels = "any"
    student_reads = frozenset({"embedding_BC"})
    teacher_reads = frozenset({"embedding_BC"})

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        assert student.embedding_BC is not None and teacher.embedding_BC is not None
        student_BC, teacher_BC = gather_rows(student.embedding_BC.float()), gather_rows(teacher.embedding_BC.float())
        return {"pkt": functional.pkt(student_BC, teacher_BC, valid_B=gather_rows(real_images(batch)))}
