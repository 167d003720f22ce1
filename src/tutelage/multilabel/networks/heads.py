"""Heads: from a backbone's features to one logit a label, and to class activation maps.

Each says what its maps are, and whether their mean plus a bias is the logits exactly.
"""

# B batch, K labels, C channels, H W map, N = H·W locations, R attention heads,
# G groups of L labels, D channels of a label's embedding

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutelage.core.errors import ConfigError
from tutelage.multilabel.networks.cam import chosen_linear_cam, linear_cam
from tutelage.multilabel.networks.output import Field, NetOutput

# With maps of all labels, those of some are at hand too. Heads that make all maps for their logits give these.
MAPS: frozenset[Field] = frozenset({"cams_BKHW", "label_cams"})


@dataclass(frozen=True, slots=True)
class FeatureDims:
    """Channels of what a backbone hands to its head."""

    pooled: int
    spatial: int


class Features(Protocol):
    """What a backbone hands to its head. Only what is asked for is computed."""

    def pooled(self) -> Tensor:
        """Return the embedding [B, C] after the backbone's own pooling."""

    def spatial_features(self) -> Tensor:
        """Return the locations [B, C, H, W], each as the classifier would see it alone."""

    def feature_map(self) -> Tensor:
        """Return the backbone's last feature map [B, C, H, W], before pooling."""


class Head(nn.Module, ABC):
    """Turns features into logits and maps. Made with ``dims`` and ``num_labels`` beside its own settings.

    Attributes:
        pointwise: It sees the pooled embedding, and can be applied at each location. Other heads pool themselves.
        mean_is_logit: The mean of a label's map plus the label's bias is its logit, where the backbone's pooling is a
            mean. Of other heads the maps say where, and not how much.
        has_maps: It makes class activation maps.
        label_embedding_dim: Channels of its embedding of each label; None where it has none.
    """

    pointwise: ClassVar[bool]
    mean_is_logit: ClassVar[bool]
    has_maps: ClassVar[bool] = True
    label_embedding_dim: int | None = None

    @abstractmethod
    def forward(self, features: Features, *, reads: frozenset[Field]) -> NetOutput:
        """Fill the logits, and those of the maps and label embeddings that are read."""

    @abstractmethod
    def bias(self) -> nn.Parameter | None:
        """Return what is added to the logits [K] at last; None where nothing is."""


