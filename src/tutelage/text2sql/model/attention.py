"""Attention within samples that lie end to end in one row.

Registered with transformers under ``packed``. A causal kernel runs on each sample by itself: no mask of T × T is
ever made, and the work grows with the samples' lengths squared and not with the row's.
"""

# B rows, N heads, K key heads, T tokens, D head size

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED = "packed"


def packed_attention(
    module: nn.Module,
    query_BNTD: Tensor,
    key_BKTD: Tensor,
    value_BKTD: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    lengths: tuple[int, ...] = (),
    **kwargs: Any,  # the signature is transformers': a model passes what it likes
) -> tuple[Tensor, None]:
    """Attend within samples of the given lengths; without lengths this is transformers' ``sdpa``.

    Returns:
        The attended values [B, T, N, D], and None for the weights that fast kernels do not give.
    """
    if not lengths:
        attended: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_BNTD, key_BKTD, value_BKTD, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return attended
    # Under autocast the rotary embedding leaves queries and keys in fp32.
    query_BNTD, key_BKTD = query_BNTD.to(value_BKTD.dtype), key_BKTD.to(value_BKTD.dtype)
    parts = [
        F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling, is_causal=True, enable_gqa=True)
        for q, k, v in zip(
            *(torch.split(states, list(lengths), 2) for states in (query_BNTD, key_BKTD, value_BKTD)), strict=True
        )
    ]
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None


def no_mask(device: torch.device) -> Tensor:
    """What to pass as ``attention_mask`` with lengths: transformers takes a mask of four dimensions as it is."""
    return torch.empty(1, 1, 0, 0, device=device)


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)  # for generation, where there are no lengths
