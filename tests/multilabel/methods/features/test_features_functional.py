"""The losses between features: against plain loops, torchdistill's, and stored values."""

# B batch, C channels, H W map, K labels

import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tutelage.multilabel.methods.features import functional


def waves(*shape: int, phase: float = 0.0) -> Tensor:
    """Numbers that no generator's version can change."""
    count = math.prod(shape)
    return (torch.sin(torch.arange(count) * 0.7 + phase) + 0.3 * torch.cos(torch.arange(count) * 2.3)).reshape(shape)


STUDENT, TEACHER = waves(2, 3, 4, 5), waves(2, 3, 4, 5, phase=1.1)
MARGIN = torch.tensor([-0.5, -0.1, -0.9])
VARIANCE = torch.tensor([0.5, 2.0, 5.0])
TARGET = torch.tensor([[1, 0, 0, 0], [0, 0, 1, -1]], dtype=torch.int8)
HIDDEN = waves(2, 4, 5, phase=2.0) > 0

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": functional.mse,
    "vid": lambda s, t: functional.vid(s, t, variance_C=VARIANCE),
    "ofd": lambda s, t: functional.ofd(s, t, margin_C=MARGIN),
    "hierarchical_context": functional.hierarchical_context,
    "nst": functional.nst,
    "kdsvd": lambda s, t: functional.kdsvd([s, s[:, :, :2]], [t, t[:, :, :2]], rank=1),
    "wkd_f": lambda s, t: functional.wkd_f(s, t, grid=2, mean_weight=2.0),
    "vkd": lambda s, t: functional.vkd(s.flatten(1), t.flatten(1)),
    "lsh": lambda s, t: functional.lsh(
        s.flatten(1), t.flatten(1), weight_NC=waves(7, 60, phase=3.0), bias_N=waves(7, phase=4.0)
    ),
    "ofa": lambda s, t: functional.ofa(s.flatten(1)[:, :4], t.flatten(1)[:, :4], TARGET, exponent=1.5, temperature=2.0),
    "squared_distance": functional.squared_distance,
    "masked_distance": lambda s, t: functional.masked_distance(s, t, hidden_BHW=HIDDEN, ratio=0.5),
}
STORED: dict[str, list[float]] = {
    "mse": [0.546553, 0.536803],
    "vid": [0.510838, 0.508021],
    "ofd": [25.3008, 24.5889],
    "hierarchical_context": [0.316563, 0.310721],
    "nst": [0.194353, 0.186218],
    "kdsvd": [0.00130261, 0.00253089],
    "wkd_f": [0.185614, 0.225479],
    "vkd": [0.391582, 0.390025],
    "lsh": [6.24083, 7.95027],
    "ofa": [1.26437, 1.07992],
    "squared_distance": [32.7932, 32.2082],
    "masked_distance": [38.5763, 32.1942],
}
ZERO = sorted(LOSSES.keys() - {"vid", "ofd", "vkd", "lsh", "ofa"})


@pytest.mark.parametrize("name", LOSSES)
def test_stored_values(name: str) -> None:
    assert LOSSES[name](STUDENT, TEACHER).tolist() == pytest.approx(STORED[name], rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_one_finite_fp32_value_an_image_whose_gradient_reaches_the_student(name: str) -> None:
    student = STUDENT.clone().requires_grad_()
    loss_B = LOSSES[name](student, TEACHER)
    assert loss_B.shape == (2,) and loss_B.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss_B[0], student)
    assert gradient.isfinite().all() and gradient[0].abs().sum() > 0 and not gradient[1].any()


@pytest.mark.parametrize("name", ZERO)
def test_identical_features_give_zero(name: str) -> None:
    assert LOSSES[name](TEACHER, TEACHER).abs().max().item() < 1e-6


@pytest.mark.parametrize("name", LOSSES)
def test_bf16_agrees_with_fp32(name: str) -> None:
    student, teacher = STUDENT.bfloat16(), TEACHER.bfloat16()
    # The features are rounded already; from there on all arithmetic is in fp32.
    torch.testing.assert_close(LOSSES[name](student, teacher), LOSSES[name](student.float(), teacher.float()))


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_changes_nothing(name: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = LOSSES[name](STUDENT, TEACHER)
    torch.testing.assert_close(found, LOSSES[name](STUDENT, TEACHER))


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"kdsvd"}))
def test_the_gradient_is_the_slope(name: str) -> None:
    student = STUDENT.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES[name](student, TEACHER).sum(), student)
    step = 1e-2 * waves(2, 3, 4, 5, phase=5.0)
    change = LOSSES[name](STUDENT + step, TEACHER).sum() - LOSSES[name](STUDENT - step, TEACHER).sum()
    assert change.item() == pytest.approx(2 * (gradient * step).sum().item(), rel=0.02)


