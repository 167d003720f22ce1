"""Log-probabilities of answers, computed in chunks over tokens: the logits of all tokens are never held at once.

With a vocabulary of 151,936 the fp32 logits of 8,192 tokens take 5 GB, and their gradient as much again. Here each
chunk's logits are made twice, once in the forward and once in the backward pass, and dropped at once. The second
time costs one more pass through the output layer, on answer tokens only. In return the backward pass knows what each
token's log-probability is worth, so any function of them can be the objective, and a loss scaler scales gradients
before they are rounded.

torch's ``F.linear_cross_entropy`` does the same for a plain linear layer; it needs torch 2.13, and takes neither an
adapted output layer nor an objective of single log-probabilities.
"""

# N answer tokens, n tokens of a chunk, H hidden size, V vocabulary

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# fp32 logits of one chunk. A GPU wants enough rows to be bound by arithmetic (441 of 151,936 tokens); a CPU is with 55.
CHUNK_BYTES = {"cpu": 2**25}
CHUNK_BYTES_ELSEWHERE = 2**28


def answer_nll(
    hidden_NH: Tensor,
    target_N: Tensor,
    *,
    head: nn.Module,
    weight_N: Tensor | None = None,
    chunk_bytes: int | None = None,
) -> Tensor:
    """Sum of the negative log-likelihoods of target tokens, in nats.

    Args:
        hidden_NH: Last hidden states at the positions whose next token carries loss.
        target_N: The ids of those next tokens.
        head: Hidden states to logits: a linear layer, tied or not, or one that carries an adapter.
        weight_N: Weight of each token; None for 1.
        chunk_bytes: What the fp32 logits of one chunk may take; None for what suits the device.

    Returns:
        A float32 scalar, differentiable (once) with respect to ``hidden_NH`` and the head's parameters.
    """
    log_probs_N = answer_log_probs(hidden_NH, target_N, head=head, chunk_bytes=chunk_bytes)
    return -(log_probs_N if weight_N is None else log_probs_N * weight_N).sum()


def answer_log_probs(hidden_NH: Tensor, target_N: Tensor, *, head: nn.Module, chunk_bytes: int | None = None) -> Tensor:
    """Log-probability of each target token, in nats; see :func:`answer_nll` for the arguments.

    Returns:
        float32 [N], differentiable (once) with respect to ``hidden_NH`` and the head's parameters.
    """
    if chunk_bytes is None:
        chunk_bytes = CHUNK_BYTES.get(hidden_NH.device.type, CHUNK_BYTES_ELSEWHERE)
    parameters = [p for p in head.parameters() if p.requires_grad] if torch.is_grad_enabled() else []
    log_probs_N: Tensor = _ChunkedLogProbs.apply(hidden_NH, target_N, head, chunk_bytes, *parameters)
    return log_probs_N


class _ChunkedLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, target_N: Tensor, head: nn.Module, chunk_bytes: int, *parameters: nn.Parameter
    ) -> Tensor:
        device = hidden_NH.device.type
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.head, ctx.rows = head, _chunks(len(hidden_NH), head, chunk_bytes)
        ctx.save_for_backward(hidden_NH, target_N, *parameters)
        logits_of = _PlainLogits(head, _compute_dtype(ctx.autocast, hidden_NH)) if _is_plain(head) else head
        log_probs_N = torch.empty(len(hidden_NH), device=hidden_NH.device)
        for rows in ctx.rows:
            logits_nV = logits_of(hidden_NH[rows]).float()
            log_probs_N[rows] = -F.cross_entropy(logits_nV, target_N[rows], reduction="none")
        return log_probs_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_log_probs_N: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NH, target_N, *parameters = ctx.saved_tensors
        d_hidden_NH = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        device, dtype, enabled = ctx.autocast
        with torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False):
            make = _plain_gradients if _is_plain(ctx.head) else _any_gradients
            add = make(ctx.head, parameters, gradients, _compute_dtype(ctx.autocast, hidden_NH))
            for rows in ctx.rows:
                d_h_nH = add(hidden_NH[rows], target_N[rows], d_log_probs_N[rows], d_hidden_NH is not None)
                if d_hidden_NH is not None and d_h_nH is not None:
                    d_hidden_NH[rows] = d_h_nH
        return (d_hidden_NH, None, None, None, *gradients)


