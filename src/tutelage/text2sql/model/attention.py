"""Attention within trees of samples that lie end to end in one row.

Registered with transformers under ``packed``. A sample by itself is one call of a causal kernel. A tree's prefix is one
causal call, too; its branches are laid under each other and attend to the prefix and to themselves. No mask of T × T is
ever made. On a CUDA device with Triton, rows with shared prefixes go through flex_attention instead, which computes the
blocks of 128 × 128 that hold something to attend to, and no others. Both are exact.
"""

# B rows, N heads, K key heads, G query heads of a key head, T tokens, D head size
# n branches, L tokens of the longest branch, P tokens of the prefix, M tokens of all branches

import functools
import importlib.util
import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tutelage.core.errors import ConfigError

PACKED = "packed"
BLOCK = 128  # tokens of a side of flex_attention's blocks


@dataclass(frozen=True, slots=True, eq=False)
class Branches:
    """Where the tokens of a tree's branches lie.

    Attributes:
        rows_nL: Of each branch, its tokens' places in the row; a short branch is filled with its last.
        mask_LT: Which of the prefix's and the branch's own P + L tokens each token of a branch sees.
        real_M: Places of the real tokens among n × L, in the row's order.
    """

    rows_nL: Tensor
    mask_LT: Tensor
    real_M: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """A tree's place in its row: its prefix, or a sample by itself, from ``start`` to ``end``; then its branches."""

    start: int
    end: int
    branches: Branches | None


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What attention has to know of a row; made once a batch and read by every layer.

    Attributes:
        spans: The trees in their order.
        block_mask: For flex_attention; None where the spans are used.
    """

    spans: tuple[Span, ...]
    block_mask: BlockMask | None

    @property
    def padding(self) -> int:
        """Tokens that the row must be filled up with."""
        if self.block_mask is None:
            return 0
        return int(self.block_mask.seq_lengths[0]) - max(span.end for span in self.spans)


def lay_out(trees: Sequence[tuple[int, ...]], *, device: torch.device) -> Layout:
    """Find each token's place.

    Args:
        trees: Of each tree the length of its prefix, then of each branch; see ``TokenBatch``.
        device: Where the row is.
    """
    if any(prefix and len(branches) > 1 for prefix, *branches in trees) and flex_runs_on(device):
        length = sum(map(sum, trees))
        return Layout((Span(0, length, None),), block_mask(trees, device=device))
    spans = []
    start = 0
    for prefix, *lengths in trees:
        end = start + prefix + sum(lengths)
        if prefix and len(lengths) > 1:
            spans.append(Span(start, start + prefix, _branches(start + prefix, lengths, prefix=prefix, device=device)))
        elif prefix:  # one branch: the sample as it was
            spans.append(Span(start, end, None))
        else:
            ends = np.cumsum([start, *lengths]).tolist()
            spans += [Span(a, b, None) for a, b in itertools.pairwise(ends)]
        start = end
    return Layout(tuple(spans), None)


def _branches(start: int, lengths: Sequence[int], *, prefix: int, device: torch.device) -> Branches:
    longest = max(lengths)
    starts_n = start + np.cumsum([0, *lengths[:-1]])
    within_nL = np.minimum(np.arange(longest)[None], np.array(lengths)[:, None] - 1)
    real_nL = np.arange(longest)[None] < np.array(lengths)[:, None]
    return Branches(
        torch.from_numpy(starts_n[:, None] + within_nL).to(device),
        # Filler stands on the right of what is real, where a causal mask lets no real token look.
        torch.ones(longest, prefix + longest, dtype=torch.bool, device=device).tril(prefix),
        torch.from_numpy(np.flatnonzero(real_nL)).to(device),
    )


def packed_attention(
    module: nn.Module,
    query_BNTD: Tensor,
    key_BKTD: Tensor,
    value_BKTD: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    layout: Layout | None = None,
    **kwargs: Any,  # the signature is transformers': a model passes what it likes
) -> tuple[Tensor, None]:
    """Attend within the trees of a layout; without one this is transformers' ``sdpa``.

    Returns:
        The attended values [B, T, N, D], and None for the weights that fast kernels do not give.
    """
    if layout is None:
        if attention_mask is not None and attention_mask.numel() == 0:
            attention_mask = None  # padded on the right: causal attention never sees the padding
        attended: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_BNTD, key_BKTD, value_BKTD, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return attended
    # Under autocast the rotary embedding leaves queries and keys in fp32.
    query_BNTD, key_BKTD = query_BNTD.to(value_BKTD.dtype), key_BKTD.to(value_BKTD.dtype)
    if layout.block_mask is not None:
        if dropout:
            raise ConfigError(
                "model.path",
                f"the model drops attention weights (attention_dropout={dropout}), which flex_attention cannot do",
                "set data.prefix=none, or attention_dropout to 0 in the model's config.json",
            )
        found_BNTD = _compiled_flex()(
            query_BNTD, key_BKTD, value_BKTD, block_mask=layout.block_mask, scale=scaling, enable_gqa=True
        )
        return found_BNTD.transpose(1, 2).contiguous(), None
    parts = []
    for span in layout.spans:
        q, k, v = (states[:, :, span.start : span.end] for states in (query_BNTD, key_BKTD, value_BKTD))
        parts.append(
            F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling, is_causal=True, enable_gqa=True)
        )
        if span.branches is not None:
            rows = span.branches.rows_nL
            own_q, own_k, own_v = (states[0][:, rows] for states in (query_BNTD, key_BKTD, value_BKTD))
            parts.append(
                _attend_branches(own_q, own_k, own_v, k, v, branches=span.branches, dropout=dropout, scaling=scaling)
            )
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None


def _attend_branches(
    query_NnLD: Tensor,
    key_KnLD: Tensor,
    value_KnLD: Tensor,
    prefix_key_1KPD: Tensor,
    prefix_value_1KPD: Tensor,
    *,
    branches: Branches,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Let branches attend to their prefix and to themselves; [1, N, M, D]."""
    heads, count, longest, size = query_NnLD.shape
    groups = heads // len(key_KnLD)
    # The query heads of a key head stand under each other, so keys need not be repeated for them.
    query = query_NnLD.reshape(-1, groups, count, longest, size).permute(2, 0, 1, 3, 4).flatten(2, 3)
    key, value = (
        torch.cat([prefix.expand(count, -1, -1, -1), own.transpose(0, 1)], 2)
        for prefix, own in ((prefix_key_1KPD, key_KnLD), (prefix_value_1KPD, value_KnLD))
    )
    found = F.scaled_dot_product_attention(
        query, key, value, attn_mask=branches.mask_LT.repeat(groups, 1), dropout_p=dropout, scale=scaling
    )
    found_NnLD = found.reshape(count, -1, longest, size).transpose(0, 1)
    return found_NnLD.flatten(1, 2)[None, :, branches.real_M]