def test_vid_by_hand() -> None:
    # ((1 − 3)²/4 + log 4)/2 and ((0 − 0)²/1 + log 1)/2, halved by the mean over two channels
    found = functional.vid(
        torch.tensor([[[[1.0]], [[0.0]]]]), torch.tensor([[[[3.0]], [[0.0]]]]), variance_C=torch.tensor([4.0, 1.0])
    )
    assert found.item() == pytest.approx((1 + math.log(4)) / 4)


def test_ofd_against_a_loop() -> None:
    for b in range(2):
        total = 0.0
        for c in range(3):
            for s, t in zip(STUDENT[b, c].flatten().tolist(), TEACHER[b, c].flatten().tolist(), strict=True):
                target = max(t, MARGIN[c].item())
                if not (target <= 0 and s <= target):
                    total += (s - target) ** 2
        assert LOSSES["ofd"](STUDENT, TEACHER)[b].item() == pytest.approx(total, rel=1e-5)


def test_margin_is_the_mean_of_the_negative_part() -> None:
    weight, bias = torch.tensor([1.0, -0.5, 0.1]), torch.tensor([0.0, 0.3, 1.0])
    found = functional.batch_norm_margin(weight, bias)
    for c in range(2):
        sample = bias[c] + weight[c] * torch.randn(400_000, generator=torch.Generator().manual_seed(c))
        assert found[c].item() == pytest.approx(sample[sample < 0].mean().item(), rel=0.02)
    assert found[2].item() == pytest.approx(-0.3)  # hardly ever negative: −3|γ|
    assert functional.batch_norm_margin(torch.zeros(1), torch.ones(1)).isfinite().all()


def test_nst_against_its_kernel() -> None:
    """Both ways of computing it, on maps of more and of fewer places than channels."""
    for shape in ((2, 3, 4, 5), (2, 9, 2, 2)):
        student, teacher = waves(*shape), waves(shape[0], shape[1] + 2, *shape[2:], phase=1.0)
        for b in range(2):
            s, t = F.normalize(student[b].flatten(1), dim=1), F.normalize(teacher[b].flatten(1), dim=1)

            def mean_kernel(a: Tensor, c: Tensor) -> float:
                return sum(float(x @ y) ** 2 for x in a for y in c) / (len(a) * len(c))

            expected = mean_kernel(t, t) + mean_kernel(s, s) - 2 * mean_kernel(s, t)
            assert functional.nst(student, teacher)[b].item() == pytest.approx(expected, rel=1e-4)


