"""cam_kd: hand-worked values, and what must hold of any setting."""

# B batch, K labels, C channels, H W map

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.maps.cam_kd import CamKD, on_common_grid, split_mse
from tutelage.multilabel.networks.output import NetOutput

SETTINGS = [
    {"transform": transform, "distance": distance, "region": region, "weigh_by_teacher": weigh}
    for transform, distance in [
        *itertools.product(("identity", "relu", "l2", "min_max"), ("mse", "l1", "cosine")),
        ("softmax", "kl"),
    ]
    for region, weigh in [("all", True), ("positives", False), ("teacher_top_k", False), ("teacher_above", True)]
]


def shown(cams: Tensor, bias: float = 0.0) -> NetOutput:
    return NetOutput(logits_BK=cams.flatten(2).mean(-1) + bias, cams_BKHW=cams)


def cams(seed: int, B: int = 4, K: int = 5, H: int = 6, W: int = 6) -> Tensor:
    return torch.randn(B, K, H, W, generator=torch.Generator().manual_seed(seed)) * 3


def target(B: int = 4, K: int = 5) -> Tensor:
    return torch.randint(-1, 2, (B, K), generator=torch.Generator().manual_seed(9), dtype=torch.int8)


def batch(target_BK: Tensor) -> Batch:
    return Batch(torch.zeros(len(target_BK), 3, 1, 1), target_BK, torch.arange(len(target_BK)))


def loss(method: CamKD, student: Tensor, teacher: Tensor, target_BK: Tensor | None = None) -> Tensor:
    return method(shown(student), shown(teacher), batch(target() if target_BK is None else target_BK), 0.0)["cam"]


def test_rows_of_padding_cost_nothing() -> None:
    student, teacher, target_BK = cams(1), cams(2), target()
    padded = batch(target_BK)._replace(index_B=torch.tensor([0, 7, -1, -1]))
    found = CamKD()(shown(student), shown(teacher), padded, 0.0)["cam"]
    torch.testing.assert_close(found, loss(CamKD(), student[:2], teacher[:2], target_BK[:2]))
    assert CamKD()(shown(student), shown(teacher), padded._replace(index_B=torch.full((4,), -1)), 0.0)["cam"] == 0


def test_the_default_is_the_mean_square_of_all_maps_by_hand() -> None:
    student = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    teacher = torch.tensor([[[[1.0, 0.0], [3.0, 2.0]], [[1.0, -1.0], [0.0, 0.0]]]])
    # label 0: (0, 2, 0, 2)² → mean 2; label 1: (−1, 1, 0, 0)² → mean 0.5
    assert loss(CamKD(), student, teacher).item() == pytest.approx((2 + 0.5) / 2)
    # label 0: mean difference 1 → 1, variance 1; label 1: mean 0 → 0, variance 0.5
    assert loss(CamKD(spatial_weight=0.0), student, teacher).item() == pytest.approx((1 + 0) / 2)
    assert loss(CamKD(logit_weight=0.0), student, teacher).item() == pytest.approx((1 + 0.5) / 2)


def test_kl_by_hand() -> None:
    student = torch.tensor([[[[0.0, 0.0]]]])
    teacher = torch.tensor([[[[0.0, 2.0]]]]) * torch.tensor(3.0).log() / 2  # softmax: 1/4, 3/4
    expected = 0.25 * torch.tensor(0.5).log() + 0.75 * torch.tensor(1.5).log()
    found = loss(CamKD(transform="softmax", distance="kl"), student, teacher, torch.ones(1, 1))
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    # τ = 2 of doubled maps is the same distribution, times τ²
    warm = loss(CamKD(transform="softmax", distance="kl", temperature=2.0), 2 * student, 2 * teacher, torch.ones(1, 1))
    assert warm.item() == pytest.approx(4 * expected.item(), abs=1e-5)


@pytest.mark.parametrize("region", ["positives", "teacher_top_k", "teacher_above"])
def test_regions_against_a_loop(region: str) -> None:
    student, teacher, target_BK = cams(1), cams(2), target()
    teacher_out = shown(teacher)
    distances = []
    for i, k in itertools.product(range(4), range(5)):
        logits = teacher_out.logits_BK[i]
        inside = {
            "positives": target_BK[i, k] == 1,
            "teacher_top_k": k in logits.topk(2).indices,
            "teacher_above": torch.sigmoid(logits[k]) > 0.6,
        }[region]
        if inside:
            distances.append((student[i, k] - teacher[i, k]).square().mean())
    method = CamKD(region=region, top_k=2, threshold=0.6)  # type: ignore[arg-type]
    assert torch.isclose(loss(method, student, teacher, target_BK), torch.stack(distances).mean())