def block_mask(trees: Sequence[tuple[int, ...]], *, device: torch.device) -> BlockMask:
    """Say which blocks of a row's T × T pairs flex_attention computes, and which of their pairs count.

    The row is filled up to a multiple of BLOCK with tokens that see themselves and nothing else. The table of blocks is
    made from the trees' lengths: torch's own ``create_block_mask`` looks at all T × T pairs.
    """
    length = sum(map(sum, trees))
    whole = -(-length // BLOCK) * BLOCK
    # Token q sees the tokens from start[q] to prefix_end[q], and from branch[q] to itself.
    start, prefix_end, branch = (np.arange(whole) for _ in range(3))
    at = 0
    for prefix, *lengths in trees:
        tree = slice(at, at + prefix + sum(lengths))
        start[tree], prefix_end[tree] = at, at + prefix
        branch[at : at + prefix] = at
        at += prefix
        for own in lengths:
            branch[at : at + own] = at
            at += own
    blocks = whole // BLOCK
    q = np.arange(whole)
    # Two stretches of keys of each query; where they touch, the first is empty and the second is both.
    touch = branch <= prefix_end
    second = np.where(touch, start, branch)
    stretches = [(second, q + 1), (start[~touch], prefix_end[~touch])]
    rows = [q // BLOCK, q[~touch] // BLOCK]
    touched, full = (np.zeros((blocks, blocks + 1), dtype=np.int64) for _ in range(2))
    for row, (first, end) in zip(rows, stretches, strict=True):
        _count(touched, row, first // BLOCK, -(-end // BLOCK))
        _count(full, row, -(-first // BLOCK), end // BLOCK)
    touched, full = (table[:, :-1].cumsum(1) for table in (touched, full))
    whole_blocks = full == BLOCK
    partly = (touched > 0) & ~whole_blocks

    def ordered(table: np.ndarray) -> tuple[Tensor, Tensor]:
        indices = np.argsort(~table, axis=1, kind="stable").astype(np.int32)
        return tuple(  # type: ignore[return-value]
            torch.from_numpy(part)[None, None].to(device) for part in (table.sum(1).astype(np.int32), indices)
        )

    start_T, prefix_end_T, branch_T = (torch.from_numpy(places).to(device) for places in (start, prefix_end, branch))

    def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q) & (k >= start_T[q]) & ((k < prefix_end_T[q]) | (k >= branch_T[q]))

    return BlockMask.from_kv_blocks(
        *ordered(partly), *ordered(whole_blocks), BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(whole, whole)
    )


def _count(table: np.ndarray, rows: np.ndarray, first: np.ndarray, end: np.ndarray) -> None:
    """Add 1 at ``first`` and -1 at ``end`` in rows where first < end, so that sums from the left count stretches."""
    real = first < end
    np.add.at(table, (rows[real], first[real]), 1)
    np.add.at(table, (rows[real], end[real]), -1)


def flex_runs_on(device: torch.device) -> bool:
    """Whether a device has flex_attention with gradients: CUDA with Triton. Says once where Triton is missing."""
    if device.type != "cuda":
        return False
    if importlib.util.find_spec("triton") is None:
        _say_once_that_triton_is_missing()
        return False
    return True


@functools.cache
def _say_once_that_triton_is_missing() -> None:
    warnings.warn(
        "flex_attention needs Triton, which is not installed: shared prefixes are computed tree by tree, which is as "
        "exact and slower",
        stacklevel=4,
    )


@functools.cache
def _compiled_flex() -> Callable[..., Tensor]:
    # Dynamic, or each new length of a row would be compiled for seconds.
    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=True)
    return compiled


def no_mask(device: torch.device) -> Tensor:
    """What to pass as ``attention_mask`` in training, so that no mask of T × T is made.

    transformers takes a mask of four dimensions as it is.
    """
    return torch.empty(1, 1, 0, 0, device=device)


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)  # for generation, where there is no layout
