import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from tutelage.multilabel import metrics
from tutelage.multilabel.metrics import (
    PROTOCOLS,
    MultilabelScores,
    average_precision,
    class_scores,
    difference_interval,
    precision_recall_f1,
    predicted_labels,
    score_interval,
    scores,
)


def column(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None]


def targets(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int8)[:, None]


def random_case(seed: int, *, samples: int = 300, labels: int = 6, ties: bool = True, ignored: float = 0.05):
    random = np.random.default_rng(seed)
    logits_NK = random.normal(size=(samples, labels)).astype(np.float32)
    if ties:
        logits_NK = logits_NK.round(1)
    targets_NK = (random.random((samples, labels)) < 0.2).astype(np.int8)
    targets_NK[random.random((samples, labels)) < ignored] = -1
    return logits_NK, targets_NK


# Positives at ranks 1, 3 and 6 of 6: precisions 1, 2/3 and 3/6.
RANKED = column([6, 5, 4, 3, 2, 1])
MIXED = targets([1, 0, 1, 0, 0, 1])


def test_all_point_by_hand() -> None:
    assert average_precision(RANKED, MIXED)[0] == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)


def test_eleven_points_by_hand() -> None:
    # Recall reaches 1/3 at precision 1, 2/3 at 2/3, 1 at 1/2; points 0–.3, .4–.6 and .7–1 take the best from there on.
    assert average_precision(RANKED, MIXED, protocol="11-point")[0] == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 / 2) / 11)


def test_eleven_points_at_recalls_that_floats_miss() -> None:
    """With ten positives the recalls are the points themselves: 0.3 must be reached by 3 of 10."""
    positives = targets([1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1])
    ranked = column(list(range(11, 0, -1)))
    # Ranks 1–3 are right, then one wrong: points 0–.3 take precision 1, the rest 10/11, the best from there on.
    assert average_precision(ranked, positives, protocol="11-point")[0] == pytest.approx((4 + 7 * 10 / 11) / 11)


def test_interpolated_by_hand() -> None:
    ranked, positives = column([5, 4, 3, 2, 1]), targets([0, 1, 1, 0, 1])
    # Precisions at the positives are 1/2, 2/3, 3/5; the first is lifted to the best that follows.
    assert average_precision(ranked, positives, protocol="interpolated")[0] == pytest.approx(
        (2 / 3 + 2 / 3 + 3 / 5) / 3
    )
    assert average_precision(ranked, positives)[0] == pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 3)


@pytest.mark.parametrize("seed", range(4))
def test_all_point_is_scikit_learns(seed: int) -> None:
    logits_NK, targets_NK = random_case(seed, ties=seed % 2 == 0)
    ours = average_precision(logits_NK, targets_NK)
    for k in range(logits_NK.shape[1]):
        known = targets_NK[:, k] >= 0
        assert ours[k] == pytest.approx(average_precision_score(targets_NK[known, k], logits_NK[known, k]), abs=1e-12)


@pytest.mark.parametrize("protocol", ["all-point", "11-point", "interpolated"])
def test_order_of_samples_changes_nothing(protocol: metrics.Protocol) -> None:
    logits_NK, targets_NK = random_case(0)
    shuffled = np.random.default_rng(1).permutation(len(logits_NK))
    first = average_precision(logits_NK, targets_NK, protocol=protocol)
    assert np.array_equal(first, average_precision(logits_NK[shuffled], targets_NK[shuffled], protocol=protocol))


def test_scores_that_are_all_equal_give_the_share_of_positives() -> None:
    assert average_precision(column([0] * 5), targets([1, 0, 0, 0, 1]))[0] == pytest.approx(2 / 5)


def test_ignored_targets_are_as_if_absent_from_the_split() -> None:
    with_ignored = average_precision(column([9, 6, 5, 4, 3, 2, 1]), targets([-1, 1, 0, 1, 0, 0, 1]))
    assert with_ignored[0] == average_precision(RANKED, MIXED)[0]


