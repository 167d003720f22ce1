"""Losses on logits against plain loops, by hand, and where nothing counts."""

# B batch, K labels

import math

import pytest
import torch
from torch import Tensor

from tutelage.multilabel.methods.logits.functional import (
    balanced_kl,
    bernoulli_kl,
    decoupled_kl,
    mean_partial_softmax,
    normalised_kd,
    partial_softmax_kl,
    pearson_distance,
    softmax_kl,
    standardised,
)

# Two present labels, one, none; an unknown label in each of the last three; the last row is nothing but unknown.
TARGET_BK = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 0, -1, 0], [0, 0, -1, 0, 0], [1, 1, 1, 1, -1], [-1] * 5])
COUNTED_BK = TARGET_BK >= 0


def logits(seed: int, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(TARGET_BK.shape, generator=generator, dtype=torch.float64) * scale).float()


def rows(student_BK: Tensor, teacher_BK: Tensor) -> list[tuple[list[float], list[float], list[int], list[int]]]:
    """Each row's student and teacher logits, and the indices of its present and absent labels."""
    return [
        (s, t, [k for k, y in enumerate(target) if y == 1], [k for k, y in enumerate(target) if y == 0])
        for s, t, target in zip(student_BK.tolist(), teacher_BK.tolist(), TARGET_BK.tolist(), strict=True)
    ]


