"""Which samples make which batch, and in which view: a function of (seed, epoch), and of nothing else.

That is what makes a resumed run equal an uninterrupted one, and two processes equal one.
"""

# S steps of an epoch, B rows of a global batch

from collections.abc import Callable, Iterator, Sized
from itertools import islice, pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from tutelage.core.errors import ConfigError
from tutelage.core.randomness import generator
from tutelage.core.startup import loader_processes

PADDING = -1  # the index of a row that only fills up a batch, and counts nowhere


Places = NDArray[np.int64]


class Key(NamedTuple):
    """What a data set is asked for."""

    sample: int  # its index; PADDING for a filler
    view: int  # which view of it
    keep: bool = False  # another view of the sample follows in this epoch, in the same process


class SizedDataset(Sized, Protocol):
    """A map-style data set that is told the view with every index, since augmentation depends on it."""

    def __getitem__(self, key: Key) -> Any:
        """Return a view of a sample."""
        ...


class TrainBatches:
    """The batches of any epoch, this rank's share of each.

    Every global batch is a row of the epoch's permutation, laid out as steps × rows of a batch; rank r takes every
    world-th column of it from r on. What does not fill a batch at an epoch's end waits for another epoch.

    With ``crops`` n, an epoch visits the n-th part of the samples n times each, in n views, so that each is decoded
    once in n epochs (FKD, arXiv 2112.01528); the epochs of such a group visit all. All views of a sample lie in one
    column, never two in a batch: so one process, and in it one worker, has all of them, and may hold the decoded
    sample until its last view.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        batch_size: int,
        seed: int,
        views: int | None = None,
        crops: int = 1,
        buffer: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Plan batches.

        Args:
            num_samples: Samples in the training split.
            batch_size: Samples of one optimiser step over all ranks, per accumulated micro-batch.
            seed: With the epoch it fixes the order.
            views: There are as many of each sample, which come in turn; None for a new one each time.
            crops: How many views of a sample an epoch shows, all in one epoch where their number allows it.
            buffer: Samples that may be held decoded at once, over all ranks: where ``crops`` is not 1, the views of
                a sample are spread over a stretch of the epoch in which so many begin. At least ``batch_size``.
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
        assert crops == 1 or buffer >= batch_size
        self.num_samples, self.batch_size, self.seed, self.views = num_samples, batch_size, seed, views
        self.crops, self.buffer = crops, buffer
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.num_samples // self.batch_size

    def epoch(self, epoch: int) -> list[list[Key]]:
        """Return this rank's batches of an epoch."""
        steps, rows = len(self), self.batch_size
        group, part = divmod(epoch, self.crops)
        # Each column shows its samples one after the other, `crops` times each; an epoch is its share of these places.
        sample_SB = generator(self.seed, "order", group).permutation(self.num_samples)[: steps * rows]
        sample_SB = sample_SB.reshape(steps, rows)
        turn_S, crop_S = np.divmod(np.arange(part * steps, (part + 1) * steps), self.crops)
        turn_SB, crop_SB = (np.broadcast_to(values[:, None], (steps, rows)) for values in (turn_S, crop_S))
        keep_SB = np.zeros((steps, rows), dtype=bool)
        if self.crops > 1:
            turn_SB, crop_SB = self._spread(epoch, turn_SB, crop_SB)
            keep_SB = _comes_later(turn_SB)
        index_SB = np.take_along_axis(sample_SB, turn_SB, axis=0)
        view_SB = group * self.crops + crop_SB
        if self.views is not None:
            view_SB %= self.views
        mine = [values[:, self.rank :: self.world_size].tolist() for values in (index_SB, view_SB, keep_SB)]
        return [[Key(*key) for key in zip(*batch, strict=True)] for batch in zip(*mine, strict=True)]

    def _spread(self, epoch: int, turn_SB: Places, crop_SB: Places) -> tuple[Places, Places]:
        """Delay each place of a column by a random time, so that the views of a sample lie apart.

        A sample whose turn is t has all its views between t and t + window, so at any time only those of the last
        ``window`` turns are held: rows × window ≤ buffer. New ones begin at a constant rate, as a decoder wants it.
        """
        window = self.buffer // self.batch_size
        delay_SB = window * generator(self.seed, "spread", epoch).random(turn_SB.shape)
        order_SB = np.argsort(turn_SB + delay_SB, axis=0, kind="stable")
        return np.take_along_axis(turn_SB, order_SB, axis=0), np.take_along_axis(crop_SB, order_SB, axis=0)


def _comes_later(turn_SB: Places) -> NDArray[np.bool_]:
    """Tell for each place whether its value comes again further down its column."""
    order_SB = np.argsort(turn_SB, axis=0, kind="stable")  # equal values stay in their order
    sorted_SB = np.take_along_axis(turn_SB, order_SB, axis=0)
    again_SB = np.zeros(turn_SB.shape, dtype=bool)
    again_SB[:-1] = sorted_SB[:-1] == sorted_SB[1:]
    found_SB = np.empty_like(again_SB)
    np.put_along_axis(found_SB, order_SB, again_SB, axis=0)
    return found_SB


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
        return iter([[Key(index, 0) for index in batch] for batch in self.batches])


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
        merge: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        """Load planned batches.

        Args:
            dataset: Gives the rows.
            batches: The plan.
            collate: Makes a batch of rows.
            workers: Loader processes at most; 0 loads in this process.
            pin_memory: Whether batches go to a GPU.
            merge: Makes one batch of several that follow each other. Given, each worker loads its columns of every
                batch, so that one worker loads all views of a sample; None lets a worker load whole batches.
        """
        self.dataset, self.batches, self.merge = dataset, batches, merge
        self.collate, self.workers, self.pin_memory = collate, workers, pin_memory
        self.epoch, self.batch = 0, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        epoch, start = self.epoch, self.batch
        for position, batch in enumerate(self._load(self.batches.epoch(epoch)[start:]), start + 1):
            # Set before the batch is handed out: a checkpoint taken after its step must point past it.
            self.epoch, self.batch = (epoch, position) if position < len(self) else (epoch + 1, 0)
            yield batch

    def _load(self, batches: list[list[Key]]) -> Iterator[Any]:
        parts = 1 if self.merge is None or not batches else min(loader_processes(self.workers), len(batches[0]))
        if self.merge is None or parts <= 1:
            yield from self._make_loader(batches, workers=self.workers)
            return
        # A DataLoader deals batches out to its workers in turns.
        bounds = [len(batches[0]) * part // parts for part in range(parts + 1)]
        columns = [batch[left:right] for batch in batches for left, right in pairwise(bounds)]
        loaded = iter(self._make_loader(columns, workers=parts))
        while several := list(islice(loaded, parts)):
            yield self.merge(several)

    def _make_loader(self, batches: list[list[Key]], *, workers: int) -> DataLoader[Any]:
        return make_loader(
            self.dataset, batches=batches, collate=self.collate, workers=workers, pin_memory=self.pin_memory
        )

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