def test_class_without_positives_is_left_out_and_named() -> None:
    logits_NK = np.concatenate([RANKED, RANKED], axis=1)
    targets_NK = np.concatenate([MIXED, np.zeros_like(MIXED)], axis=1)
    found = class_scores(logits_NK, targets_NK, label_names=("cat", "unicorn"))
    assert found.without_positives == ("unicorn",)
    assert found.positives_K.tolist() == [3, 0]
    assert np.isnan(found.ap_K[1])
    assert scores(logits_NK, targets_NK)["mAP"] == pytest.approx(found.ap_K[0])
    assert np.isnan(scores(logits_NK[:, 1:], targets_NK[:, 1:])["mAP"])


def test_half_precision_probabilities_would_tie_where_logits_do_not() -> None:
    logits_NK = column([12.5, 12.0, 11.5, 11.0])
    halves = torch.sigmoid(torch.from_numpy(logits_NK)).half().float().numpy()
    order = targets([0, 1, 0, 1])
    assert average_precision(logits_NK, order)[0] == pytest.approx(1 / 2)
    assert len(np.unique(halves)) == 1  # and its average precision another


def test_nan_is_refused() -> None:
    with pytest.raises(FloatingPointError, match="nan"):
        average_precision(column([1, np.nan]), targets([0, 1]))


def test_precision_recall_f1_by_hand() -> None:
    # Two classes: predicted 2 of which 1 is right, of 1 true; predicted 1 and right, of 2 true.
    predicted = np.array([[1, 1], [1, 0], [0, 0]], dtype=bool)
    true = np.array([[1, 1], [0, 0], [0, 1]], dtype=np.int8)
    found = precision_recall_f1(predicted, true)
    assert found == pytest.approx({"CP": 0.75, "CR": 0.75, "CF1": 0.75, "OP": 2 / 3, "OR": 2 / 3, "OF1": 2 / 3})


def test_cf1_is_of_the_means_and_not_the_mean_of_f1() -> None:
    predicted = np.array([[1, 0], [1, 1], [1, 0], [1, 0]], dtype=bool)
    true = np.array([[1, 1], [0, 1], [0, 1], [0, 1]], dtype=np.int8)
    found = precision_recall_f1(predicted, true)
    assert (found["CP"], found["CR"]) == ((1 / 4 + 1) / 2, (1 + 1 / 4) / 2)
    assert found["CF1"] == pytest.approx(0.625)  # the mean of per-class F1 is 0.4


def test_ignored_targets_and_empty_classes_in_precision_and_recall() -> None:
    predicted = np.array([[1, 1, 0], [1, 1, 0]], dtype=bool)
    true = np.array([[1, 0, 1], [-1, 0, 0]], dtype=np.int8)
    found = precision_recall_f1(predicted, true)
    # Class 1 has no positives: in no mean over classes, but wrong all the same. Class 2 is never predicted.
    assert (found["CP"], found["CR"]) == (0.5, 0.5)
    assert (found["OP"], found["OR"]) == (1 / 3, 1 / 2)
    nothing = precision_recall_f1(np.zeros((2, 3), dtype=bool), np.zeros((2, 3), dtype=np.int8))
    assert set(nothing.values()) == {0.0}


def test_top_three_and_above_the_threshold() -> None:
    logits_NK = np.array([[5, 4, 3, 2, -1], [1, -1, -2, -3, -4], [2, 2, 2, 2, -9]], dtype=np.float32)
    assert predicted_labels(logits_NK).sum(axis=1).tolist() == [4, 1, 4]
    top = predicted_labels(logits_NK, top=3)
    # In the third image four labels share the first place: they are in or out together.
    assert top.astype(int).tolist() == [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]]
    assert np.array_equal(predicted_labels(logits_NK, top=9), predicted_labels(logits_NK))


def test_threshold_is_a_probability() -> None:
    logits_NK = np.array([[-1.0, 0.0, 1.0, 2.0]], dtype=np.float32)
    assert predicted_labels(logits_NK, threshold=0.5).tolist() == [[False, False, True, True]]
    assert predicted_labels(logits_NK, threshold=0.8).tolist() == [[False, False, False, True]]


