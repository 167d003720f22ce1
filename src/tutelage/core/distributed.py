"""Sums and means over the batches of all processes, whose gradients are then averaged; shares put together."""

from typing import Any

import torch
from torch import Tensor, distributed


def global_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over the masked values of all processes' batches.

    Scaled so that averaging the gradients over processes gives the gradient of the sum over the global batch.

    Args:
        values: Any shape.
        mask: Of the same shape: weights, or which values count.
    """
    return _masked_sum(values, mask) * _world_size()


def global_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the masked values of all processes' batches; 0 where there is none.

    Each process divides by the mean count of all, so that averaging the gradients over processes gives the
    gradient of the mean over the global batch, however the mask's entries are spread.

    Args:
        values: Any shape.
        mask: Of the same shape: weights, or which values count.
    """
    count = mask.sum().to(torch.float32)
    if _world_size() > 1:
        distributed.all_reduce(count)
        count = count / _world_size()
    return _masked_sum(values, mask) / count.clamp(min=torch.finfo(torch.float32).tiny)


def gather(mine: list[Any], world_size: int) -> list[Any]:
    """Put the ranks' shares (every world-th item each) together again, on every rank."""
    if world_size == 1:
        return mine
    shares: list[list[Any]] = [[] for _ in range(world_size)]
    distributed.all_gather_object(shares, mine)
    whole: list[Any] = [None] * sum(map(len, shares))
    for rank, share in enumerate(shares):
        whole[rank::world_size] = share
    return whole


def _masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    # where, not a product alone: a value that does not count may be infinite.
    return torch.where(mask > 0, values * mask, 0).sum()


def _world_size() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
