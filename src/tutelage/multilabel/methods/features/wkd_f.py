"""Wasserstein distance between Gaussians of the last feature maps."""

import math

from torch import Tensor

from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.features import functional
from tutelage.multilabel.methods.features.stages import bottleneck
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import image_mean
from tutelage.multilabel.methods.settings import not_negative, positive
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput


class WkdF(Method):
    """2‖Δmean‖² + ‖Δstd‖² of each channel in each cell of a grid (WKD-F, NeurIPS 2024, arXiv 2412.08139).

    From ``decay_from`` on, a share of the training, the loss falls to 0 along half a cosine.
    """

    labels = "any"
    student_reads = frozenset({"feature_map_BCHW"})
    teacher_reads = frozenset({"feature_map_BCHW"})

    def __init__(self, *, grid: int, mean_weight: float, hidden: int, decay_from: float) -> None:
        """Choose cells a side, the weight of the means, the projector's width, and when the loss begins to fall."""
        super().__init__()
        self.grid, self.hidden = positive("grid", grid), positive("hidden", hidden)
        self.mean_weight = not_negative("mean_weight", mean_weight)
        self.decay_from = not_negative("decay_from", decay_from)

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        most = min(*student.shape.grid, *teacher.shape.grid)
        if self.grid > most:
            raise ConfigError(
                "method.grid", f"{self.grid} cells a side, where a map has {most} places", f"give 1 to {most}"
            )
        self.projector = bottleneck(student.shape.map_channels, self.hidden, teacher.shape.map_channels)
        return None

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        assert student.feature_map_BCHW is not None and teacher.feature_map_BCHW is not None
        loss_B = functional.wkd_f(
            self.projector(student.feature_map_BCHW),
            teacher.feature_map_BCHW,
            grid=self.grid,
            mean_weight=self.mean_weight,
        )
        return {"wkd_f": image_mean(loss_B, batch) * self.decay(progress)}

    def decay(self, progress: float) -> float:
        """Return by how much the loss is weighed at a share of the training."""
        if progress <= self.decay_from:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (progress - self.decay_from) / (1 - self.decay_from)))
