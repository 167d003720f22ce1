"""Paired differences over pictures and seeds, Holm's adjustment, the smallest difference that a design sees."""

# S seeds, N pictures, R subsamples

import math

import numpy as np
import pytest
from scipy import stats

from tutelage.multilabel.results.statistics import holm, paired_difference, smallest_detectable


def test_without_pictures_it_is_the_paired_t_test() -> None:
    ours, theirs = np.array([72.0, 70.5, 73.0, 71.0]), np.array([70.0, 70.0, 70.5, 70.0])
    found = paired_difference(ours, theirs)
    expected = stats.ttest_rel(ours, theirs)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.mean, found.low, found.high) == pytest.approx((1.5, interval.low, interval.high))
    assert found.freedom == 3


def test_one_seed_has_no_interval() -> None:
    found = paired_difference(np.array([2.0]), np.array([1.0]))
    assert found.mean == 1
    assert math.isnan(found.low)
    assert math.isnan(found.p)


def test_the_same_scores_differ_by_nothing() -> None:
    same = np.array([1.0, 2.0])
    assert paired_difference(same, same).p == 1


def test_what_moves_all_seeds_alike_is_the_pictures() -> None:
    """Half-samples that move both seeds by ±1 add a variance of 1 to that of the seeds, (0.5 − 1.5)² / 2 / 2."""
    shift_R = np.array([1.0, -1.0] * 50) * math.sqrt(99 / 100)  # a sample variance of 1
    difference_S = np.array([0.5, 1.5])
    found = paired_difference(
        difference_S, np.zeros(2), subsampled_SR=difference_S[:, None] + shift_R, other_subsampled_SR=np.zeros((2, 100))
    )
    assert found.error**2 == pytest.approx(1 + 0.25)


def test_what_moves_each_seed_by_itself_is_not_the_pictures() -> None:
    random = np.random.default_rng(0)
    own_SR = random.normal(size=(2, 4000))
    found = paired_difference(
        np.array([0.0, 1.0]), np.zeros(2), subsampled_SR=own_SR, other_subsampled_SR=np.zeros_like(own_SR)
    )
    assert found.error**2 == pytest.approx(0.25, abs=0.03)  # the seeds' variance alone


@pytest.mark.parametrize(("of_seeds", "of_pictures"), [(0.5, 2.0), (0.1, 4.0)], ids=["seeds", "pictures"])
def test_coverage(of_seeds: float, of_pictures: float) -> None:
    """About 95 % of the intervals hold the true difference, 0, whether seeds or pictures vary more.

    Of a bootstrap over five seeds and the pictures fewer do where the seeds vary.
    """
    random = np.random.default_rng(0)
    num_seeds, num_pictures, replicates = 5, 200, 200
    trials, bootstrapped = 1000, 250
    halves_RN = np.zeros((replicates, num_pictures))
    for half_N in halves_RN:
        half_N[random.permutation(num_pictures)[: num_pictures // 2]] = 2 / num_pictures
    held = bootstrap_held = 0
    for trial in range(trials):
        picture_N, seed_S1 = random.normal(size=num_pictures), random.normal(size=(num_seeds, 1))
        d_SN = of_pictures * picture_N + of_seeds * seed_S1 + random.normal(size=(num_seeds, num_pictures))
        half_SR = d_SN @ halves_RN.T
        found = paired_difference(
            d_SN.mean(axis=1),
            np.zeros(num_seeds),
            subsampled_SR=half_SR,
            other_subsampled_SR=np.zeros_like(half_SR),
        )
        held += found.low <= 0 <= found.high
        if trial >= bootstrapped:
            continue
        seeds_RS = random.multinomial(num_seeds, [1 / num_seeds] * num_seeds, size=replicates) / num_seeds
        pictures_RN = random.multinomial(num_pictures, [1 / num_pictures] * num_pictures, size=replicates)
        drawn_R = np.sum((seeds_RS @ d_SN) * pictures_RN, axis=1) / num_pictures
        low, high = np.percentile(drawn_R, [2.5, 97.5])
        bootstrap_held += low <= 0 <= high
    print(f"held {held / trials:.3f}, the bootstrap {bootstrap_held / bootstrapped:.3f}")
    assert 0.93 <= held / trials <= 0.975
    if of_seeds > 0.2:
        assert bootstrap_held / bootstrapped < 0.9


def slow_holm(p_values: list[float]) -> list[float]:
    """Reject step by step: the adjusted p is the smallest α at which a value is rejected."""
    adjusted = []
    for p in p_values:
        smaller = sorted(other for other in p_values if other <= p)
        steps = [min(1.0, (len(p_values) - k) * q) for k, q in enumerate(smaller)]
        adjusted.append(max(steps))
    return adjusted


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # Holm's own three steps
    random = np.random.default_rng(0)
    for size in (1, 2, 34):
        p_values = random.random(size).tolist()
        assert holm(p_values) == pytest.approx(slow_holm(p_values))


def test_holm_does_not_count_what_was_not_compared() -> None:
    assert holm([0.02, math.nan, 0.01])[0] == pytest.approx(0.02)
    assert holm([0.02, math.nan, 0.01])[2] == pytest.approx(0.02)


def test_holm_keeps_its_promise() -> None:
    random = np.random.default_rng(0)
    rejected = sum(min(holm(random.random(34).tolist())) < 0.05 for _ in range(2000)) / 2000
    assert 0.035 < rejected < 0.065


def test_the_smallest_difference_is_found_with_its_power() -> None:
    """A true difference of that size is found in 80 % of the studies."""
    random = np.random.default_rng(0)
    num_seeds, scale, trials = 5, 1.0, 3000
    true = smallest_detectable(scale / math.sqrt(num_seeds), num_seeds - 1, comparisons=1)
    found = 0
    for _ in range(trials):
        difference_S = true + random.normal(scale=scale, size=num_seeds)
        found += paired_difference(difference_S, np.zeros(num_seeds)).p < 0.05
    assert found / trials == pytest.approx(0.8, abs=0.05)  # t quantiles for the noncentral t: a little off