def test_every_number_has_a_protocol() -> None:
    for name in scores(*random_case(0)):
        assert name.removesuffix("@3") in PROTOCOLS


def slow_interval(networks: list[np.ndarray], targets_NK: np.ndarray) -> tuple[float, float]:
    """The interval of the first network's mAP (less the second's), a subsample at a time."""
    order_RN = metrics.generator("subsamples", 5).permuted(np.tile(np.arange(80, dtype=np.int32), (60, 1)), axis=1)

    def value(kept: np.ndarray) -> float:
        means = [np.nanmean(average_precision(one_NK[kept], targets_NK[kept])) for one_NK in networks]
        return float(means[0] - sum(means[1:]))

    score = value(np.ones(80, dtype=bool))
    half, quarter = ([value(order < size) for order in order_RN] for size in (40, 20))
    step, next_step = np.mean(half) - score, np.mean(quarter) - np.mean(half)
    biases = [0.0, step, step / (np.clip(next_step / step, 1.3, 2.0) - 1)]
    return score - max(biases) - 1.959964 * np.std(half), score - min(biases) + 1.959964 * np.std(half)


def test_the_interval_of_a_score_is_the_slow_loop() -> None:
    logits_NK, targets_NK = random_case(3, samples=80)
    targets_NK[:, 2] = np.minimum(targets_NK[:, 2], 0)
    interval = score_interval(logits_NK, targets_NK, replicates=60, seed=5)
    assert interval == pytest.approx(slow_interval([logits_NK], targets_NK), abs=1e-6)


def test_the_interval_of_a_difference_is_the_slow_loop() -> None:
    logits_NK, targets_NK = random_case(3, samples=80)
    other_NK, _ = random_case(4, samples=80)
    both = [logits_NK + targets_NK, other_NK]
    interval = difference_interval(*both, targets_NK, replicates=60, seed=5)
    assert interval == pytest.approx(slow_interval(both, targets_NK), abs=1e-6)
    assert difference_interval(logits_NK, logits_NK, targets_NK) == (0, 0)
    assert difference_interval(logits_NK, 3 * logits_NK + 1, targets_NK) == (0, 0)  # AP sees ranks alone
    assert np.isnan(difference_interval(*both, np.zeros_like(targets_NK))).all()


def test_the_interval_of_a_difference_is_narrow_where_two_networks_fail_alike() -> None:
    random = np.random.default_rng(0)
    targets_NK = (random.random((600, 10)) < 0.1).astype(np.int8)
    shared_NK = random.normal(size=(600, 10)) + targets_NK
    noise_2NK = random.normal(size=(2, 600, 10)) * 0.2
    alike = [(shared_NK + noise_NK).astype(np.float32) for noise_NK in noise_2NK]
    low, high = difference_interval(*alike, targets_NK, replicates=200)
    own_low, own_high = score_interval(alike[0], targets_NK, replicates=200)
    assert high - low < (own_high - own_low) / 2


def test_score_interval_narrows_with_the_sample_and_holds_the_score() -> None:
    widths = []
    for samples in (100, 1600):
        logits_NK, targets_NK = random_case(0, samples=samples)
        logits_NK = logits_NK + targets_NK
        low, high = score_interval(logits_NK, targets_NK, replicates=200)
        assert low < scores(logits_NK, targets_NK)["mAP"] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2.5
    assert np.isnan(score_interval(logits_NK, np.zeros_like(targets_NK))).all()


def draw_case(samples: int, random: np.random.Generator, rates_K: np.ndarray) -> tuple[np.ndarray, ...]:
    """Two networks' logits, which fail alike in part, and the labels."""
    labels = len(rates_K)
    targets_NK = (random.random((samples, labels)) < rates_K).astype(np.int8)
    shared_NK = random.normal(size=(samples, labels)) + np.linspace(1.0, 3.0, labels) * targets_NK
    first, second = (shared_NK + weight * random.normal(size=shared_NK.shape) for weight in (0.3, 0.6))
    return first.astype(np.float32), second.astype(np.float32), targets_NK


