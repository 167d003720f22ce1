"""The chunked loss is the full one: values, gradients, weights, adapters, precision, memory."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tutelage.text2sql.model.loss import answer_log_probs, answer_nll

HIDDEN, VOCABULARY, TOKENS = 24, 301, 50
THREE_ROWS = 3 * 4 * VOCABULARY  # bytes: chunks of 3, so the last of 50 tokens has 2
ANSWERS_IN_STEP = 3003  # 1 / 3003 is not a number of bf16: rounded to one, it is off by 0.23 %


def full_nll(hidden_NH: Tensor, target_N: Tensor, head: nn.Module) -> Tensor:
    return F.cross_entropy(head(hidden_NH).float(), target_N, reduction="sum")


def problem(*, bias: bool = False, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, nn.Linear]:
    torch.manual_seed(0)
    head = nn.Linear(HIDDEN, VOCABULARY, bias=bias).to(dtype)
    hidden = torch.randn(TOKENS, HIDDEN, dtype=dtype).requires_grad_()
    return hidden, torch.randint(VOCABULARY, (TOKENS,)), head


def gradients(loss: Tensor, hidden: Tensor, head: nn.Module) -> list[Tensor]:
    # Scaled, since the backward pass must honour what comes from above.
    return list(
        torch.autograd.grad(loss / ANSWERS_IN_STEP, [hidden, *(p for p in head.parameters() if p.requires_grad)])
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk_bytes", [1, THREE_ROWS, 10**9])
def test_equals_the_full_loss(bias: bool, chunk_bytes: int) -> None:
    hidden, target, head = problem(bias=bias)
    chunked, full = answer_nll(hidden, target, head=head, chunk_bytes=chunk_bytes), full_nll(hidden, target, head)
    torch.testing.assert_close(chunked, full)
    torch.testing.assert_close(
        gradients(chunked, hidden, head), gradients(full, hidden, head), atol=1e-5 / ANSWERS_IN_STEP, rtol=1.3e-6
    )


def test_frozen_head_passes_the_gradient_on_and_keeps_none() -> None:
    hidden, target, head = problem()
    head.requires_grad_(False)
    answer_nll(hidden, target, head=head, chunk_bytes=THREE_ROWS).backward()
    (expected,) = torch.autograd.grad(full_nll(hidden, target, head), [hidden])
    torch.testing.assert_close(hidden.grad, expected)
    assert head.weight.grad is None


class Tied(nn.Module):
    """An embedding whose matrix is the head's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, HIDDEN)
        self.head = nn.Linear(HIDDEN, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight


def test_tied_head_adds_both_gradients() -> None:
    torch.manual_seed(0)
    model, ids = Tied(), torch.randint(VOCABULARY, (TOKENS,))
    target = torch.randint(VOCABULARY, (TOKENS,))
    answer_nll(model.embedding(ids), target, head=model.head, chunk_bytes=THREE_ROWS).backward()
    found = model.head.weight.grad
    (expected,) = torch.autograd.grad(full_nll(model.embedding(ids), target, model.head), [model.head.weight])
    torch.testing.assert_close(found, expected)


def adapted(targets: list[str]) -> nn.Module:
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False)
    return inject_adapter_in_model(config, Tied())


def test_adapted_head_trains_its_adapter() -> None:
    model = adapted(["head"])
    head = model.get_submodule("head")
    hidden, target, _ = problem()
    chunked, full = answer_nll(hidden, target, head=head, chunk_bytes=THREE_ROWS), full_nll(hidden, target, head)
    torch.testing.assert_close(chunked, full)
    found = gradients(chunked, hidden, head)
    assert len(found) == 3  # hidden, A, B: the tied matrix itself is frozen
    torch.testing.assert_close(found, gradients(full, hidden, head), atol=1e-5 / ANSWERS_IN_STEP, rtol=1.3e-6)


@pytest.mark.parametrize("head_kind", ["plain", "adapted"])
def test_tokens_can_be_weighted_and_log_probabilities_be_any_objective(head_kind: str) -> None:
    hidden, target, head = problem()
    module: nn.Module = head if head_kind == "plain" else adapted(["head"]).get_submodule("head")
    weight = torch.rand(TOKENS)

    def full() -> Tensor:
        return F.log_softmax(module(hidden), -1).gather(-1, target[:, None])[:, 0]

    def chunked() -> Tensor:
        return answer_log_probs(hidden, target, head=module, chunk_bytes=THREE_ROWS)

    def preference(log_probs: Tensor) -> Tensor:  # as in DPO: what counts is a nonlinear function of sums over answers
        return F.logsigmoid(0.1 * (log_probs[:25].sum() - log_probs[25:].sum()))

    torch.testing.assert_close(chunked(), full())
    for expected, found in (
        ((-full() * weight).sum(), answer_nll(hidden, target, head=module, weight_N=weight)),
        (preference(full()), preference(chunked())),
    ):
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradients(found, hidden, module), gradients(expected, hidden, module))


