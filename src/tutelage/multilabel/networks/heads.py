"""Heads: from a backbone's features to one logit a label, and to class activation maps.

Each says what its maps are, and whether their mean plus a bias is the logits exactly.
"""

# B batch, K labels, C channels, H W map

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor, nn

from tutelage.multilabel.networks.cam import linear_cam
from tutelage.multilabel.networks.output import Field, NetOutput


@dataclass(frozen=True, slots=True)
class Widths:
    """Channels of what a backbone hands to its head."""

    pooled: int
    located: int


class Features(Protocol):
    """What a backbone hands to its head. Only what is asked for is computed."""

    def pooled(self) -> Tensor:
        """Return the embedding [B, C] after the backbone's own pooling."""

    def located(self) -> Tensor:
        """Return the locations [B, C, H, W], each as the classifier would see it alone."""


class Head(nn.Module, ABC):
    """Turns features into logits and maps. Made with ``widths`` and ``num_labels`` beside its own settings.

    Attributes:
        pointwise: It sees the pooled embedding, and can be applied at each location. Other heads pool themselves.
        label_embedding_dim: Channels of its embedding of each label; None where it has none.
    """

    pointwise: ClassVar[bool]
    label_embedding_dim: int | None = None

    @abstractmethod
    def forward(self, features: Features, *, reads: frozenset[Field]) -> NetOutput:
        """Fill the logits, and those of the maps and label embeddings that are read."""


class Linear(Head):
    """Global average pooling and a linear layer.

    The mean of a map plus the bias is the logit, exactly, where the backbone's pooling is a mean with nothing after
    it (ResNet, MobileNetV2, EfficientNet, RepVGG, Swin, TResNet). Where a norm or a layer follows the pooling
    (ConvNeXt, MobileNetV3) or a token replaces it (ViT), both are applied at each location: approximate.
    """

    pointwise = True

    def __init__(self, *, widths: Widths, num_labels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(widths.pooled, num_labels)

    def forward(self, features: Features, *, reads: frozenset[Field]) -> NetOutput:
        logits_BK = self.classifier(features.pooled())
        if "cams_BKHW" not in reads:
            return NetOutput(logits_BK)
        return NetOutput(logits_BK, cams_BKHW=linear_cam(features.located(), self.classifier.weight))
