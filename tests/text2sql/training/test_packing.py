"""Rows of samples: what first-fit-decreasing does, and that neighbours in a row change nothing."""

import numpy as np
import pytest
import torch

from tutelage.text2sql.training.packing import IGNORED, Sample, first_fit_decreasing, pack, pad


def slow_first_fit_decreasing(lengths: list[int], capacity: int) -> list[list[int]]:
    bins: list[list[int]] = []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        for held in bins:
            if sum(lengths[i] for i in held) + lengths[item] <= capacity:
                held.append(item)
                break
        else:
            bins.append([item])
    return bins


def test_first_fit_decreasing_by_hand() -> None:
    # 7 | 5 | 4 goes to neither 7 nor 5 at capacity 8 | 3 joins 5 | 1 joins 7 | 2 joins 4 | 2 joins 4
    assert first_fit_decreasing([4, 7, 2, 5, 3, 1, 2], capacity=8) == [[1, 5], [3, 4], [0, 2, 6]]
    assert first_fit_decreasing([], capacity=8) == []
    assert first_fit_decreasing([8], capacity=8) == [[0]]


@pytest.mark.parametrize("seed", range(20))
def test_first_fit_decreasing_equals_the_slow_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 60, size=int(rng.integers(1, 200))).tolist()
    assert first_fit_decreasing(lengths, capacity=64) == slow_first_fit_decreasing(lengths, 64)


def test_rows_hold_every_sample_once_and_are_nearly_full() -> None:
    lengths = np.random.default_rng(0).integers(100, 1200, size=20_000).tolist()
    rows = first_fit_decreasing(lengths, capacity=8192)
    assert sorted(i for row in rows for i in row) == list(range(20_000))
    assert max(sum(lengths[i] for i in row) for row in rows) <= 8192
    assert sum(lengths) / (len(rows) * 8192) > 0.998


def test_packed_row_by_hand() -> None:
    batch = pack([Sample([5, 6, 7], [8, 9]), Sample([3], [4])], answers_in_step=11)
    assert batch.input_ids_BT.tolist() == [[5, 6, 7, 8, 9, 3, 4]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 3, 4, 0, 1]]
    # 7 predicts 8, 8 predicts 9; 9 ends its sample and predicts nothing of the next.
    assert batch.target_BT.tolist() == [[IGNORED, IGNORED, 8, 9, IGNORED, 4, IGNORED]]
    assert batch.trees == ((0, 5), (0, 2))
    assert (batch.num_tokens, batch.num_seen, batch.answers_in_step) == (7, 7, 11)


def test_padded_rows_by_hand() -> None:
    batch = pad([Sample([5, 6, 7], [8, 9]), Sample([3], [4])], answers_in_step=3)
    assert batch.input_ids_BT.tolist() == [[5, 6, 7, 8, 9], [3, 4, 0, 0, 0]]
    assert batch.target_BT.tolist() == [[IGNORED, IGNORED, 8, 9, IGNORED], [4] + 4 * [IGNORED]]
    assert batch.trees == ()
    assert batch.num_tokens == 7


def test_every_answer_token_is_a_target_once() -> None:
    samples = [Sample(range(10, 15), range(20, 23)), Sample(range(3), range(30, 37)), Sample([1], [2])]
    for layout in (pack, pad):
        target = layout(samples, answers_in_step=11).target_BT
        assert target[target != IGNORED].tolist() == [20, 21, 22, *range(30, 37), 2]
    assert torch.equal(pack(samples[:1], answers_in_step=1).target_BT, pad(samples[:1], answers_in_step=1).target_BT)
