"""Rows of packed samples to train on; questions to validate on."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from tutelage.core.batches import EvalBatches, TrainBatches, TrainLoader, make_loader
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.randomness import generator
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.prompts import View
from tutelage.text2sql.training.packing import Sample, TokenBatch, first_fit_decreasing, pack, pad

# Token ids of examples of one database, all with the same view of its schema; None for the whole schema.
Encode = Callable[[Sequence[Example], View | None], list[Sample]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """The part of ``data`` that says how questions reach the model.

    Attributes:
        max_length: Tokens of a row, and the longest sample (question and answer); longer ones are reported.
        batch_size: Rows of one step over all processes; packed, a row holds as many samples as fit it. Where there
            are fewer rows than that in all, a step takes all of them.
        packing: Whether to fill rows with several samples; otherwise a row is one sample, padded.
        workers: Loader processes of each training process; 0 loads in the process itself.
        val_size: How many validation questions, at most, pick the checkpoint; the same ones each time.
        test_size: How many test questions, at most, are scored; the same ones each time. None for all.
    """

    max_length: int
    batch_size: int
    packing: bool = True
    workers: int = 0
    val_size: int
    test_size: int | None = None

    def __post_init__(self) -> None:
        for key, value in (
            ("max_length", self.max_length),
            ("batch_size", self.batch_size),
            ("val_size", self.val_size),
        ):
            if value < 1:
                raise ConfigError(f"data.{key}", f"{value} is not positive", "give a whole number from 1")
        if self.workers < 0:
            raise ConfigError("data.workers", f"{self.workers} is negative", "give 0 or more")


class RowBatches(TrainBatches):
    """The rows of each step, and how many answer tokens the whole step has.

    A curriculum goes through its stages in their order; without one there is a single stage. Within a stage rows
    come in an order of the epoch's own.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]],
        *,
        answers: Sequence[int],
        batch_size: int,
        accumulate: int,
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        """Plan batches.

        Args:
            stages: The rows of each stage.
            answers: Answer tokens of each row.
            batch_size: Rows of a batch over all ranks.
            accumulate: Batches of an optimiser step.
            seed: With the epoch it fixes the order.
            rank: This process.
            world_size: All processes.
        """
        super().__init__(sum(map(len, stages)), batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
        self.stages = [np.array(stage, dtype=np.int64) for stage in stages]
        self.answers = np.array(answers, dtype=np.int64)
        self.accumulate = accumulate
        self._steps: tuple[int, dict[int, int]] = (-1, {})  # of the epoch asked about last

    def order(self, epoch: int) -> np.ndarray:
        """Every row of an epoch in its order, by batch: [batches, batch_size]."""
        rng = generator(self.seed, "rows", epoch)
        rows = np.concatenate([rng.permutation(stage) for stage in self.stages])
        return rows[: len(self) * self.batch_size].reshape(len(self), self.batch_size)

    def epoch(self, epoch: int) -> list[list[int]]:
        """Return this rank's batches of an epoch, as rows."""
        batches: list[list[int]] = self.order(epoch)[:, self.rank :: self.world_size].tolist()
        return batches

    def answers_in_step(self, epoch: int, row: int) -> int:
        """Count the answer tokens of the optimiser step that a row belongs to, over ranks and accumulated batches."""
        if self._steps[0] != epoch:
            order = self.order(epoch)
            steps: dict[int, int] = {}
            for start in range(0, len(order), self.accumulate):  # the trainer also steps at an epoch's end
                rows = order[start : start + self.accumulate].ravel()
                steps |= dict.fromkeys(rows.tolist(), int(self.answers[rows].sum()))
            self._steps = (epoch, steps)
        return self._steps[1][row]


class Rows(Dataset[tuple[list[Sample], int]]):
    """The samples of each row, written out for an epoch."""

    def __init__(self, rows: list[list[Example]], *, encode: Encode, batches: RowBatches, seed: int) -> None:
        self.rows, self.encode, self.batches, self.seed = rows, encode, batches, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[list[Sample], int]:
        row, epoch = key
        samples = [self.encode([example], View(self.seed, epoch, example.id))[0] for example in self.rows[row]]
        return samples, self.batches.answers_in_step(epoch, row)


class QuestionIndices(Dataset[int]):
    """Validation questions, by their index: a model is shown the question and not the answer."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: tuple[int, int]) -> int:
        return key[0]


class Text2SqlDataModule(LightningDataModule):
    """Training rows and validation questions of one run."""

    def __init__(
        self,
        *,
        train: Sequence[Sequence[Example]],
        val: Sequence[Example],
        encode: Encode,
        loading: Loading,
        val_batch_size: int,
        seed: int,
        folder: Path,
    ) -> None:
        """Take the examples.

        Args:
            train: The stages of the curriculum, in their order; one stage for none.
            val: Questions to pick the checkpoint by.
            encode: Writes an example as tokens.
            loading: How they reach the model.
            val_batch_size: Questions answered at once, over all processes.
            seed: Of the order and of what the prompt shuffles.
            folder: The run's; ``overlong.json`` goes there.
        """
        super().__init__()
        self.stages, self.encode, self.loading, self.seed, self.folder = train, encode, loading, seed, folder
        self.val_batch_size = val_batch_size
        chosen = np.sort(generator(0, "val").permutation(len(val))[: loading.val_size])
        self.val = [val[index] for index in chosen]
        self._train: TrainLoader | None = None

    def train_dataloader(self) -> TrainLoader:
        """Packed rows, planned once; the order, and what the prompt shuffles, are functions of (seed, epoch).

        Raises:
            DataError: No sample fits.
        """
        if self._train is None:
            self._train = self._plan()
        return self._train

    def val_dataloader(self) -> DataLoader[Any]:
        rank, world_size = self._place()
        batches = EvalBatches(len(self.val), batch_size=self.val_batch_size, rank=rank, world_size=world_size)
        return make_loader(QuestionIndices(len(self.val)), batches=batches, collate=list, workers=0)

    def _plan(self) -> TrainLoader:
        rank, world_size = self._place()
        rows: list[list[Example]] = []
        answers: list[int] = []
        stages: list[list[int]] = []
        overlong: dict[str, int] = {}
        for examples in self.stages:
            # Rows are planned on whole prompts. A view that drops tables is shorter; one that only shuffles them
            # can be longer by a token or two, which a row without padding takes.
            samples = [self.encode([example], None)[0] for example in examples]
            fits = [i for i, sample in enumerate(samples) if sample.length <= self.loading.max_length]
            overlong |= {
                example.id: sample.length
                for example, sample in zip(examples, samples, strict=True)
                if sample.length > self.loading.max_length
            }
            if self.loading.packing:
                lengths = [samples[i].length for i in fits]
                filled = [
                    [fits[i] for i in row] for row in first_fit_decreasing(lengths, capacity=self.loading.max_length)
                ]
            else:
                filled = [[i] for i in fits]
            stages.append(list(range(len(rows), len(rows) + len(filled))))
            rows += [[examples[i] for i in row] for row in filled]
            answers += [sum(len(samples[i].answer_ids) for i in row) for row in filled]
        self._report(overlong, of=sum(map(len, self.stages)))
        batches = RowBatches(
            stages,
            answers=answers,
            batch_size=self._batch_size(len(rows), world_size=world_size),
            accumulate=1 if self.trainer is None else self.trainer.accumulate_grad_batches,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        dataset = Rows(rows, encode=self.encode, batches=batches, seed=self.seed)
        return TrainLoader(dataset, batches=batches, collate=self.collate, workers=self.loading.workers)

    def collate(self, rows: list[tuple[list[Sample], int]]) -> TokenBatch:
        """Lay out a rank's rows of one batch."""
        samples = [sample for row, _ in rows for sample in row]
        layout = pack if self.loading.packing else pad
        return layout(samples, answers_in_step=rows[0][1])

    def _report(self, overlong: dict[str, int], *, of: int) -> None:
        """Say which samples are left out; an answer is never cut off."""
        if len(overlong) == of:
            raise DataError(
                "data.max_length",
                f"none of the {of} training samples fits {self.loading.max_length} tokens",
                f"give at least {min(overlong.values(), default=1)}, or a smaller prompt.max_tokens",
            )
        if overlong and self._place()[0] == 0:
            path = self.folder / "overlong.json"
            path.write_text(json.dumps(overlong, indent=2) + "\n")
            warnings.warn(
                f"{len(overlong)} of {of} training samples are longer than data.max_length={self.loading.max_length} "
                f"and are left out (the longest has {max(overlong.values())} tokens; all in {path})",
                stacklevel=2,
            )

    def _batch_size(self, num_rows: int, *, world_size: int) -> int:
        """Say how many rows a step takes: a small database must not need another setting to be learned at all."""
        size = self.loading.batch_size
        most = num_rows // world_size * world_size
        if not 0 < most < size:
            return size
        warnings.warn(
            f"the training samples fill {num_rows} rows of {self.loading.max_length} tokens, fewer than "
            f"data.batch_size={size}: a step takes {most}; for more steps an epoch lower data.batch_size",
            stacklevel=2,
        )
        return most

    def _place(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size
