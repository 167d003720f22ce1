"""The loss of answers, computed in chunks over tokens: the logits of all tokens are never held at once.

A vocabulary of 151,936 makes the fp32 logits of 8,192 tokens 5 GB, and their gradient as much again. Here the
gradient with respect to hidden states and head is computed in the forward pass, chunk by chunk, while the chunk's
logits exist; the backward pass only scales it. So the head runs once, and two chunks' worth of memory suffice.
"""

# N answer tokens, H hidden size, V vocabulary

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# fp32 logits of one chunk. A GPU wants enough rows to be bound by arithmetic (441 of 151,936 tokens); a CPU is with 55.
CHUNK_BYTES = {"cpu": 2**25}
CHUNK_BYTES_ELSEWHERE = 2**28


def answer_nll(hidden_NH: Tensor, target_N: Tensor, *, head: nn.Module, chunk_bytes: int | None = None) -> Tensor:
    """Sum of the negative log-likelihoods of target tokens, in nats.

    Args:
        hidden_NH: Last hidden states at the positions whose next token carries loss.
        target_N: The ids of those next tokens.
        head: Hidden states to logits: a linear layer, tied or not, or one that carries an adapter.
        chunk_bytes: What the fp32 logits of one chunk may take; None for what suits the device.

    Returns:
        A float32 scalar, differentiable (once) with respect to ``hidden_NH`` and the head's parameters.
    """
    if chunk_bytes is None:
        chunk_bytes = CHUNK_BYTES.get(hidden_NH.device.type, CHUNK_BYTES_ELSEWHERE)
    # An adapted head is a module of its own class; a plain one is spared the graph and a gradient buffer a chunk.
    plain = type(head) is nn.Linear
    parameters = [p for p in head.parameters() if p.requires_grad] if torch.is_grad_enabled() else []
    nll: Tensor = _ChunkedNll.apply(hidden_NH, target_N, _plain if plain else _any, head, chunk_bytes, *parameters)
    return nll


class _ChunkedNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        target_N: Tensor,
        chunk: Callable[..., Tensor],
        head: nn.Module,
        chunk_bytes: int,
        *parameters: nn.Parameter,
    ) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden_NH.device)
        gradient_NH = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        size = _rows_of(head, chunk_bytes)
        for start in range(0, len(hidden_NH), size):
            rows = slice(start, start + size)
            total += chunk(
                hidden_NH[rows],
                target_N[rows],
                head,
                None if gradient_NH is None else gradient_NH[rows],
                list(zip(parameters, gradients, strict=True)),
            )
        ctx.save_for_backward(*([] if gradient_NH is None else [gradient_NH]), *gradients)
        ctx.num_parameters = len(parameters)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        # A new tensor, not in place: with retain_graph this runs again.
        scaled = [gradient * scale.to(gradient.dtype) for gradient in ctx.saved_tensors]
        of_parameters = scaled[len(scaled) - ctx.num_parameters :]
        of_hidden = scaled[0] if len(scaled) > ctx.num_parameters else None
        return (of_hidden, None, None, None, None, *of_parameters)


def _plain(
    hidden_nH: Tensor,
    target_n: Tensor,
    head: nn.Linear,
    gradient_nH: Tensor | None,
    gradients: list[tuple[nn.Parameter, Tensor]],
) -> Tensor:
    """One chunk through a linear layer; its gradients are added up in place."""
    device = hidden_nH.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_nH.dtype
    with torch.autocast(device, enabled=False):
        h_nH, weight_VH = hidden_nH.to(dtype), head.weight.to(dtype)
        logits_nV = F.linear(h_nH, weight_VH, None if head.bias is None else head.bias.to(dtype))
        nll, d_logits_nV = _cross_entropy_(logits_nV.float(), target_n)
        d_logits_nV = d_logits_nV.to(dtype)
        if gradient_nH is not None:
            gradient_nH.copy_(d_logits_nV @ weight_VH)
        for parameter, gradient in gradients:
            if parameter is head.bias:
                gradient += d_logits_nV.sum(0, dtype=gradient.dtype)
            elif gradient.dtype == dtype:
                gradient.addmm_(d_logits_nV.T, h_nH)
            else:
                gradient += d_logits_nV.T @ h_nH
    return nll


def _any(
    hidden_nH: Tensor,
    target_n: Tensor,
    head: nn.Module,
    gradient_nH: Tensor | None,
    gradients: list[tuple[nn.Parameter, Tensor]],
) -> Tensor:
    """One chunk through any head, by automatic differentiation."""
    with torch.enable_grad():
        h_nH = hidden_nH.detach().requires_grad_(gradient_nH is not None)
        logits_nV = head(h_nH)
    # A copy even where the head answers in fp32: its graph may hold the logits themselves.
    nll, d_logits_nV = _cross_entropy_(logits_nV.detach().to(torch.float32, copy=True), target_n)
    if gradient_nH is None and not gradients:
        return nll
    inputs = [parameter for parameter, _ in gradients]
    found = torch.autograd.grad(
        logits_nV, [h_nH, *inputs] if gradient_nH is not None else inputs, d_logits_nV.to(logits_nV.dtype)
    )
    if gradient_nH is not None:
        gradient_nH.copy_(found[0])
    for (_, gradient), part in zip(gradients, found[len(found) - len(gradients) :], strict=True):
        gradient += part
    return nll


def _cross_entropy_(logits_nV: Tensor, target_n: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy, and its gradient with respect to the logits, written over them."""
    logits_nV -= logits_nV.amax(-1, keepdim=True)
    of_target_n1 = logits_nV.gather(-1, target_n[:, None])
    z_n1 = logits_nV.exp_().sum(-1, keepdim=True)
    nll = (z_n1.log() - of_target_n1).sum()
    logits_nV /= z_n1
    logits_nV.scatter_add_(-1, target_n[:, None], torch.full_like(of_target_n1, -1.0))
    return nll, logits_nV


def _rows_of(head: nn.Module, chunk_bytes: int) -> int:
    """How many tokens' logits fit ``chunk_bytes``; at least 1."""
    # The widest matrix is the head's own, also under an adapter (whose matrices have rank columns or rows).
    vocabulary = max(parameter.shape[0] for parameter in head.parameters() if parameter.ndim == 2)
    return max(1, chunk_bytes // (4 * vocabulary))
