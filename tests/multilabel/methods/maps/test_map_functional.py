"""Maps on common grids, divergences and region logits, against plain loops and by hand."""

# B batch, K labels, C channels, H W map, P places

import itertools
import math

import pytest
import torch
from torch import Tensor

from tutelage.multilabel.methods.maps.functional import (
    attention,
    cosine_distance,
    normalised_absolute_error,
    normalised_squared_error,
    on_common_grid,
    region_logits,
    spatial_kl,
    split_mse,
    squared_error,
)
from tutelage.multilabel.networks.cam import area_pooled


def maps(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize(
    ("height", "width", "size"), [(10, 10, (7, 7)), (6, 6, (3, 2)), (7, 5, (4, 5)), (3, 4, (5, 8))]
)
def test_area_pooling_against_a_loop(height: int, width: int, size: tuple[int, int]) -> None:
    values = maps(1, 2, 3, height, width)
    expected = torch.zeros(2, 3, *size)
    for i, j in itertools.product(range(size[0]), range(size[1])):
        for y, x in itertools.product(range(height), range(width)):
            tall = min((i + 1) * height / size[0], y + 1) - max(i * height / size[0], y)
            wide = min((j + 1) * width / size[1], x + 1) - max(j * width / size[1], x)
            area = max(tall, 0) * max(wide, 0) / (height / size[0] * width / size[1])
            expected[:, :, i, j] += area * values[:, :, y, x]
    torch.testing.assert_close(area_pooled(values, size=size), expected, rtol=1e-4, atol=1e-5)


def test_area_pooling_keeps_means_where_adaptive_pooling_does_not() -> None:
    """10 → 7, as with a teacher at 320 pixels and a student at 224: the mean of a map is its label's logit."""
    values = maps(1, 4, 5, 10, 10)
    pooled = area_pooled(values, size=(7, 7))
    torch.testing.assert_close(pooled.mean((2, 3)), values.mean((2, 3)), rtol=1e-4, atol=1e-5)
    adaptive = torch.nn.functional.adaptive_avg_pool2d(values, (7, 7))
    assert (adaptive.mean((2, 3)) - values.mean((2, 3))).abs().max() > 0.05
    # the same where cells hold whole places
    for size in ((5, 5), (2, 10), (1, 1), (10, 10)):
        expected = torch.nn.functional.adaptive_avg_pool2d(values, size)
        torch.testing.assert_close(area_pooled(values, size=size), expected, rtol=1e-4, atol=1e-5)


def test_the_coarser_grid_is_common() -> None:
    coarse, fine = on_common_grid(maps(1, 4, 5, 3, 4), maps(2, 4, 5, 6, 4))
    assert coarse.shape == fine.shape == (4, 5, 12)
    torch.testing.assert_close(fine, maps(2, 4, 5, 6, 4).unflatten(2, (3, 2)).mean(3).flatten(2))
    assert on_common_grid(maps(1, 4, 5, 6, 6), maps(2, 4, 5, 6, 6), grid=2)[0].shape == (4, 5, 4)


def test_the_logit_spatial_identity_holds_to_rounding() -> None:
    """For linear GAP heads: mean_p ΔCAM² = (Δ(z − b))² + Var_p ΔCAM."""
    cams, logits = [], []
    for seed, channels in ((1, 6), (2, 11)):
        features, weight = maps(seed, 3, channels, 5, 7), maps(seed + 2, 8, channels)
        cams.append(torch.einsum("bchw,kc->bkhw", features, weight))
        logits.append(features.mean((2, 3)) @ weight.T)
    difference = (cams[0] - cams[1]).flatten(2)
    logit_BK, spatial_BK = split_mse(difference)
    torch.testing.assert_close(logit_BK, (logits[0] - logits[1]).square(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(logit_BK + spatial_BK, difference.square().mean(-1), rtol=1e-4, atol=1e-4)


def test_cosine_is_the_squared_error_of_normalised_maps() -> None:
    student, teacher = maps(1, 4, 5, 6), maps(2, 4, 5, 6)
    normalised = normalised_squared_error(student, teacher)
    torch.testing.assert_close(cosine_distance(student, teacher), normalised * 6 / 2)
    for i, k in itertools.product(range(4), range(5)):
        s, t = student[i, k] / student[i, k].norm(), teacher[i, k] / teacher[i, k].norm()
        assert normalised[i, k].item() == pytest.approx(((s - t) ** 2).sum().item() / 6, abs=1e-6)
        l1 = normalised_absolute_error(student, teacher)[i, k].item()
        assert l1 == pytest.approx((s - t).abs().sum().item(), abs=1e-5)


def test_spatial_kl_by_hand_and_against_a_loop() -> None:
    student, teacher = torch.tensor([0.0, 0.0]), torch.tensor([0.0, math.log(3)])  # softmax: 1/2, 1/2 and 1/4, 3/4
    by_hand = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert spatial_kl(student, teacher, temperature=1).item() == pytest.approx(by_hand, abs=1e-6)
    assert spatial_kl(2 * student, 2 * teacher, temperature=2).item() == pytest.approx(4 * by_hand, abs=1e-6)
    student, teacher = maps(1, 7), maps(2, 7)
    p, q = (torch.tensor([math.exp(v / 4) for v in x.tolist()]) for x in (teacher, student))
    p, q = p / p.sum(), q / q.sum()
    expected = 16 * sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True))
    assert spatial_kl(student, teacher, temperature=4).item() == pytest.approx(expected, rel=1e-4)


def test_attention_against_a_loop() -> None:
    features = maps(1, 2, 3, 4, 5)
    expected = torch.zeros(2, 4, 5)
    for channel in range(3):
        expected += features[:, channel] ** 2 / 3
    torch.testing.assert_close(attention(features), expected)
    assert attention(features.bfloat16()).dtype == torch.float32
    zero = torch.zeros(1, 2, 3, 3, requires_grad=True)
    attention(zero).sum().backward()
    assert zero.grad is not None and not zero.grad.any()


def test_region_logits_are_the_classifier_on_pooled_features() -> None:
    """fc(pool_r F), as SDD makes them, from maps and logits alone."""
    features, weight, bias = maps(1, 2, 6, 7, 7), maps(2, 4, 6), maps(3, 4)
    cams = torch.einsum("bchw,kc->bkhw", features, weight)
    logits = features.mean((2, 3)) @ weight.T + bias
    for grid in (1, 2, 4, 7):
        pooled = area_pooled(features, size=(grid, grid)).flatten(2)
        expected = torch.einsum("bcr,kc->bkr", pooled, weight) + bias[:, None]
        found = region_logits(cams, logits, size=(grid, grid))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found.mean(2), logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(region_logits(cams, logits, size=(1, 1))[:, :, 0], logits, rtol=1e-3, atol=1e-3)


def test_stored_values() -> None:
    student, teacher = maps(1, 2, 3, 5, 5), maps(2, 2, 3, 4, 4)
    a, b = on_common_grid(student, teacher)
    found = {
        "squared": squared_error(a, b).sum(),
        "cosine": cosine_distance(a, b).sum(),
        "normalised": normalised_squared_error(a, b).sum(),
        "spatial_kl": spatial_kl(a, b, temperature=2.0).sum(),
        "attention": attention(student).sum(),
    }
    stored = {
        "squared": 74.2259,
        "cosine": 5.86484,
        "normalised": 0.733105,
        "spatial_kl": 35.3425,
        "attention": 443.425,
    }
    assert {name: value.item() for name, value in found.items()} == pytest.approx(stored, rel=1e-4)