def test_kdsvd_against_numpys_svd() -> None:
    student, teacher = [waves(2, 6, 4, 4), waves(2, 5, 2, 2, phase=2)], [waves(2, 6, 3, 3, phase=1), waves(2, 5, 4, 4)]

    def vectors(maps: Tensor, rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        _, values, right = np.linalg.svd(maps.flatten(1).T.numpy(), full_matrices=False)
        return np.stack([v * (-1 if v.sum() < 0 else 1) for v in right[:rank]]), values[:rank]

    for b in range(2):
        expected, before = 0.0, None
        for s, t in zip(student, teacher, strict=True):
            candidates, _ = vectors(s[b], 5)
            of_teacher, values = vectors(t[b], 2)
            chosen = []
            for vector in of_teacher:
                cosines = candidates @ vector
                best = int(np.abs(cosines).argmax())
                chosen.append(np.sign(cosines[best]) * candidates[best])
            scale = (values / np.linalg.norm(values))[:, None]
            now = (np.stack(chosen) * scale, of_teacher * scale)
            if before is not None:
                for k in range(2):
                    for c in range(5):
                        for d in range(6):
                            kernel_s, kernel_t = (
                                math.exp(-((now[who][k, c] - before[who][k, d]) ** 2) / 8) for who in range(2)
                            )
                            expected += (kernel_s - kernel_t) ** 2
            before = now
        assert functional.kdsvd(student, teacher, rank=2)[b].item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("side", [3, 2])  # more places than channels, and fewer
def test_singular_vectors_have_the_derivative_of_torchs_svd(side: int) -> None:
    maps = waves(1, 5, side, side).requires_grad_()
    weights = waves(5, 2, phase=3.0)

    def ours(x: Tensor) -> Tensor:
        return functional.right_singular_vectors(x, rank=2)[0][0].square()  # squares: signs are free

    def torchs(x: Tensor) -> Tensor:
        return torch.linalg.svd(x[0].flatten(1).T, full_matrices=False)[2][:2].T.square()

    torch.testing.assert_close(ours(maps), torchs(maps))
    (found,) = torch.autograd.grad((ours(maps) * weights).sum(), maps)
    (expected,) = torch.autograd.grad((torchs(maps) * weights).sum(), maps)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_singular_vectors_of_dead_channels_have_a_finite_gradient() -> None:
    maps = torch.zeros(2, 4, 3, 3)
    maps[0, 0] = waves(3, 3)  # rank 1; the second map is 0 altogether
    maps.requires_grad_()
    vectors, _ = functional.right_singular_vectors(maps, rank=3)
    vectors.square().sum().backward()
    assert vectors.isfinite().all() and maps.grad is not None and maps.grad.isfinite().all()


def test_kernels_are_compared_without_being_made() -> None:
    """Against the [C, D] matrices, at the largest entries that vectors of unit norm have."""
    a_s, a_t, b_s, b_t = (F.normalize(waves(2, n, 3, phase=p), dim=1) for n, p in ((4, 0), (4, 1), (5, 2), (5, 3)))
    a_s[:, :, 0], b_s[:, :, 0] = torch.eye(4)[0], -torch.eye(5)[0]
    a_s.requires_grad_()
    found_B = functional._rbf_distance((a_s, b_s), (a_t, b_t))
    kernels = [torch.exp(-(a[:, :, None] - b[:, None]).square() / 8) for a, b in ((a_s, b_s), (a_t, b_t))]
    expected_B = (kernels[0] - kernels[1]).square().sum((1, 2, 3))
    torch.testing.assert_close(found_B, expected_B)
    (found,), (expected,) = (torch.autograd.grad(loss_B.sum(), a_s) for loss_B in (found_B, expected_B))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert not functional._rbf_distance((a_t, b_t), (a_t, b_t)).any()


@pytest.mark.parametrize(("channels", "to"), [(3, 7), (7, 3), (4, 4)])
def test_a_projection_is_orthogonal_and_cayleys(channels: int, to: int) -> None:
    k, rest = min(channels, to), abs(channels - to)
    square, below = 0.7 * waves(k, k).requires_grad_(), 0.7 * waves(rest, k, phase=1.0).requires_grad_()

    def projected(x: Tensor) -> Tensor:
        return functional.orthogonal_projection(x, square_kk=square, rest_Rk=below)

    matrix = projected(torch.eye(channels)).T  # [to, channels]
    torch.testing.assert_close(matrix @ matrix.T if to < channels else matrix.T @ matrix, torch.eye(k))
    skew = torch.cat([torch.cat([square - square.T, -below.T], 1), torch.cat([below, torch.zeros(rest, rest)], 1)])
    whole = torch.linalg.solve(torch.eye(k + rest) - skew / 2, torch.eye(k + rest) + skew / 2)[:, :k]
    torch.testing.assert_close(matrix, whole.T if to < channels else whole)
    features = waves(5, channels, phase=2.0)
    expected, found = features @ (whole if to < channels else whole.T), projected(features)
    torch.testing.assert_close(found, expected)
    parts = [square, below] if rest else [square]
    weight = waves(5, to, phase=3.0)
    for ours, dense in zip(*(torch.autograd.grad((y * weight).sum(), parts) for y in (found, expected)), strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-4, atol=1e-5)


def test_every_projection_that_is_orthogonal_can_be_learned() -> None:
    target = torch.linalg.qr(waves(7, 3))[0]  # columns of norm 1 whose upper block has no eigenvalue −1
    system = 2 * torch.linalg.inv(torch.eye(3) + target[:3])
    below = target[3:] @ system
    skew = 2 * (torch.eye(3) + below.T @ below / 4 - system)
    torch.testing.assert_close(skew, -skew.T, atol=1e-4, rtol=0)
    found = functional.orthogonal_projection(torch.eye(3), square_kk=skew / 2, rest_Rk=below)
    torch.testing.assert_close(found.T, target, atol=1e-4, rtol=0)


def test_wkd_f_against_a_loop() -> None:
    student, teacher = waves(2, 3, 5, 4), waves(2, 3, 8, 6, phase=1.0)
    for b in range(2):
        expected = 0.0
        for row in range(2):
            for column in range(2):
                for c in range(3):
                    (mean_s, std_s), (mean_t, std_t) = (
                        (cell.mean().item(), math.sqrt(cell.var().item() + 1e-5))
                        for maps in (student, teacher)
                        for cell in [
                            maps[
                                b,
                                c,
                                row * maps.shape[2] // 2 : math.ceil((row + 1) * maps.shape[2] / 2),
                                column * maps.shape[3] // 2 : math.ceil((column + 1) * maps.shape[3] / 2),
                            ]
                        ]
                    )
                    expected += 2 * (mean_s - mean_t) ** 2 + (std_s - std_t) ** 2
        assert functional.wkd_f(student, teacher, grid=2, mean_weight=2.0)[b].item() == pytest.approx(expected / 4)
    # the cells of adaptive pooling, and one place has no spread
    assert functional.wkd_f(waves(2, 3, 4, 4), waves(2, 3, 4, 4, phase=1), grid=4, mean_weight=1.0).isfinite().all()


def test_ofa_by_hand_and_without_unknown_labels() -> None:
    student, teacher = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.0, 2.0, 1.0]])
    p_t, log_p_s = teacher.softmax(1)[0], student.log_softmax(1)[0]
    target = torch.tensor([[0, 1, 0]])
    expected = -sum(((p_t[k] + y) ** 1.5 - y) * log_p_s[k] for k, y in enumerate((0, 1, 0)))
    found = functional.ofa(student, teacher, target, exponent=1.5, temperature=1.0)
    assert found.item() == pytest.approx(float(expected))
    wider = (torch.cat([x, torch.full((1, 1), 9.0)], 1) for x in (student, teacher))
    ignoring = functional.ofa(*wider, torch.tensor([[0, 1, 0, -1]]), exponent=1.5, temperature=1.0)
    assert ignoring.item() == pytest.approx(found.item())