@pytest.mark.parametrize("plain", [True, False])
def test_the_scale_of_the_loss_is_not_rounded_to_bf16(plain: bool) -> None:
    hidden, target, head = problem(dtype=torch.bfloat16)
    module = head if plain else nn.Sequential(head)
    loss = answer_nll(hidden, target, head=module, chunk_bytes=THREE_ROWS)
    scaled, whole = (torch.autograd.grad(loss / by, hidden, retain_graph=True)[0] for by in (ANSWERS_IN_STEP, 1))
    ratio = float(scaled.double().norm() / whole.double().norm())
    assert ratio * ANSWERS_IN_STEP == pytest.approx(1, abs=5e-4)  # 0.9977 with the scale in bf16


def test_a_loss_scaler_saves_small_gradients_of_fp16() -> None:
    """What fp16 rounds to zero (below 6e-8) are the probabilities of a model that is sure of its answers."""
    hidden, target, head = problem()
    with torch.no_grad():  # each target's logit is 16 above the others
        head.weight.mul_(0.1)
        head.weight[target] += 16 * hidden / hidden.square().sum(-1, keepdim=True)
    (exact,) = torch.autograd.grad(full_nll(hidden, target, head), [hidden])
    half = hidden.detach().half().requires_grad_()
    scaler = 2.0**16
    (found,) = torch.autograd.grad(
        scaler * answer_nll(half, target, head=head.half(), chunk_bytes=THREE_ROWS) / ANSWERS_IN_STEP, [half]
    )
    found = found.float() / scaler * ANSWERS_IN_STEP
    assert (found - exact).norm() < 0.05 * exact.norm()


class HeadCasts(TorchDispatchMode):
    """Counts conversions of a matrix of the head's size."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and args[0].shape == (VOCABULARY, HIDDEN):
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_an_fp32_head_is_cast_once_a_pass_and_not_once_a_chunk() -> None:
    hidden, target, head = problem()
    head.requires_grad_(False)
    with HeadCasts() as casts, torch.autocast("cpu", dtype=torch.bfloat16):
        loss = answer_nll(hidden, target, head=head, chunk_bytes=THREE_ROWS)
    assert casts.count == 1
    with casts:
        loss.backward()
    assert casts.count == 2


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("plain", [True, False])
def test_bf16_agrees_with_fp32(autocast: bool, plain: bool) -> None:
    """Under autocast (fp32 weights) or all in bf16; errors within a percent of the gradient's size."""
    hidden, target, head = problem()
    exact = gradients(full_nll(hidden, target, head), hidden, head)
    if not autocast:
        hidden = hidden.detach().bfloat16().requires_grad_()
        head = head.bfloat16()
    module = head if plain else nn.Sequential(head)  # not nn.Linear: the general path
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        chunked = answer_nll(hidden, target, head=module, chunk_bytes=THREE_ROWS)
        full = full_nll(hidden, target, module)
    assert chunked.dtype == torch.float32
    torch.testing.assert_close(chunked, full, rtol=2e-3, atol=0)
    for found, expected in zip(gradients(chunked, hidden, module), exact, strict=True):
        assert found.dtype == (torch.float32 if autocast else torch.bfloat16)
        assert (found.float() - expected).norm() < 0.02 * expected.norm()


def test_without_gradient() -> None:
    hidden, target, head = problem()
    with torch.no_grad():
        loss = answer_nll(hidden, target, head=head, chunk_bytes=THREE_ROWS)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, full_nll(hidden, target, head).detach())


def test_no_answer_token_gives_zero() -> None:
    hidden, target, head = problem()
    loss = answer_nll(hidden[:0], target[:0], head=head)
    loss.backward()
    assert loss.item() == 0.0
    assert not hidden.grad.any()


class Largest(TorchDispatchMode):
    """Watches every operation, forward and backward, for the largest tensor it makes."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor))])
        return out


@pytest.mark.parametrize("head_kind", ["trained", "frozen", "adapted"])
def test_no_tensor_is_larger_than_a_chunk_or_the_head(head_kind: str) -> None:
    hidden, target, head = problem()
    module: nn.Module = head.requires_grad_(head_kind == "trained")
    if head_kind == "adapted":
        module = adapted(["head"]).get_submodule("head")
    rows = 30
    with Largest() as chunked:
        answer_nll(hidden, target, head=module, chunk_bytes=rows * 4 * VOCABULARY).backward()
    with Largest() as full:
        full_nll(hidden, target, module).backward()
    assert chunked.numel == rows * VOCABULARY  # more than the head's own VOCABULARY × HIDDEN
    assert full.numel == TOKENS * VOCABULARY