def softmax(values: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def close(found_B: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found_B, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_bernoulli_kl_against_a_loop_and_by_hand() -> None:
    student, teacher, temperature = logits(1), logits(2), 2.0
    expected = [
        [
            temperature**2 * kl(softmax([t, 0.0], temperature), softmax([s, 0.0], temperature))
            for s, t in zip(row_s, row_t, strict=True)
        ]
        for row_s, row_t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    torch.testing.assert_close(bernoulli_kl(student, teacher, temperature=temperature), torch.tensor(expected))
    # σ(log 3) = 3/4 against 1/2
    by_hand = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert bernoulli_kl(torch.tensor(0.0), torch.tensor(3.0).log(), temperature=1).item() == pytest.approx(by_hand)


def test_bernoulli_kl_keeps_its_digits_where_both_networks_are_sure() -> None:
    student, teacher = torch.tensor([12.0, -12.0]), torch.tensor([12.1, -12.1])
    exact = bernoulli_kl(student.double(), teacher.double(), temperature=1)
    torch.testing.assert_close(bernoulli_kl(student, teacher, temperature=1).double(), exact, rtol=1e-2, atol=0)
    assert torch.isfinite(bernoulli_kl(torch.tensor([-1e4, 1e4]), torch.tensor([1e4, -1e4]), temperature=1)).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_gradient_of_bernoulli_kl(temperature: float) -> None:
    student, teacher = logits(1).requires_grad_(), logits(2)
    bernoulli_kl(student, teacher, temperature=temperature).sum().backward()
    expected = temperature * ((student / temperature).sigmoid() - (teacher / temperature).sigmoid())
    torch.testing.assert_close(student.grad, expected.detach())


def test_softmax_kl_against_a_loop() -> None:
    student, teacher = logits(1), logits(2)
    expected = []
    for s, t, present, absent in rows(student, teacher):
        known = sorted(present + absent)
        p, q = softmax([t[k] for k in known], 4.0), softmax([s[k] for k in known], 4.0)
        expected.append(16 * kl(p, q) if known else 0.0)
    close(softmax_kl(student, teacher, counted_BK=COUNTED_BK, temperature=4.0), expected)


def test_standardised_against_a_loop() -> None:
    values = logits(1)
    found = standardised(values, counted_BK=COUNTED_BK)
    for row, (s, _, present, absent) in enumerate(rows(values, values)[:4]):
        known = torch.tensor(sorted(present + absent))
        chosen = torch.tensor(s)[known]
        torch.testing.assert_close(found[row, known], (chosen - chosen.mean()) / chosen.std())
    equal = torch.full((1, 3), 2.0, requires_grad=True)
    z = standardised(equal, counted_BK=torch.ones(1, 3, dtype=torch.bool))
    z.square().sum().backward()
    assert not z.any() and equal.grad is not None and torch.isfinite(equal.grad).all()


def test_decoupled_kl_against_a_loop() -> None:
    student, teacher, temperature = logits(1), logits(2), 4.0
    target, other = [], []
    for s, t, present, absent in rows(student, teacher):
        known = sorted(present + absent)
        p, q = (dict(zip(known, softmax([v[k] for k in known], temperature), strict=True)) for v in (t, s))
        p_present, q_present = sum(p[k] for k in present), sum(q[k] for k in present)
        mixed = bool(present) and bool(absent)
        target.append(16 * kl([p_present, 1 - p_present], [q_present, 1 - q_present]) if mixed else 0.0)
        p_absent, q_absent = (softmax([v[k] for k in absent], temperature) for v in (t, s))
        other.append(16 * kl(p_absent, q_absent))
    found = decoupled_kl(student, teacher, TARGET_BK, counted_BK=COUNTED_BK, temperature=temperature)
    close(found[0], target)
    close(found[1], other)


def test_the_two_parts_of_decoupled_kl_make_up_softmax_kl() -> None:
    """Eq. 6 of DKD: KD = TCKD + (1 − p_T)·NCKD."""
    student, teacher = logits(1), logits(2)
    target_BK = torch.eye(5, dtype=torch.int64)
    counted = torch.ones(5, 5, dtype=torch.bool)
    target_B, other_B = decoupled_kl(student, teacher, target_BK, counted_BK=counted, temperature=2.0)
    absent_B = 1 - ((teacher / 2).softmax(1) * target_BK).sum(1)
    whole_B = softmax_kl(student, teacher, counted_BK=counted, temperature=2.0)
    torch.testing.assert_close(target_B + absent_B * other_B, whole_B)


def test_normalised_kd_against_a_loop() -> None:
    student, teacher = logits(1), logits(2)
    expected = []
    for s, t, present, absent in rows(student, teacher):
        known = sorted(present + absent)
        p, q = (dict(zip(known, softmax([v[k] for k in known]), strict=True)) for v in (t, s))
        target = -sum(p[k] * math.log(q[k]) for k in present)
        p_absent, q_absent = (softmax([v[k] for k in absent], 2.0) for v in (t, s))
        expected.append(target - 1.5 * 4 * sum(a * math.log(b) for a, b in zip(p_absent, q_absent, strict=True)))
    found = normalised_kd(student, teacher, TARGET_BK, counted_BK=COUNTED_BK, gamma=1.5, temperature=2.0)
    close(found, expected)


def test_partial_softmax_kl_against_a_loop() -> None:
    student, teacher = logits(1), logits(2)
    expected = []
    for s, t, present, absent in rows(student, teacher):
        each = [kl(softmax([t[k] for k in [j, *absent]]), softmax([s[k] for k in [j, *absent]])) for j in present]
        expected.append(sum(each))
    close(partial_softmax_kl(student, teacher, TARGET_BK, counted_BK=COUNTED_BK), expected)


def mean_partial_softmax_by_loop(z: list[float], present: list[int], absent: list[int]) -> dict[int, float]:
    if not present:
        return {}
    below = sum(math.exp(z[k]) for k in absent)
    return {
        j: min(1.0, sum(math.exp(z[j]) / (math.exp(z[t]) + below) for t in present) / len(present))
        for j in sorted(present + absent)
    }


def test_mean_partial_softmax_against_a_loop() -> None:
    values = logits(1)
    found = mean_partial_softmax(values, TARGET_BK, counted_BK=COUNTED_BK)
    for row, (s, _, present, absent) in enumerate(rows(values, values)):
        scores = mean_partial_softmax_by_loop(s, present, absent)
        expected = [math.log(scores[k]) if k in scores else 0.0 for k in range(5)]
        torch.testing.assert_close(found[row], torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_balanced_kl_against_a_loop() -> None:
    student, teacher, temperature, omega = logits(1), logits(2), 4.0, 0.3
    expected = []
    for s, t, present, absent in rows(student, teacher):
        p = mean_partial_softmax_by_loop([value / temperature for value in t], present, absent)
        q = mean_partial_softmax_by_loop([value / temperature for value in s], present, absent)
        total = 0.0
        for j in p:
            if j in present:
                weight = abs(1 - omega + omega * p[j] - q[j]) ** 0.25
            else:
                weight = abs(omega * p[j] - q[j]) ** 1.5
            total += weight * p[j] * math.log(p[j] / q[j])
        expected.append(16 * total)
    setting = {"temperature": temperature, "omega": omega, "gamma_present": 0.25, "gamma_absent": 1.5}
    close(balanced_kl(student, teacher, TARGET_BK, counted_BK=COUNTED_BK, **setting), expected)


@pytest.mark.parametrize("dim", [0, 1])
def test_pearson_distance_against_a_loop(dim: int) -> None:
    student, teacher = logits(1), logits(2)
    found, defined = pearson_distance(student, teacher, counted=COUNTED_BK, dim=dim)
    lines = zip(*(x if dim == 1 else x.T for x in (student, teacher, COUNTED_BK)), strict=True)
    for index, (s, t, counted) in enumerate(lines):
        assert defined[index].item() == (counted.sum() > 1)
        if defined[index]:
            expected = 1 - torch.corrcoef(torch.stack([s[counted], t[counted]]))[0, 1]
            torch.testing.assert_close(found[index], expected)


def test_stored_values() -> None:
    """So that a change of any formula is seen without the loops and without anybody else's code."""
    student, teacher = logits(1), logits(2)
    counted = {"counted_BK": COUNTED_BK}
    target, other = decoupled_kl(student, teacher, TARGET_BK, temperature=4.0, **counted)
    mbd = {"temperature": 4.0, "omega": 0.5, "gamma_present": 0.25, "gamma_absent": 1.0}
    found = {
        "bernoulli_kl": bernoulli_kl(student, teacher, temperature=2.0).sum(),
        "softmax_kl": softmax_kl(student, teacher, temperature=4.0, **counted).sum(),
        "tckd": target.sum(),
        "nckd": other.sum(),
        "nkd": normalised_kd(student, teacher, TARGET_BK, gamma=1.5, temperature=1.0, **counted).sum(),
        "ps": partial_softmax_kl(student, teacher, TARGET_BK, **counted).sum(),
        "mbd": balanced_kl(student, teacher, TARGET_BK, **counted, **mbd).sum(),
        "pearson": pearson_distance(student, teacher, counted=COUNTED_BK, dim=1)[0][:4].sum(),
    }
    stored = {
        "bernoulli_kl": 18.3977,
        "softmax_kl": 9.83959,
        "tckd": 1.10494,
        "nckd": 5.28524,
        "nkd": 15.346,
        "ps": 3.62105,
        "mbd": 5.55711,
        "pearson": 6.40801,
    }
    assert {name: value.item() for name, value in found.items()} == pytest.approx(stored, rel=1e-4)


def test_rows_in_which_nothing_counts_have_no_value_and_no_nan() -> None:
    nothing = {"counted_BK": torch.zeros(5, 5, dtype=torch.bool)}
    mbd = {"temperature": 4.0, "omega": 0.5, "gamma_present": 0.25, "gamma_absent": 1.0}
    student, teacher = logits(1).requires_grad_(), logits(2)
    target_B, other_B = decoupled_kl(student, teacher, TARGET_BK, temperature=2.0, **nothing)
    distance_B, defined_B = pearson_distance(student, teacher, counted=nothing["counted_BK"], dim=1)
    assert not defined_B.any()
    z_BK = standardised(student, **nothing)
    losses = [
        softmax_kl(student, teacher, temperature=2.0, **nothing),
        softmax_kl(z_BK, standardised(teacher, **nothing), temperature=2.0, **nothing),
        target_B,
        other_B,
        normalised_kd(student, teacher, TARGET_BK, gamma=1.5, temperature=2.0, **nothing),
        partial_softmax_kl(student, teacher, TARGET_BK, **nothing),
        balanced_kl(student, teacher, TARGET_BK, **nothing, **mbd),
        distance_B.masked_fill(~defined_B, 0),
    ]
    total = torch.stack([loss_B.sum() for loss_B in losses])
    total.sum().backward()
    assert not total.any() and student.grad is not None and not student.grad.any()