def test_lsh_and_vkd_by_hand() -> None:
    student, teacher = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 1.0]])
    # hashes of the student −1 + 0.5 and 4 + 0; the teacher lies at 4.5 > 0 and −2 ≤ 0
    found = functional.lsh(
        student, teacher, weight_NC=torch.tensor([[1.0, 1.0], [0.0, -2.0]]), bias_N=torch.tensor([0.5, 0.0])
    )
    assert found.item() == pytest.approx((math.log(1 + math.exp(0.5)) + math.log(1 + math.exp(4))) / 2)
    # the teacher's standardised embedding is (1, −1): |0| and ½·1²
    assert functional.vkd(student, teacher).item() == pytest.approx((0 + 0.5) / 2, rel=1e-4)


def test_hidden_places_depend_on_sample_and_step_alone() -> None:
    index = torch.tensor([3, 70_000, 5])
    hidden = functional.hidden_places(index, step=torch.tensor(9), size=(6, 4), ratio=0.5)
    assert hidden.shape == (3, 6, 4) and hidden.flatten(1).sum(1).tolist() == [12, 12, 12]
    alone = functional.hidden_places(index[1:2], step=torch.tensor(9), size=(6, 4), ratio=0.5)
    assert torch.equal(alone[0], hidden[1])
    assert not torch.equal(hidden[0], hidden[1])
    assert not torch.equal(functional.hidden_places(index, step=torch.tensor(10), size=(6, 4), ratio=0.5), hidden)
    # each place is hidden half the time
    many = functional.hidden_places(torch.arange(4000), step=torch.tensor(1), size=(2, 4), ratio=0.5).float().mean(0)
    assert (many - 0.5).abs().max().item() < 0.04
    # one place stays
    assert functional.hidden_places(index, step=torch.tensor(1), size=(1, 2), ratio=1.0).sum().item() == 3


def test_a_common_grid_is_the_smaller_of_each_side() -> None:
    a, b = functional.on_smaller_grid(waves(1, 2, 4, 6), waves(1, 5, 8, 3))
    assert a.shape == (1, 2, 4, 3) and b.shape == (1, 5, 4, 3)
    torch.testing.assert_close(a, waves(1, 2, 4, 6).unflatten(3, (3, 2)).mean(4))


@pytest.fixture
def torchdistill() -> ModuleType:
    return pytest.importorskip(
        "torchdistill.losses.mid_level", reason="torchdistill is a development extra: pip install -e '.[dev]'"
    )


def test_torchdistill_agrees_on_vid(torchdistill: ModuleType) -> None:
    pair = {"student": {"path": "a", "io": "output"}, "teacher": {"path": "a", "io": "output"}}
    theirs = torchdistill.VIDLoss({"pair": pair})
    variance = VARIANCE[:, None, None].expand(3, 4, 5)
    found = theirs({"a": {"output": (STUDENT, variance)}}, {"a": {"output": TEACHER}})
    assert LOSSES["vid"](STUDENT, TEACHER).mean().item() == pytest.approx(found.item(), rel=1e-5)


def test_torchdistill_agrees_on_hierarchical_context(torchdistill: ModuleType) -> None:
    theirs = torchdistill.HierarchicalContextLoss("a", "output", "a", "output")
    for side in (1, 3, 8):
        student, teacher = waves(2, 3, side, side), waves(2, 3, side, side, phase=1.0)
        found = theirs({"a": {"output": (student, None)}}, {"a": {"output": teacher}})
        assert functional.hierarchical_context(student, teacher).mean().item() == pytest.approx(found.item(), rel=1e-5)
