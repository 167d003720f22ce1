"""Batches are a function of (seed, epoch); every sample counts once."""

import pytest
import torch
from torch.utils.data import Dataset

from tutelage.core.batches import PADDING, EvalBatches, TrainBatches, TrainLoader
from tutelage.core.errors import ConfigError
from tutelage.core.randomness import generator, seed_of


class Numbers(Dataset[tuple[int, int]]):
    def __len__(self) -> int:
        return 23

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
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
    seen = [index for batch in first for index, _ in batch]
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
        return [{view for batch in plan.epoch(epoch) for _, view in batch} for epoch in range(7)]

    fresh = TrainBatches(23, batch_size=4, seed=1)
    assert views(fresh) == [{epoch} for epoch in range(7)]
    three = TrainBatches(23, batch_size=4, seed=1, views=3)
    assert views(three) == [{0}, {1}, {2}, {0}, {1}, {2}, {0}]
    order = [[index for batch in three.epoch(epoch) for index, _ in batch] for epoch in (0, 3)]
    assert order[0] != order[1]  # the same views in another order


@pytest.mark.parametrize("num_samples", [1, 7, 8, 9])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_counts_each_sample_once_over_all_ranks(num_samples: int, world_size: int) -> None:
    ranks = [list(EvalBatches(num_samples, batch_size=4, rank=r, world_size=world_size)) for r in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1  # a rank without a batch would leave the others waiting
    indices = [index for batches in ranks for batch in batches for index, _ in batch]
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
def test_a_loader_resumes_at_the_next_batch(workers: int, stop: int) -> None:
    def loader() -> TrainLoader:
        return TrainLoader(Numbers(), batches=TrainBatches(23, batch_size=4, seed=1), collate=list, workers=workers)

    uninterrupted = loader()
    expected = [batch for _ in range(3) for batch in uninterrupted]
    assert {epoch for batch in expected[5:10] for _, epoch in batch} == {1}

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
