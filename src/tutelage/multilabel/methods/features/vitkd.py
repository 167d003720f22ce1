"""ViTKD: shallow layers are mimicked, the last is generated from what was left of it."""

# B batch, C channels, H W map, N tokens

import torch
from torch import Tensor, nn

from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.features.functional import (
    hidden_places,
    masked_distance,
    on_smaller_grid,
    squared_distance,
)
from tutelage.multilabel.methods.features.stages import paired_stages
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import image_mean
from tutelage.multilabel.methods.settings import not_negative, positive
from tutelage.multilabel.networks.backbone import to_map
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import Field, NetOutput

# A ViT's stages are every fourth of its depth; ViTKD wants its first two blocks.
FIRST_BLOCKS = ("blocks.0", "blocks.1")


class VitKd(Method):
    """α·Σ(F_S − F_T)² of two shallow layers + β·Σ(G(mask F_S) − F_T)² of the last (ViTKD, arXiv 2209.02432).

    Of a ViT the two shallow layers are its first blocks, without class tokens; of any other network its first two
    stages (ours). The places that are hidden are a function of sample and step.
    """

    labels = "any"
    # What may be read; setup leaves what these networks need.
    student_reads = frozenset({"features", "stages", "feature_map_BCHW"})
    teacher_reads = frozenset({"features", "stages", "feature_map_BCHW"})

    step: Tensor

    def __init__(self, *, mimic_weight: float, generation_weight: float, hidden: float) -> None:
        """Choose α, β, and the share of places that are hidden."""
        super().__init__()
        if not 0 < hidden < 1:
            raise ConfigError("method.hidden", f"{hidden} is no share of places", "give more than 0 and less than 1")
        self.mimic_weight = not_negative("mimic_weight", mimic_weight)
        self.generation_weight = not_negative("generation_weight", generation_weight)
        self.hidden = positive("hidden", hidden)

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        self.of_student, self.of_teacher = ShallowLayers(student), ShallowLayers(teacher)
        self.student_reads = self.of_student.reads | {"feature_map_BCHW"}
        self.teacher_reads = self.of_teacher.reads | {"feature_map_BCHW"}
        self.mimics = nn.ModuleList(
            nn.Conv2d(of_student, of_teacher, 1)
            for of_student, of_teacher in zip(self.of_student.channels, self.of_teacher.channels, strict=True)
        )
        channels = teacher.shape.map_channels
        self.align = nn.Conv2d(student.shape.map_channels, channels, 1)
        self.mask_token_C = nn.Parameter(torch.zeros(channels))
        self.generation = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.register_buffer("step", torch.tensor(0))
        return None

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        assert student.feature_map_BCHW is not None and teacher.feature_map_BCHW is not None
        mimicked = []
        for mimic, student_BCHW, teacher_BCHW in zip(
            self.mimics, self.of_student.read(student), self.of_teacher.read(teacher), strict=True
        ):
            student_BCHW, teacher_BCHW = on_smaller_grid(student_BCHW, teacher_BCHW)
            mimicked.append(image_mean(squared_distance(mimic(student_BCHW), teacher_BCHW), batch))
        student_BCHW, teacher_BCHW = on_smaller_grid(student.feature_map_BCHW, teacher.feature_map_BCHW)
        height, width = student_BCHW.shape[2:]
        hidden_BHW = hidden_places(batch.index_B, step=self.step, size=(height, width), ratio=self.hidden)
        aligned_BCHW = self.align(student_BCHW)
        token_C11 = self.mask_token_C.to(aligned_BCHW.dtype)[:, None, None]
        generated_BCHW = self.generation(torch.where(hidden_BHW[:, None], token_C11, aligned_BCHW))
        loss_B = masked_distance(generated_BCHW, teacher_BCHW, hidden_BHW=hidden_BHW, ratio=self.hidden)
        self.step += 1
        return {
            "mimic": self.mimic_weight * torch.stack(mimicked).sum(),
            "generation": self.generation_weight * image_mean(loss_B, batch),
        }


class ShallowLayers:
    """Reads the first two blocks of a ViT, or the first two stages of any other network, as maps."""

    def __init__(self, network: Network) -> None:
        shape, names = network.shape, {name for name, _ in network.backbone.named_modules()}
        self._grid, self._prefix = shape.grid, shape.num_prefix_tokens
        self._blocks = network.anatomy.layout == "tokens" and names.issuperset(FIRST_BLOCKS)
        self.reads: frozenset[Field] = frozenset({"features" if self._blocks else "stages"})
        if self._blocks:
            network.watch(FIRST_BLOCKS)
            self.channels = (shape.map_channels, shape.map_channels)
        else:
            most = len(paired_stages(network, network, most=99))
            if most < 2:
                raise ConfigError("method", f"{network.spec.name} has no two stages", "choose another network")
            self.channels = (shape.stage_channels[0], shape.stage_channels[1])

    def read(self, output: NetOutput) -> tuple[Tensor, ...]:
        """Return two maps [B, C, H, W]."""
        if not self._blocks:
            return output.stages[:2]
        tokens = (output.features[name][:, self._prefix :] for name in FIRST_BLOCKS)
        return tuple(to_map(tokens_BNC, layout="tokens", prefix=0, grid=self._grid) for tokens_BNC in tokens)
