"""Batches are a function of (seed, epoch); every sample counts once."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from tutelage.core.batches import PADDING, EvalBatches, Key, TrainBatches, TrainLoader
from tutelage.core.errors import ConfigError
from tutelage.core.randomness import generator, seed_of


class Numbers(Dataset[Key]):
    def __len__(self) -> int:
        return 23

    def __getitem__(self, key: Key) -> Key:
        return key


def test_random_numbers_are_a_function_of_the_key() -> None:
    # stored: another machine or version must draw the same
    assert generator(1, 0, "000000000139").integers(0, 1000, 4).tolist() == [119, 126, 500, 786]
    assert seed_of(1) != seed_of("1") and seed_of(1, 2) != seed_of(12) and seed_of("a", "b") != seed_of("ab")


def test_an_epoch_visits_each_sample_at_most_once() -> None:
    batches = TrainBatches(23, batch_size=4, seed=1)
    assert len(batches) == 5
    first, second = batches.epoch(0), batches.epoch(1)
    assert all(len(batch) == 4 for batch in first)
    seen = [key.sample for batch in first for key in batch]
    assert len(set(seen)) == 20 and set(seen) <= set(range(23))
    assert first != second and first == TrainBatches(23, batch_size=4, seed=1).epoch(0)
    assert first != TrainBatches(23, batch_size=4, seed=2).epoch(0)


def test_the_ranks_share_the_batch_of_one_process() -> None:
    whole = TrainBatches(23, batch_size=4, seed=1).epoch(3)
    shares = [TrainBatches(23, batch_size=4, seed=1, rank=rank, world_size=2).epoch(3) for rank in range(2)]
    for together, left, right in zip(whole, *shares, strict=True):
        assert sorted(left + right) == sorted(together) and len(left) == len(right) == 2


def test_the_view_is_the_epoch_modulo_the_number_of_views() -> None:
    def views(plan: TrainBatches) -> list[set[int]]:
        return [{key.view for batch in plan.epoch(epoch) for key in batch} for epoch in range(7)]

    fresh = TrainBatches(23, batch_size=4, seed=1)
    assert views(fresh) == [{epoch} for epoch in range(7)]
    three = TrainBatches(23, batch_size=4, seed=1, views=3)
    assert views(three) == [{0}, {1}, {2}, {0}, {1}, {2}, {0}]
    order = [[key.sample for batch in three.epoch(epoch) for key in batch] for epoch in (0, 3)]
    assert order[0] != order[1]  # the same views in another order


CROPPED = [(24, 4, 4, 8), (24, 4, 2, 1000), (23, 4, 3, 12), (50, 8, 4, 16), (9, 4, 3, 4)]


@pytest.mark.parametrize(("num_samples", "batch_size", "crops", "buffer"), CROPPED)
def test_crops_show_what_as_many_usual_epochs_show(num_samples: int, batch_size: int, crops: int, buffer: int) -> None:
    plan = TrainBatches(num_samples, batch_size=batch_size, seed=1, crops=crops, buffer=buffer)
    for group in range(2):
        views = range(group * crops, (group + 1) * crops)
        epochs = [plan.epoch(view) for view in views]
        assert all([len(batch) for batch in epoch] == [batch_size] * len(plan) for epoch in epochs)
        shown = Counter((index, view) for epoch in epochs for batch in epoch for index, view, _ in batch)
        samples = {index for index, _ in shown}
        assert len(samples) == num_samples // batch_size * batch_size  # all that fill a batch
        assert shown == Counter((index, view) for index in samples for view in views)
    usual = TrainBatches(24, batch_size=4, seed=1)
    if num_samples == 24:
        assert shown == Counter(key[:2] for view in views for batch in usual.epoch(view) for key in batch)


@pytest.mark.parametrize(("num_samples", "batch_size", "crops", "buffer"), CROPPED)
def test_a_cropped_sample_is_decoded_once_and_held_in_a_bounded_buffer(
    num_samples: int, batch_size: int, crops: int, buffer: int
) -> None:
    plan = TrainBatches(num_samples, batch_size=batch_size, seed=1, crops=crops, buffer=buffer)
    decoded = 0
    for epoch in range(crops):
        held: set[int] = set()
        column: dict[int, int] = {}
        for batch in plan.epoch(epoch):
            assert len({key.sample for key in batch}) == batch_size  # never two views of one sample
            for place, key in enumerate(batch):
                assert column.setdefault(key.sample, place) == place
                decoded += key.sample not in held
                held.discard(key.sample)
                held |= {key.sample} if key.keep else set()
            assert len(held) <= buffer
        assert not held
    whole = len(plan) * batch_size
    # Where the steps do not divide, each column has a sample on either side of an epoch's end.
    assert decoded == whole if len(plan) % crops == 0 else whole < decoded <= whole + batch_size * (crops - 1)


def test_the_views_of_a_cropped_sample_lie_as_far_apart_as_the_buffer_allows() -> None:
    def distance(buffer: int) -> float:
        plan = TrainBatches(400, batch_size=4, seed=1, crops=2, buffer=buffer)
        steps: dict[int, list[int]] = {}
        for step, batch in enumerate(plan.epoch(0)):
            for key in batch:
                steps.setdefault(key.sample, []).append(step)
        return float(np.mean([second - first for first, second in steps.values()]))

    # Two uniform delays of up to w turns of two steps each differ by 2 w / 3 steps in the mean.
    assert distance(20) == pytest.approx(10 / 3, rel=0.2)
    assert distance(40) == pytest.approx(20 / 3, rel=0.2)
    assert distance(10**6) == pytest.approx(100 / 3, rel=0.2)  # as in a shuffled epoch


def test_the_ranks_share_cropped_batches_and_no_sample() -> None:
    settings = {"batch_size": 4, "seed": 1, "crops": 3, "buffer": 12}
    whole = TrainBatches(23, **settings).epoch(1)
    shares = [TrainBatches(23, rank=rank, world_size=2, **settings).epoch(1) for rank in range(2)]
    for together, left, right in zip(whole, *shares, strict=True):
        assert sorted(left + right) == sorted(together) and len(left) == len(right) == 2
    seen = [{key.sample for batch in share for key in batch} for share in shares]
    assert not seen[0] & seen[1]


def test_cropped_views_come_in_turn() -> None:
    plan = TrainBatches(24, batch_size=4, seed=1, views=3, crops=2, buffer=8)
    views = [{key.view for batch in plan.epoch(epoch) for key in batch} for epoch in range(6)]
    assert views == [{0, 1}, {0, 1}, {2, 0}, {2, 0}, {1, 2}, {1, 2}]


@pytest.mark.parametrize("num_samples", [1, 7, 8, 9])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_counts_each_sample_once_over_all_ranks(num_samples: int, world_size: int) -> None:
    ranks = [list(EvalBatches(num_samples, batch_size=4, rank=r, world_size=world_size)) for r in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1  # a rank without a batch would leave the others waiting
    indices = [index for batches in ranks for batch in batches for index, *_ in batch]
    assert sorted(index for index in indices if index != PADDING) == list(range(num_samples))


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "world_size", "says"),
    [
        (0, 1, 1, "no training samples"),
        (8, 9, 1, "larger than the training data (8 samples)"),
        (8, 3, 2, "does not divide by 2"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(num_samples: int, batch_size: int, world_size: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("(", r"\(").replace(")", r"\)")):
        TrainBatches(num_samples, batch_size=batch_size, seed=0, world_size=world_size)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 4, 5, 7, 10])
@pytest.mark.parametrize("crops", [1, 2])
def test_a_loader_resumes_at_the_next_batch(workers: int, stop: int, crops: int) -> None:
    plan = TrainBatches(23, batch_size=4, seed=1, crops=crops, buffer=8)

    def loader() -> TrainLoader:
        merge = None if crops == 1 else lambda parts: list(chain(*parts))
        return TrainLoader(Numbers(), batches=plan, collate=list, workers=workers, merge=merge)

    uninterrupted = loader()
    expected = [batch for _ in range(3) for batch in uninterrupted]
    assert expected == [batch for epoch in range(3) for batch in plan.epoch(epoch)]

    killed, seen = loader(), []
    while len(seen) < stop:
        for batch in killed:
            seen.append(batch)
            if len(seen) == stop:
                break
    resumed = loader()
    resumed.load_state_dict(killed.state_dict())
    while len(seen) < 15:
        seen.extend(resumed)
    assert seen == expected


def test_the_order_does_not_touch_torch_randomness() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    TrainBatches(23, batch_size=4, seed=1).epoch(0)
    assert torch.equal(torch.rand(2), expected)