@pytest.mark.parametrize(
    ("samples", "rates_K"),
    [(400, np.full(10, 0.1)), (600, np.geomspace(0.2, 0.006, 12))],
    ids=["forty positives each", "a long tail: three to 120"],
)
def test_the_intervals_hold_the_true_scores(samples: int, rates_K: np.ndarray) -> None:
    """At least nine times in ten of 40, where 95 of 100 are promised; `test_coverage` counts more."""
    check_coverage(samples, rates_K, times=40, least=0.9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("samples", "rates_K"),
    [(771, np.geomspace(0.25, 0.004, 80)), (2000, np.full(20, 0.02)), (200, np.geomspace(0.5, 0.02, 5))],
)
def test_coverage(samples: int, rates_K: np.ndarray) -> None:
    check_coverage(samples, rates_K, times=100, least=0.88)


def check_coverage(samples: int, rates_K: np.ndarray, *, times: int, least: float) -> None:
    random = np.random.default_rng(0)
    parts = [draw_case(50_000, random, rates_K) for _ in range(3)]
    truths = np.mean([[scores(one_NK, part[2])["mAP"] for one_NK in part[:2]] for part in parts], axis=0)
    held, held_difference, above = 0, 0, 0.0
    for number in range(times):
        first_NK, second_NK, targets_NK = draw_case(samples, random, rates_K)
        low, high = score_interval(first_NK, targets_NK, replicates=150, seed=number)
        own = scores(first_NK, targets_NK)["mAP"]
        assert low < own < high  # a score lies in its own interval
        held += low <= truths[0] <= high
        above += (own - truths[0]) / times
        low, high = difference_interval(first_NK, second_NK, targets_NK, replicates=150, seed=number)
        held_difference += low <= truths[0] - truths[1] <= high
    print(f"{samples} images, {len(rates_K)} labels: {held}, {held_difference} of {times}; too high by {above:.4f}")
    assert above > 0  # few positives make the mAP of a sample too high; the interval must know
    assert min(held, held_difference) >= least * times


def gathered(logits_NK: np.ndarray, targets_NK: np.ndarray, batches: list[list[int]], dtype=torch.float32):
    metric = MultilabelScores(num_labels=logits_NK.shape[1])
    for indices in batches:
        rows = [max(i, 0) for i in indices]
        metric.update(
            torch.from_numpy(logits_NK[rows]).to(dtype), torch.from_numpy(targets_NK[rows]), torch.tensor(indices)
        )
    return metric


def test_metric_counts_each_sample_once_and_padding_never() -> None:
    logits_NK, targets_NK = random_case(0, samples=7)
    metric = gathered(logits_NK, targets_NK, [[3, 0, 6], [5, -1, 2], [1, 4, 0], [-1, -1, -1]])
    prediction = metric.prediction()
    assert prediction.index_N.tolist() == list(range(7))
    assert np.array_equal(prediction.logits_NK, logits_NK)
    assert np.array_equal(prediction.targets_NK, targets_NK)
    found, expected = metric.compute(), scores(logits_NK, targets_NK)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected)
    metric.reset()
    assert metric.prediction().logits_NK.shape == (0, 6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_kept_as_float32(dtype: torch.dtype) -> None:
    logits_NK, targets_NK = random_case(0, ties=False)
    metric = gathered(logits_NK, targets_NK, [list(range(300))], dtype)
    assert metric.prediction().logits_NK.dtype == np.float32
    rounded = torch.from_numpy(logits_NK).to(dtype).float().numpy()
    assert float(metric.compute()["mAP"]) == scores(rounded, targets_NK)["mAP"]
    assert float(metric.compute()["mAP"]) == pytest.approx(scores(logits_NK, targets_NK)["mAP"], abs=5e-3)
