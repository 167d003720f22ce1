"""Scale-decoupled distillation: the logits of regions."""

# B batch, K labels, R regions

from typing import Literal

import torch
from torch import Tensor

from tutelage.core.distributed import global_mean
from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.logits.functional import bernoulli_kl
from tutelage.multilabel.methods.maps.functional import common_size, region_logits
from tutelage.multilabel.methods.maps.heads import require_mean_is_logit
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import known_labels, weighted_label_sum
from tutelage.multilabel.methods.settings import positive
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import NetOutput


class Sdd(Method):
    """`method=mld` or `mse` on the logits of regions, weighted mean over regions (SDD, CVPR 2024, arXiv 2403.13512).

    Regions where the teacher is right about a label and wrong about the image, or the reverse, weigh more: they carry
    what the whole image hides. The published hosts take softmaxes; here each label stands by itself, as it does for
    the correctness of the teacher.

    Region logits are pooled class activation maps plus the bias. So the method lies between two others: with the grid
    1 it is `method=mld` (or `mse`), and with ``host=mse``, ``complementary_weight=1`` and the maps' own grid it is
    `method=cam_kd` but for the biases, which cam_kd leaves aside.
    """

    student_reads = frozenset({"logits_BK", "cams_BKHW"})
    teacher_reads = frozenset({"logits_BK", "cams_BKHW"})
    labels = "any"

    def __init__(
        self,
        *,
        host: Literal["mld", "mse"],
        temperature: float,
        grids: list[int | None],
        complementary_weight: float,
    ) -> None:
        """Choose.

        Args:
            host: The logit loss, reduced over labels and images as it is by itself.
            temperature: T of ``host=mld``.
            grids: Sides of the grids of regions; null is the coarser grid of the two networks' maps.
            complementary_weight: Of regions where the teacher's correctness differs from that of the whole image.

        Raises:
            ConfigError: A value out of its range.
        """
        super().__init__()
        if not grids or any(grid is not None and grid < 1 for grid in grids):
            raise ConfigError("method.grids", f"{grids} are no grids", "give sides of 1 or more, such as [1, 2, 4]")
        self.host, self.temperature, self.grids = host, positive("temperature", temperature), grids
        self.complementary_weight = positive("complementary_weight", complementary_weight)

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        require_mean_is_logit(student, teacher, key="grids")
        return None

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        assert student.cams_BKHW is not None and teacher.cams_BKHW is not None
        own = common_size(student.cams_BKHW, teacher.cams_BKHW)
        sizes = [own if grid is None else (grid, grid) for grid in self.grids]
        student_BKR, teacher_BKR = (
            torch.cat([region_logits(cams_BKHW.float(), logits_BK.float(), size=size) for size in sizes], 2)
            for cams_BKHW, logits_BK in ((student.cams_BKHW, student.logits_BK), (teacher.cams_BKHW, teacher.logits_BK))
        )
        if self.host == "mld":
            distance_BKR = bernoulli_kl(student_BKR, teacher_BKR, temperature=self.temperature)
        else:
            distance_BKR = (student_BKR - teacher_BKR).square()
        present_BK1 = (batch.target_BK == 1)[:, :, None]
        right_BKR = (teacher_BKR > 0) == present_BK1
        right_BK1 = (teacher.logits_BK[:, :, None] > 0) == present_BK1
        weight_BKR = torch.where(right_BKR == right_BK1, 1.0, self.complementary_weight)
        distance_BK = (weight_BKR * distance_BKR).mean(-1)
        known_BK = known_labels(batch)
        if self.host == "mld":
            return {"sdd": weighted_label_sum(distance_BK, known_BK, batch)}
        return {"sdd": global_mean(distance_BK, known_BK)}
