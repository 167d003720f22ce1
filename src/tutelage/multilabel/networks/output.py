"""What every network shows, and nothing of how it is made."""

# B batch, K labels, C channels, D embedding, H W map

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Field = Literal["logits_BK", "cams_BKHW", "stages", "embedding_BC", "label_embeddings_BKD"]


@dataclass(slots=True)
class NetOutput:
    """What a network shows of one batch. A field that nobody reads is not computed."""

    logits_BK: Tensor
    cams_BKHW: Tensor | None = None  # linear GAP head: mean over H W, plus bias, is logits
    stages: tuple[Tensor, ...] = ()  # feature maps, shallow to deep, each [B, C_i, H_i, W_i]
    embedding_BC: Tensor | None = None  # pooled features
    label_embeddings_BKD: Tensor | None = None  # heads that have one embedding a label
