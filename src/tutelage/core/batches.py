"""Which samples make which batch, and in which view: a function of (seed, epoch), and of nothing else.

That is what makes a resumed run equal an uninterrupted one, and two processes equal one.
"""

from collections.abc import Callable, Iterator, Sized
from typing import Any, Protocol

import numpy as np
from torch.utils.data import DataLoader, Dataset

from tutelage.core.errors import ConfigError
from tutelage.core.randomness import generator
from tutelage.core.startup import loader_processes

PADDING = -1  # the index of a row that only fills up a batch, and counts nowhere


Key = tuple[int, int]  # which sample, and which view of it: what the data set is asked for


class SizedDataset(Sized, Protocol):
    """A map-style data set that is told the view with every index, since augmentation depends on it."""

    def __getitem__(self, key: Key) -> Any:
        """Return a sample. An index of PADDING is a filler."""
        ...


class TrainBatches:
    """The batches of any epoch, this rank's share of each.

    Every global batch is a slice of the epoch's permutation; rank r takes every world-th sample of it from r on.
    What does not fill a batch at an epoch's end waits for another epoch.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        batch_size: int,
        seed: int,
        views: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Plan batches.

        Args:
            num_samples: Samples in the training split.
            batch_size: Samples of one optimiser step over all ranks, per accumulated micro-batch.
            seed: With the epoch it fixes the order.
            views: Epoch e shows view e modulo this; None shows view e.
            rank: This process.
            world_size: All processes.

        Raises:
            ConfigError: No sample, more ranks than samples in a batch, or a batch larger than the data.
        """
        if num_samples == 0:
            raise ConfigError("data", "no training samples", "check the data set's root, split and filters")
        if batch_size > num_samples:
            raise ConfigError(
                "data.batch_size",
                f"{batch_size} is larger than the training data ({num_samples} samples)",
                f"use at most {num_samples}",
            )
        if batch_size % world_size:
            raise ConfigError(
                "data.batch_size",
                f"{batch_size} does not divide by {world_size} processes; it is the batch over all of them",
                f"use a multiple of {world_size}",
            )
        self.num_samples, self.batch_size, self.seed, self.views = num_samples, batch_size, seed, views
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.num_samples // self.batch_size

    def epoch(self, epoch: int) -> list[list[Key]]:
        """Return this rank's batches of an epoch."""
        view = epoch if self.views is None else epoch % self.views
        order = generator(self.seed, "order", epoch).permutation(self.num_samples)
        whole = order[: len(self) * self.batch_size].reshape(len(self), self.batch_size)
        return [[(index, view) for index in batch] for batch in whole[:, self.rank :: self.world_size].tolist()]


class EvalBatches:
    """Every sample once, in order, over all ranks; short ranks are filled with PADDING.

    Ranks get batches of equal number, since a forward pass may synchronise them.
    """

    def __init__(self, num_samples: int, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        share = -(-num_samples // world_size)
        indices = np.full(share * world_size, PADDING)
        indices[:num_samples] = np.arange(num_samples)
        mine = indices[rank::world_size]
        per_rank = max(1, batch_size // world_size)
        self.batches: list[list[int]] = [mine[i : i + per_rank].tolist() for i in range(0, share, per_rank)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        return iter([[(index, 0) for index in batch] for batch in self.batches])


class EpochPlan(Sized, Protocol):
    """Plans this rank's batches of any epoch; as many in each."""

    def epoch(self, epoch: int) -> list[list[Key]]:
        """Return the batches of an epoch."""
        ...


class TrainLoader:
    """A DataLoader over planned batches whose place, (epoch, batch), is its state.

    The trainer saves it with a checkpoint; after a restart the next batch is the one that would have followed.
    """

    def __init__(
        self,
        dataset: SizedDataset,
        *,
        batches: EpochPlan,
        collate: Callable[[list[Any]], Any],
        workers: int,
        pin_memory: bool = False,
    ) -> None:
        self.dataset, self.batches = dataset, batches
        self.collate, self.workers, self.pin_memory = collate, workers, pin_memory
        self.epoch, self.batch = 0, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        epoch, start = self.epoch, self.batch
        loader = make_loader(
            self.dataset,
            batches=self.batches.epoch(epoch)[start:],
            collate=self.collate,
            workers=self.workers,
            pin_memory=self.pin_memory,
        )
        for position, batch in enumerate(loader, start + 1):
            # Set before the batch is handed out: a checkpoint taken after its step must point past it.
            self.epoch, self.batch = (epoch, position) if position < len(self) else (epoch + 1, 0)
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.batch = state["epoch"], state["batch"]


def make_loader(
    dataset: SizedDataset, *, batches: Any, collate: Callable[[list[Any]], Any], workers: int, pin_memory: bool = False
) -> DataLoader[Any]:
    """Load batches of keys, in order, with worker processes where ``workers`` is not 0.

    There are never more workers than cores, whatever is asked for; that changes no batch.
    """
    assert isinstance(dataset, Dataset)
    workers = loader_processes(workers)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=False,
        prefetch_factor=4 if workers else None,
    )
