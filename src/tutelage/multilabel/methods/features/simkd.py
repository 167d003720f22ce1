"""The reused classifier: the student's last map becomes the teacher's, and the teacher's head classifies it."""

# B batch, C channels, H W map

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.features.functional import mse, pooled_to
from tutelage.multilabel.methods.features.stages import bottleneck
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import image_mean
from tutelage.multilabel.methods.settings import positive
from tutelage.multilabel.networks.backbone import Backbone, from_map
from tutelage.multilabel.networks.heads import Features, Head
from tutelage.multilabel.networks.network import BackboneFeatures, Network
from tutelage.multilabel.networks.output import Field, NetOutput

PROJECTED = "projected"


class SimKd(Method):
    """mse(projector(F_S), F_T) before pooling, the teacher's head reused (SimKD, CVPR 2022, arXiv 2203.14001).

    The trained student is its backbone, the projector and the teacher's pooling and head, which stay as they are: it is
    tested and exported so. The paper trains by this loss alone; here the task loss, through the reused head, stands
    beside it, as with every method.
    """

    labels = "any"
    student_reads = frozenset({"features"})
    teacher_reads = frozenset({"feature_map_BCHW"})
    replaces_head = True

    def __init__(self, *, factor: int) -> None:
        """Choose by how much the projector's hidden channels are fewer than the teacher's."""
        super().__init__()
        self.factor = positive("factor", factor)

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        shape = teacher.shape
        if shape.num_prefix_tokens:
            raise ConfigError(
                "model.teacher.name",
                f"simkd reuses what follows the last map, and {teacher.spec.name} classifies with tokens beside it",
                "choose a teacher that pools its map (a CNN or a Swin), or method=vkd, which matches embeddings",
            )
        projector = bottleneck(
            student.shape.map_channels, max(1, shape.map_channels // self.factor), shape.map_channels
        )
        student.replace_head(ReusedClassifier(projector, teacher))
        return student

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        assert teacher.feature_map_BCHW is not None
        return {"simkd": image_mean(mse(student.features[PROJECTED], teacher.feature_map_BCHW), batch)}


class ReusedClassifier(Head):
    """A projector to the teacher's last map, on its grid, and copies of the teacher's pooling and head, frozen."""

    pointwise = False

    def __init__(self, projector: nn.Module, teacher: Network) -> None:
        super().__init__()
        self.projector = projector
        self.pooling = _pooling_of(teacher)
        self.classifier = copy.deepcopy(teacher.head).requires_grad_(False)
        self.label_embedding_dim = self.classifier.label_embedding_dim
        self._anatomy = teacher.anatomy
        self.train(self.training)

    def train(self, mode: bool = True) -> "ReusedClassifier":
        super().train(mode)
        self.pooling.eval()
        self.classifier.eval()
        return self

    def forward(self, features: Features, *, reads: frozenset[Field]) -> NetOutput:
        projected_BCHW = self.projector(_resized(features.feature_map(), self._anatomy.grid))
        raw = from_map(projected_BCHW, layout=self._anatomy.layout)
        output: NetOutput = self.classifier(BackboneFeatures(self.pooling, raw, anatomy=self._anatomy), reads=reads)
        output.features = {PROJECTED: projected_BCHW}
        return output

    def bias(self) -> None:
        return None  # the teacher's stays as it was learned


def _resized(maps_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    if maps_BCHW.shape[2] < size[0] or maps_BCHW.shape[3] < size[1]:
        return F.interpolate(maps_BCHW, size, mode="bilinear")
    return pooled_to(maps_BCHW, size)


def _pooling_of(teacher: Network) -> Backbone:
    """Copy a backbone without what its ``forward_head`` does not use: often, all of its weights."""
    backbone, anatomy = teacher.backbone, teacher.anatomy
    used: set[str] = set()
    names = [(name, child) for name, child in backbone.named_children()]
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: used.add(name))
        for name, child in names
        for module in child.modules()
    ]
    device = next(backbone.parameters()).device
    try:
        with torch.no_grad():
            map_BCHW = torch.zeros(2, anatomy.map_channels, *anatomy.grid, device=device)
            backbone.forward_head(from_map(map_BCHW, layout=anatomy.layout), pre_logits=True)
    finally:
        for hook in hooks:
            hook.remove()
    unused = {id(child): nn.Identity() for name, child in names if name not in used}
    # In the copy, what is not used is an identity, and never copied.
    own = copy.deepcopy(backbone, memo=dict(unused))
    for name, _ in list(own.named_parameters(recurse=False)):
        own.register_parameter(name, None)  # class tokens, position embeddings
    return own.requires_grad_(False)
