"""Similarities of images to a queue of the teacher's, and of places to places."""

# B batch of this process, G batch of all, M queue, C channels of the teacher

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.distributed import gather_rows
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import image_mean, real_images
from tutelage.multilabel.methods.relations import functional
from tutelage.multilabel.methods.settings import not_negative, positive
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput


class TokenRelation(Method):
    """KL of softmaxed similarities: image to the teacher's queue, place to place (LightlyTrain, distillation v3).

    The queue holds the teacher's embeddings of the batch and of those before it, over all processes (theirs is each
    GPU's own). Slots that are not filled yet have no share of the softmax (theirs begin as zeros, which have).
    """

    labels = "any"
    student_reads = frozenset({"embedding_BC", "feature_map_BCHW"})
    teacher_reads = frozenset({"embedding_BC", "feature_map_BCHW"})

    queue_MC: Tensor
    filled_M: Tensor

    def __init__(self, *, queue: int, image_temperature: float, place_temperature: float, place_weight: float) -> None:
        """Choose the queue's length (half of the training set at most), temperatures, and the weight of places."""
        super().__init__()
        self.queue = positive("queue", queue)
        self.image_temperature = positive("image_temperature", image_temperature)
        self.place_temperature = positive("place_temperature", place_temperature)
        self.place_weight = not_negative("place_weight", place_weight)

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        self.image_projection = nn.Linear(student.shape.embedding_dim, teacher.shape.embedding_dim)
        self.place_projection = nn.Conv2d(student.shape.map_channels, teacher.shape.map_channels, 1)
        for part in (self.image_projection, self.place_projection):
            nn.init.trunc_normal_(part.weight, std=0.02)
        # An image must have left the queue before it comes again.
        length = max(data.batch_size, min(self.queue, data.num_samples // 2))
        self.register_buffer("queue_MC", torch.zeros(length, teacher.shape.embedding_dim))
        self.register_buffer("filled_M", torch.zeros(length, dtype=torch.bool))
        return None

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        assert student.embedding_BC is not None and student.feature_map_BCHW is not None
        assert teacher.embedding_BC is not None and teacher.feature_map_BCHW is not None
        self._push(gather_rows(teacher.embedding_BC.float()), gather_rows(real_images(batch)))
        image_B = functional.queue_relation(
            self.image_projection(student.embedding_BC),
            teacher.embedding_BC,
            queue_MC=self.queue_MC.clone(),  # the next step writes to it
            filled_M=self.filled_M,
            temperature=self.image_temperature,
        )
        size = teacher.feature_map_BCHW.shape[2:]
        places_BCHW = self.place_projection(student.feature_map_BCHW)
        if places_BCHW.shape[2:] != size:
            places_BCHW = F.interpolate(places_BCHW, size, mode="bilinear")
        place_B = functional.token_relation(places_BCHW, teacher.feature_map_BCHW, temperature=self.place_temperature)
        return {"image": image_mean(image_B, batch), "place": self.place_weight * image_mean(place_B, batch)}

    def _push(self, embedding_GC: Tensor, valid_G: Tensor) -> None:
        length = len(self.queue_MC)
        self.queue_MC.copy_(torch.cat([F.normalize(embedding_GC, dim=1), self.queue_MC])[:length])
        self.filled_M.copy_(torch.cat([valid_G, self.filled_M])[:length])
