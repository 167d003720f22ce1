"""The card's numbers, by hand and against slow loops."""

# N pictures, K labels

import math

import numpy as np
import pytest
from scipy import stats

from tutelage.multilabel.data.source import Boxes
from tutelage.multilabel.metrics import average_precision
from tutelage.multilabel.results import card

NAN = math.nan


def test_labels_are_parted_by_their_training_positives() -> None:
    ap_K = np.array([0.9, 0.1, 0.5, 0.3, NAN, 0.7])
    positives_K = np.array([100, 5, 50, 6, 40, 90])  # rare: 1 and 3; middle: 4 and 2; frequent: 5 and 0
    found = card.ap_by_frequency(ap_K, positives_K)
    assert found == pytest.approx({"rare": 0.2, "middle": 0.5, "frequent": 0.8})


def test_two_labels_leave_a_third_without_any() -> None:
    assert card.ap_by_frequency(np.array([0.4, 0.6]), np.array([1, 2])) == {"rare": 0.4, "middle": 0.6}


def test_positives_of_another_size_are_ignored() -> None:
    """One label: areas 1, 2 and 3 rank 3rd, 2nd and 1st, and an absent one stands between the first two."""
    logits_NK = np.array([[1.0], [2.0], [4.0], [3.0]], np.float32)
    targets_NK = np.array([[1], [1], [1], [0]], np.int8)
    area_NK = np.array([[0.1], [0.2], [0.3], [NAN]])
    found = card.ap_by_size(logits_NK, targets_NK, area_NK)
    assert found == {"small": 0.5, "medium": 0.5, "large": 1.0}  # the small one: rank 2 of itself and the absent one


def test_sizes_against_a_slow_loop() -> None:
    random = np.random.default_rng(0)
    logits_NK = random.normal(size=(60, 3)).astype(np.float32)
    targets_NK = random.integers(-1, 2, size=(60, 3)).astype(np.int8)
    area_NK = np.where((targets_NK == 1) & (random.random((60, 3)) < 0.8), random.random((60, 3)), NAN)
    known = np.sort(area_NK[~np.isnan(area_NK)])
    low, high = np.quantile(known, [1 / 3, 2 / 3])
    of_size = {"small": (-1, low), "medium": (low, high), "large": (high, 2)}
    for name, (above, upto) in of_size.items():
        aps = []
        for k in range(3):
            rows = [
                n
                for n in range(60)
                if targets_NK[n, k] == 0 or (targets_NK[n, k] == 1 and above < area_NK[n, k] <= upto)
            ]
            aps.append(average_precision(logits_NK[rows, k : k + 1], targets_NK[rows, k : k + 1])[0])
        assert card.ap_by_size(logits_NK, targets_NK, area_NK)[name] == pytest.approx(np.mean(aps))


def test_without_boxes_there_are_no_sizes() -> None:
    areas = card.largest_areas([None, None], 2)
    assert np.isnan(areas).all()
    assert card.ap_by_size(np.zeros((2, 2), np.float32), np.ones((2, 2), np.int8), areas) == {}


def test_the_largest_box_of_a_label_counts() -> None:
    corners = np.array([[0, 0, 0.5, 0.5], [0, 0, 1, 0.5], [0.2, 0.2, 0.3, 0.3]], np.float32)
    areas = card.largest_areas([Boxes(np.array([1, 1, 0]), corners), None], 3)
    assert areas[0] == pytest.approx([0.01, 0.5, NAN], nan_ok=True)
    assert np.isnan(areas[1]).all()


def test_calibration_by_hand() -> None:
    """Two bins: .2 and .4 with one of two there, .8 with none of one there; an ignored pair counts nowhere."""
    probability = np.array([[0.2], [0.4], [0.8], [0.9]])
    logits_NK = np.log(probability / (1 - probability)).astype(np.float32)
    found = card.reliability(logits_NK, np.array([[0], [1], [0], [-1]], np.int8), bins=2)
    assert found.probability_B == pytest.approx([0.3, 0.8])
    assert found.share_B == pytest.approx([0.5, 0.0])
    assert found.ece == pytest.approx(2 / 3 * 0.2 + 1 / 3 * 0.8)


def test_calibrated_probabilities_have_no_error() -> None:
    random = np.random.default_rng(0)
    probability = random.random((20000, 5))
    logits_NK = np.log(probability / (1 - probability)).astype(np.float32)
    present = (random.random((20000, 5)) < probability).astype(np.int8)
    assert card.reliability(logits_NK, present).ece < 0.01
    assert card.reliability(3 * logits_NK, present).ece > 0.1


def test_empty_bins_and_probabilities_of_one() -> None:
    found = card.reliability(np.array([[200.0], [-200.0]], np.float32), np.array([[1], [0]], np.int8))
    assert found.ece == pytest.approx(0, abs=1e-12)
    assert found.count_B.tolist() == [1, *[0] * 13, 1]


def test_kl_by_hand() -> None:
    """KL(Bern .5 ‖ Bern .25) = .5 ln 2 + .5 ln (2/3)."""
    student_NK = np.array([[math.log(1 / 3)]], np.float32)
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert card.bernoulli_kl(np.zeros((1, 1), np.float32), student_NK) == pytest.approx(expected)
    assert card.bernoulli_kl(student_NK, student_NK) == 0
    far = card.bernoulli_kl(np.full((1, 1), 400, np.float32), np.full((1, 1), -400, np.float32))
    assert far == pytest.approx(400)


def test_ranks_agree_as_spearman_says() -> None:
    random = np.random.default_rng(0)
    teacher_NK = random.integers(0, 5, size=(40, 3)).astype(np.float32)  # with ties
    student_NK = (teacher_NK + random.normal(size=(40, 3))).astype(np.float32)
    expected = np.mean([stats.spearmanr(teacher_NK[:, k], student_NK[:, k]).statistic for k in range(3)])
    assert card.rank_agreement(teacher_NK, student_NK) == pytest.approx(expected)
    assert card.rank_agreement(teacher_NK, 2 * teacher_NK + 1) == pytest.approx(1)
    assert math.isnan(card.rank_agreement(teacher_NK, np.zeros_like(teacher_NK)))


def test_the_card_has_what_there_is() -> None:
    random = np.random.default_rng(0)
    targets_NK = (random.random((30, 6)) < 0.4).astype(np.int8)
    logits_NK = random.normal(size=(30, 6)).astype(np.float32)
    without = card.card(logits_NK, targets_NK, train_positives_K=np.arange(6), boxes=[None] * 30)
    assert set(without) == {"mAP_rare", "mAP_middle", "mAP_frequent", "ECE"}
    taught = card.card(logits_NK, targets_NK, train_positives_K=np.arange(6), boxes=[None] * 30, teacher_NK=logits_NK)
    assert taught["fidelity_kl"] == 0
    assert taught["rank_agreement"] == pytest.approx(100)
    parts = [taught[f"mAP_{name}"] for name in card.FREQUENCIES]
    assert np.mean(parts) == pytest.approx(100 * np.nanmean(average_precision(logits_NK, targets_NK)))