class Linear(Head):
    """Global average pooling and a linear layer.

    The mean of a map plus the bias is the logit, exactly, where the backbone's pooling is a mean with nothing after
    it (ResNet, MobileNetV2, EfficientNet, RepVGG, Swin, TResNet). Where a norm or a layer follows the pooling
    (ConvNeXt, MobileNetV3) or a token replaces it (ViT), both are applied at each location: approximate.
    """

    pointwise = True
    mean_is_logit = True

    def __init__(self, *, dims: FeatureDims, num_labels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(dims.pooled, num_labels)

    def forward(self, features: Features, *, reads: frozenset[Field]) -> NetOutput:
        output = NetOutput(self.classifier(features.pooled()))
        if reads & MAPS:
            _add_maps(output, features.spatial_features(), self.classifier.weight, reads)
        return output

    def bias(self) -> nn.Parameter:
        return self.classifier.bias


class FeaturesOnly(Head):
    """No classifier: the backbone is all there is. Its logits have no columns."""

    pointwise = True
    mean_is_logit = False
    has_maps = False

    def forward(self, features: Features, *, reads: frozenset[Field]) -> NetOutput:
        map_BCHW = features.feature_map()
        return NetOutput(map_BCHW.new_empty(len(map_BCHW), 0))

    def bias(self) -> None:
        return None


class Gmp(Head):
    """A score for each location, and the best location's is the logit.

    The maps are the scores: their maximum plus the bias is the logit, exactly. Their mean is not.
    """

    pointwise = False
    mean_is_logit = False

    def __init__(self, *, dims: FeatureDims, num_labels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(dims.spatial, num_labels)

    def forward(self, features: Features, *, reads: frozenset[Field]) -> NetOutput:
        cams_BKHW = linear_cam(features.spatial_features(), self.classifier.weight)
        return _shown(cams_BKHW.amax((2, 3)) + self.classifier.bias, cams_BKHW, reads)

    def bias(self) -> nn.Parameter:
        return self.classifier.bias


class Lse(Head):
    """A score s for each location, pooled by log-mean-exp: (1/r)·log(mean exp(r·s)) (Pinheiro & Collobert, CVPR 2015).

    Between mean (sharpness r → 0) and maximum (r → ∞). The maps are the scores: pooled so, plus the bias, they are the
    logit, exactly. Their mean is not.
    """

    pointwise = False
    mean_is_logit = False

    def __init__(self, *, dims: FeatureDims, num_labels: int, sharpness: float) -> None:
        super().__init__()
        if not sharpness > 0:
            raise ConfigError("head.sharpness", f"{sharpness} is not above 0", "for the mean choose head=linear")
        self.classifier = nn.Linear(dims.spatial, num_labels)
        self.sharpness = sharpness

    def forward(self, features: Features, *, reads: frozenset[Field]) -> NetOutput:
        cams_BKHW = linear_cam(features.spatial_features(), self.classifier.weight)
        scores_BKN = cams_BKHW.flatten(2)
        pooled_BK = (torch.logsumexp(scores_BKN * self.sharpness, 2) - math.log(scores_BKN.shape[2])) / self.sharpness
        return _shown(pooled_BK + self.classifier.bias, cams_BKHW, reads)

    def bias(self) -> nn.Parameter:
        return self.classifier.bias


class Csra(Head):
    """Class-specific residual attention (Zhu & Wu, ICCV 2021, arXiv 2108.02456).

    Score s = w·F/‖w‖ at each location; logit = mean(s) + λ·Σ a·s, with attention a = softmax(T·s) over locations.
    Several heads, each with a temperature of its own, are added; the last of several takes the maximum, as in their
    code.

    The map is each location's share of the logit, Σ_heads s·(1 + λ·H·W·a): its mean is the logit, exactly; there is no
    bias.
    """

    pointwise = False
    mean_is_logit = True

    # Their code's temperatures; infinity is the maximum (their 99).
    TEMPERATURES: ClassVar[dict[int, tuple[float, ...]]] = {
        1: (1,),
        2: (1, math.inf),
        4: (1, 2, 4, math.inf),
        6: (1, 2, 3, 4, 5, math.inf),
        8: (1, 2, 3, 4, 5, 6, 7, math.inf),
    }

    def __init__(self, *, dims: FeatureDims, num_labels: int, heads: int, weight: float) -> None:
        super().__init__()
        if heads not in self.TEMPERATURES:
            raise ConfigError("head.heads", f"no temperatures are published for {heads}", "choose 1, 2, 4, 6 or 8")
        self.temperatures = self.TEMPERATURES[heads]
        self.num_labels = num_labels
        self.weight = weight
        self.classifier = nn.Linear(dims.spatial, heads * num_labels, bias=False)

    def forward(self, features: Features, *, reads: frozenset[Field]) -> NetOutput:
        unit_KC = functional.normalize(self.classifier.weight, dim=1)
        scores_BCHW = linear_cam(features.spatial_features(), unit_KC)
        batch, _, height, width = scores_BCHW.shape
        maps = (batch, self.num_labels, height, width)
        scores_RBKN = scores_BCHW.reshape(batch, -1, self.num_labels, height * width).transpose(0, 1)
        shares_BKN = torch.zeros_like(scores_RBKN[0])
        for temperature, scores_BKN in zip(self.temperatures, scores_RBKN, strict=True):
            if math.isinf(temperature):
                attention_BKN = functional.one_hot(scores_BKN.argmax(2), scores_BKN.shape[2]).to(scores_BKN.dtype)
            else:
                attention_BKN = torch.softmax(scores_BKN * temperature, 2)
            shares_BKN = shares_BKN + scores_BKN * (1 + self.weight * height * width * attention_BKN)
        return _shown(shares_BKN.mean(2), shares_BKN.reshape(maps), reads)

    def bias(self) -> None:
        return None


class Mlp(Head):
    """The network's own pooling and a layer of hidden units.

    Its maps are approximate: the same layers applied at each location, less the last bias; the mean of what they say
    of each location is not what they say of the mean.
    """

    pointwise = True
    mean_is_logit = False

    def __init__(self, *, dims: FeatureDims, num_labels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dims.pooled, hidden)
        self.classifier = nn.Linear(hidden, num_labels)

    def forward(self, features: Features, *, reads: frozenset[Field]) -> NetOutput:
        output = NetOutput(self.classifier(functional.gelu(self.hidden(features.pooled()))))
        if reads & MAPS:
            spatial_BHWC = features.spatial_features().permute(0, 2, 3, 1)
            hidden_BCHW = functional.gelu(self.hidden(spatial_BHWC)).permute(0, 3, 1, 2)
            _add_maps(output, hidden_BCHW, self.classifier.weight, reads)
        return output

    def bias(self) -> nn.Parameter:
        return self.classifier.bias


class MlDecoder(Head):
    """Cross-attention from fixed queries (ML-Decoder, Ridnik et al., WACV 2023, arXiv 2111.12933).

    Each of ``groups`` queries gathers from all locations; a layer of its own turns what it gathered into the logits of
    its labels. With a group for each label, what it gathered is the label's embedding (as L2D uses it); with fewer
    there are no label embeddings.

    The maps are approximate: a label's logit, less its bias, spread over the locations as its query's attention is,
    averaged over attention heads. Their mean plus the bias is the logit, exactly; where in the image a label was seen
    is only what the attention says.
    """

    pointwise = False
    mean_is_logit = True

    def __init__(
        self,
        *,
        dims: FeatureDims,
        num_labels: int,
        groups: int | None,
        channels: int,
        attention_heads: int,
        feedforward: int,
        dropout: float,
    ) -> None:
        """Make the decoder.

        Args:
            dims: Of the backbone.
            num_labels: Labels.
            groups: Queries; None for one a label.
            channels: Of queries and embeddings.
            attention_heads: A divisor of ``channels``.
            feedforward: Hidden units after the attention.
            dropout: As in a transformer.

        Raises:
            ConfigError: More groups than labels, or channels that the attention heads cannot share.
        """
        super().__init__()
        groups = num_labels if groups is None else groups
        if not 1 <= groups <= num_labels:
            raise ConfigError("head.groups", f"{groups} for {num_labels} labels", f"give 1 to {num_labels}, or null")
        if channels % attention_heads:
            raise ConfigError(
                "head.attention_heads", f"{attention_heads} cannot share {channels} channels", "give a divisor"
            )
        self.label_embedding_dim = channels if groups == num_labels else None
        self.num_labels = num_labels
        self.labels_per_group = -(-num_labels // groups)
        self.embed = nn.Linear(dims.spatial, channels)
        # Fixed, as in the paper: learning them gained nothing.
        self.register_buffer("queries_GD", torch.randn(groups, channels))
        self.attention = nn.MultiheadAttention(channels, attention_heads, dropout=dropout, batch_first=True)
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(3)])
        self.feedforward = nn.Sequential(
            nn.Linear(channels, feedforward), nn.ReLU(), nn.Dropout(dropout), nn.Linear(feedforward, channels)
        )
        self.dropout = nn.Dropout(dropout)
        self.weight_GDL = nn.Parameter(torch.empty(groups, channels, self.labels_per_group))
        self.bias_K = nn.Parameter(torch.zeros(num_labels))
        for weight_DL in self.weight_GDL:
            nn.init.xavier_normal_(weight_DL)

    queries_GD: Tensor

    def forward(self, features: Features, *, reads: frozenset[Field]) -> NetOutput:
        spatial_BCHW = features.spatial_features()
        batch, _, height, width = spatial_BCHW.shape
        memory_BND = functional.relu(self.embed(spatial_BCHW.flatten(2).transpose(1, 2)))
        queries_BGD = self.queries_GD.to(memory_BND.dtype).expand(batch, -1, -1)
        norm_query, norm_gathered, norm_decoded = self.norms
        queries_BGD = norm_query(queries_BGD + self.dropout(queries_BGD))
        gathered_BGD, attention_BGN = self.attention(
            queries_BGD, memory_BND, memory_BND, need_weights=bool(reads & MAPS), average_attn_weights=True
        )
        decoded_BGD = norm_gathered(queries_BGD + self.dropout(gathered_BGD))
        decoded_BGD = norm_decoded(decoded_BGD + self.dropout(self.feedforward(decoded_BGD)))
        evidence_BK = torch.einsum("bgd,gdl->bgl", decoded_BGD, self.weight_GDL).flatten(1)[:, : self.num_labels]
        output = NetOutput(evidence_BK + self.bias_K)
        if reads & MAPS:
            attention_BKN = attention_BGN.repeat_interleave(self.labels_per_group, 1)[:, : self.num_labels]
            cams_BKN = evidence_BK[:, :, None] * attention_BKN * (height * width)
            output.cams_BKHW = cams_BKN.reshape(batch, self.num_labels, height, width)
        if "label_embeddings_BKD" in reads and self.label_embedding_dim is not None:
            output.label_embeddings_BKD = decoded_BGD
        return output

    def bias(self) -> nn.Parameter:
        return self.bias_K


def _shown(logits_BK: Tensor, cams_BKHW: Tensor, reads: frozenset[Field]) -> NetOutput:
    return NetOutput(logits_BK, cams_BKHW=cams_BKHW if reads & MAPS else None)


def _add_maps(output: NetOutput, features_BCHW: Tensor, weight_KC: Tensor, reads: frozenset[Field]) -> None:
    if "cams_BKHW" in reads:
        output.cams_BKHW = linear_cam(features_BCHW, weight_KC)
    else:
        output.label_cams = partial(chosen_linear_cam, features_BCHW, weight_KC)
