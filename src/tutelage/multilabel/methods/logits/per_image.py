"""What losses of the logits of one image at a time share."""

# B batch, K labels

from abc import ABC, abstractmethod

from torch import Tensor

from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.method import Method
from tutelage.multilabel.methods.reductions import image_mean, known_labels
from tutelage.multilabel.networks.output import NetOutput


class PerImage(Method, ABC):
    """Losses of each image's logits in fp32, averaged over images."""

    student_reads = frozenset({"logits_BK"})
    teacher_reads = frozenset({"logits_BK"})

    @abstractmethod
    def each(self, student_BK: Tensor, teacher_BK: Tensor, target_BK: Tensor, known_BK: Tensor) -> dict[str, Tensor]:
        """Return named losses [B]. Labels that are not known take no part."""

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        named = self.each(student.logits_BK.float(), teacher.logits_BK.float(), batch.target_BK, known_labels(batch))
        return {name: image_mean(loss_B, batch) for name, loss_B in named.items()}