# Adds a chunk's part to the parameters' gradients; returns the one of its hidden states, where that is asked for.
_Add = Callable[[Tensor, Tensor, Tensor, bool], Tensor | None]


def _is_plain(head: nn.Module) -> bool:
    # An adapted head is a module of its own class. A plain one is spared the graph, and a gradient buffer a chunk.
    return type(head) is nn.Linear


def _compute_dtype(autocast: tuple[str, torch.dtype, bool], hidden_NH: Tensor) -> torch.dtype:
    return autocast[1] if autocast[2] else hidden_NH.dtype


class _PlainLogits:
    """A linear layer in a compute dtype; its weights are cast once for all chunks."""

    def __init__(self, head: nn.Module, dtype: torch.dtype) -> None:
        assert isinstance(head, nn.Linear)
        self.dtype, self.weight_VH = dtype, head.weight.to(dtype)
        self.bias_V = None if head.bias is None else head.bias.to(dtype)

    def __call__(self, hidden_nH: Tensor) -> Tensor:
        with torch.autocast(hidden_nH.device.type, enabled=False):
            return F.linear(hidden_nH.to(self.dtype), self.weight_VH, self.bias_V)


def _plain_gradients(
    head: nn.Module, parameters: list[nn.Parameter], gradients: list[Tensor], dtype: torch.dtype
) -> _Add:
    logits_of = _PlainLogits(head, dtype)

    def add(hidden_nH: Tensor, target_n: Tensor, d_log_probs_n: Tensor, wanted: bool) -> Tensor | None:
        d_logits_nV = _d_logits_(logits_of(hidden_nH).float(), target_n, d_log_probs_n).to(dtype)
        with torch.autocast(hidden_nH.device.type, enabled=False):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if parameter.ndim == 1:
                    gradient += d_logits_nV.sum(0, dtype=gradient.dtype)
                elif gradient.dtype == dtype:
                    gradient.addmm_(d_logits_nV.T, hidden_nH.to(dtype))
                else:
                    gradient += d_logits_nV.T @ hidden_nH.to(dtype)
            return d_logits_nV @ logits_of.weight_VH if wanted else None

    return add


def _any_gradients(
    head: nn.Module, parameters: list[nn.Parameter], gradients: list[Tensor], dtype: torch.dtype
) -> _Add:
    """Gradients of any head, by automatic differentiation."""

    def add(hidden_nH: Tensor, target_n: Tensor, d_log_probs_n: Tensor, wanted: bool) -> Tensor | None:
        with torch.enable_grad():
            h_nH = hidden_nH.detach().requires_grad_(wanted)
            logits_nV = head(h_nH)
        inputs = [h_nH, *parameters] if wanted else parameters
        if not inputs:
            return None
        # A copy even where the head answers in fp32: its graph may hold the logits themselves.
        copy_nV = logits_nV.detach().to(torch.float32, copy=True)
        d_logits_nV = _d_logits_(copy_nV, target_n, d_log_probs_n).to(logits_nV.dtype)
        found = torch.autograd.grad(logits_nV, inputs, d_logits_nV)
        for gradient, part in zip(gradients, found[len(found) - len(gradients) :], strict=True):
            gradient += part
        return found[0] if wanted else None

    return add


def _d_logits_(logits_nV: Tensor, target_n: Tensor, d_log_probs_n: Tensor) -> Tensor:
    """Gradient with respect to fp32 logits, written over them."""
    logits_nV -= logits_nV.amax(-1, keepdim=True)
    z_n1 = logits_nV.exp_().sum(-1, keepdim=True)
    logits_nV *= -d_log_probs_n[:, None] / z_n1
    return logits_nV.scatter_add_(-1, target_n[:, None], d_log_probs_n[:, None])


def _chunks(count: int, head: nn.Module, chunk_bytes: int) -> list[slice]:
    """Cut tokens into chunks whose logits fit ``chunk_bytes``; at least one token each."""
    # The widest matrix is the head's own, also under an adapter (whose matrices have rank columns or rows).
    vocabulary = max(parameter.shape[0] for parameter in head.parameters() if parameter.ndim == 2)
    size = max(1, chunk_bytes // (4 * vocabulary))
    return [slice(start, start + size) for start in range(0, count, size)]
