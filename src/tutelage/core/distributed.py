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
    return _masked_sum(values, mask) * world_size()


def global_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the masked values of all processes' batches; 0 where there is none.

    Each process divides by the mean count of all, so that averaging the gradients over processes gives the
    gradient of the mean over the global batch, however the mask's entries are spread.

    Args:
        values: Any shape.
        mask: Of the same shape: weights, or which values count.
    """
    count = mask.sum().to(torch.float32)
    if world_size() > 1:
        distributed.all_reduce(count)
        count = count / world_size()
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


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes, in the order that one process would have them, with their gradient.

    Compute the same loss of all rows on every process. Each then holds the gradient of the whole loss for its own
    rows; that gradient is scaled by the number of processes, so that averaging over processes, as DDP does, gives the
    gradient of the loss of the global batch.

    Args:
        rows: One a sample, the first axis; the same number on each process.
    """
    if world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        each = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world_size())]
        distributed.all_gather(each, rows.contiguous())
        # core.batches deals the samples of a batch out in turns.
        return torch.stack(each, dim=1).flatten(0, 1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient[distributed.get_rank() :: world_size()] * world_size()


def _masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    # where, not a product alone: a value that does not count may be infinite.
    return torch.where(mask > 0, values * mask, 0).sum()


def world_size() -> int:
    """Return the number of processes; 1 outside a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