def test_no_pair_in_the_region_costs_nothing_and_has_a_gradient() -> None:
    student = cams(1).requires_grad_()
    found = loss(CamKD(region="positives"), student, cams(2), torch.zeros(4, 5))
    found.backward()
    assert found.item() == 0 and student.grad is not None and not student.grad.any()


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_identical_networks_give_zero(setting: dict[str, object]) -> None:
    assert abs(loss(CamKD(**setting), cams(1), cams(1)).item()) < 1e-6  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_permuting_labels_permutes_nothing_else(setting: dict[str, object]) -> None:
    method, order = CamKD(**setting), torch.tensor([3, 0, 4, 1, 2])  # type: ignore[arg-type]
    found = loss(method, cams(1)[:, order], cams(2)[:, order], target()[:, order])
    assert torch.allclose(found, loss(method, cams(1), cams(2)), rtol=1e-5)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_bf16_agrees_with_fp32(setting: dict[str, object]) -> None:
    method = CamKD(**setting)  # type: ignore[arg-type]
    student, teacher = cams(1).bfloat16(), cams(2).bfloat16()
    found = method(shown(student), shown(teacher), batch(target()), 0.0)["cam"]
    # The maps are rounded already: from there on, all arithmetic is in fp32. Only the teacher's logits, which
    # choose the region, are rounded once more.
    exact = method(
        NetOutput(shown(student).logits_BK.float(), student.float()),
        NetOutput(shown(teacher).logits_BK.float(), teacher.float()),
        batch(target()),
        0.0,
    )["cam"]
    assert found.dtype == torch.float32 and torch.allclose(found, exact, rtol=1e-5)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_gradient_reaches_the_student_alone(setting: dict[str, object]) -> None:
    student, teacher = cams(1).requires_grad_(), cams(2)
    loss(CamKD(**setting), student, teacher).backward()  # type: ignore[arg-type]
    assert student.grad is not None and student.grad.abs().sum() > 0


def test_the_logit_spatial_identity_holds_to_rounding() -> None:
    """For linear GAP heads: mean_p ΔCAM² = (Δ(z − b))² + Var_p ΔCAM."""
    generator = torch.Generator().manual_seed(4)
    student_FW, teacher_FW = (
        (torch.randn(3, C, 5, 7, generator=generator), torch.randn(8, C, generator=generator)) for C in (6, 11)
    )
    maps, logits = zip(
        *[
            (F.conv2d(features, weight[..., None, None]), F.linear(features.mean((2, 3)), weight))
            for features, weight in (student_FW, teacher_FW)
        ],
        strict=True,
    )
    difference = (maps[0] - maps[1]).flatten(2)
    logit_BK, spatial_BK = split_mse(difference)
    assert torch.allclose(logit_BK, (logits[0] - logits[1]).square(), rtol=1e-4, atol=1e-5)
    assert torch.allclose(logit_BK + spatial_BK, difference.square().mean(-1), rtol=1e-5)


def test_the_coarser_grid_is_common() -> None:
    coarse, fine = on_common_grid(cams(1, H=3, W=4), cams(2, H=6, W=4), grid=None)
    assert coarse.shape == fine.shape == (4, 5, 12)
    # 6 → 3 rows: each is the mean of two
    assert torch.allclose(fine, cams(2, H=6, W=4).unflatten(2, (3, 2)).mean(3).flatten(2))
    assert on_common_grid(cams(1), cams(2), grid=2)[0].shape == (4, 5, 4)


def test_combinations_without_meaning_are_refused() -> None:
    with pytest.raises(ConfigError, match="kl compares distributions"):
        CamKD(distance="kl")
    with pytest.raises(ConfigError, match="kl compares distributions"):
        CamKD(transform="softmax")
    with pytest.raises(ConfigError, match="splits into a logit and a spatial part"):
        CamKD(transform="relu", logit_weight=0.5)
    with pytest.warns(UserWarning, match="absent labels full weight"):
        CamKD(transform="l2")
