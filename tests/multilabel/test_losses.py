"""Task losses against hand-worked values, identities and torch's own."""

# B batch, K labels

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tutelage.core.errors import ConfigError
from tutelage.multilabel.losses import Asl, Bce, Focal, TaskLoss


def asl(**changes: Any) -> Asl:
    values = {"reduction": "sum", "gamma_positive": 0.0, "gamma_negative": 4.0, "margin": 0.05}
    return Asl(**(values | changes))


LOSSES: list[TaskLoss] = [
    Bce(reduction="sum"),
    Bce(reduction="mean"),
    Focal(reduction="sum", gamma=2),
    asl(),
    asl(reduction="mean"),
]


def batch(*, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits_BK = torch.randn(6, 5, generator=generator) * 3
    target_BK = torch.randint(-1, 2, (6, 5), generator=generator, dtype=torch.int8)
    return logits_BK, target_BK


def logit(probability: float) -> Tensor:
    return torch.tensor([[math.log(probability / (1 - probability))]])


def target(value: int) -> Tensor:
    return torch.tensor([[value]], dtype=torch.int8)


@pytest.mark.parametrize(
    ("loss", "probability", "value", "expected"),
    [
        (Bce(reduction="sum"), 0.8, 1, -math.log(0.8)),
        (Bce(reduction="sum"), 0.8, 0, -math.log(0.2)),
        (Focal(reduction="sum", gamma=2), 0.8, 1, -(0.2**2) * math.log(0.8)),
        (Focal(reduction="sum", gamma=2), 0.8, 0, -(0.8**2) * math.log(0.2)),
        # p_m = .8 − .05 = .75: −.75⁴ · log .25
        (asl(), 0.8, 0, -(0.75**4) * math.log(0.25)),
        (asl(), 0.8, 1, -math.log(0.8)),
        (asl(gamma_positive=1.0), 0.8, 1, -0.2 * math.log(0.8)),
        # below the margin an absent label costs nothing
        (asl(), 0.04, 0, 0.0),
    ],
)
def test_hand_worked_values(loss: TaskLoss, probability: float, value: int, expected: float) -> None:
    assert loss(logit(probability), target(value)).item() == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_bce_is_torchs() -> None:
    logits_BK, target_BK = batch()
    counted = target_BK >= 0
    expected = functional.binary_cross_entropy_with_logits(logits_BK[counted], target_BK[counted].float())
    assert Bce(reduction="mean")(logits_BK, target_BK).item() == pytest.approx(expected.item(), rel=1e-6)


def test_asl_without_focusing_is_bce_gradient_and_all() -> None:
    logits_BK, target_BK = batch()
    plain = asl(gamma_positive=0.0, gamma_negative=0.0, margin=0.0)
    found, found_gradient = value_and_gradient(plain, logits_BK, target_BK)
    expected, expected_gradient = value_and_gradient(Bce(reduction="sum"), logits_BK, target_BK)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_gradient, expected_gradient)


def test_focal_is_symmetric_asl_but_for_the_gradient_of_its_weight() -> None:
    logits_BK, target_BK = batch()
    symmetric = asl(gamma_positive=2.0, gamma_negative=2.0, margin=0.0)
    found, found_gradient = value_and_gradient(symmetric, logits_BK, target_BK)
    expected, expected_gradient = value_and_gradient(Focal(reduction="sum", gamma=2), logits_BK, target_BK)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found_gradient, expected_gradient)


def test_asls_weight_carries_no_gradient_and_focals_does() -> None:
    # Present at p = .8. ASL(γ₊ = 2): weight .04, gradient −.04 · (1 − p). Focal adds 2·(1 − p)·p(1 − p)·log p.
    _, found = value_and_gradient(asl(gamma_positive=2.0), logit(0.8), target(1))
    assert found.item() == pytest.approx(-0.04 * 0.2, rel=1e-4)
    _, found = value_and_gradient(Focal(reduction="sum", gamma=2), logit(0.8), target(1))
    assert found.item() == pytest.approx(-0.04 * 0.2 + 2 * 0.2 * 0.8 * 0.2 * math.log(0.8), rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_ignored_labels_count_for_nothing(loss: TaskLoss) -> None:
    logits_BK, target_BK = batch()
    value, gradient_BK = value_and_gradient(loss, logits_BK, target_BK)
    assert (gradient_BK[target_BK == -1] == 0).all() and (gradient_BK[target_BK >= 0] != 0).any()
    changed_BK = torch.where(target_BK == -1, torch.inf, logits_BK)
    torch.testing.assert_close(loss(changed_BK, target_BK), value)
    nothing = loss(logits_BK, torch.full_like(target_BK, -1))
    assert nothing.item() == 0


def test_mean_is_the_sum_over_the_labels_that_count() -> None:
    logits_BK, target_BK = batch()
    counted = int((target_BK >= 0).sum())
    assert 0 < counted < target_BK.numel()
    for of in (asl, lambda **kw: Bce(**kw), lambda **kw: Focal(gamma=2, **kw)):
        mean, summed = (of(reduction=name)(logits_BK, target_BK) for name in ("mean", "sum"))
        torch.testing.assert_close(mean, summed / counted)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("extreme", [-200.0, 200.0])
def test_extreme_logits_stay_finite(loss: TaskLoss, extreme: float) -> None:
    for value in (0, 1):
        found, gradient = value_and_gradient(loss, torch.tensor([[extreme]]), target(value))
        assert torch.isfinite(found) and torch.isfinite(gradient).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_logits_are_computed_in_full(loss: TaskLoss) -> None:
    logits_BK, target_BK = batch()
    half_BK = logits_BK.bfloat16()
    found = loss(half_BK, target_BK)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(half_BK.float(), target_BK))


@pytest.mark.parametrize(
    ("key", "value"), [("gamma_positive", -1.0), ("gamma_negative", float("nan")), ("margin", 1.0)]
)
def test_impossible_values_are_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"loss.{key}"):
        asl(**{key: value})


def value_and_gradient(loss: TaskLoss, logits_BK: Tensor, target_BK: Tensor) -> tuple[Tensor, Tensor]:
    leaf_BK = logits_BK.clone().requires_grad_()
    value = loss(leaf_BK, target_BK)
    (gradient_BK,) = torch.autograd.grad(value, leaf_BK)
    return value.detach(), gradient_BK
