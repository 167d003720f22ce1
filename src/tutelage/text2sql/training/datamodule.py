"""Rows of packed samples to train on; questions to validate on."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from tutelage.core.batches import PADDING, EvalBatches, TrainLoader, make_loader
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.randomness import generator
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.prompts import View
from tutelage.text2sql.training.packing import Sample, TokenBatch, first_fit_decreasing, pack, pad

FILLER = Sample([0], [])  # no answer, so no loss
# Token ids of examples of one database, all with the same view of its schema; None for the whole schema.
Encode = Callable[[Sequence[Example], View | None], list[Sample]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """The part of ``data`` that says how questions reach the model.

    Attributes:
        max_length: Tokens of a row, and the longest sample (question and answer); longer ones are reported.
        batch_size: Rows of one step over all processes; packed, a row holds as many samples as fit it. The last step
            of an epoch takes the rows that are left.
        micro_batch_tokens: The most tokens that a process puts through the model at once; the gradients of a step are
            added up over as many passes as that takes. It changes memory and speed, and no gradient. None puts a
            process's rows of a batch through at once.
        packing: Whether to fill rows with several samples; otherwise a row is one sample, padded.
        workers: Loader processes of each training process; 0 loads in the process itself.
        val_size: How many validation questions, at most, pick the checkpoint; the same ones each time.
        test_size: How many test questions, at most, are scored; the same ones each time. None for all.
    """

    max_length: int
    batch_size: int
    micro_batch_tokens: int | None = None
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
        if self.micro_batch_tokens is not None and self.micro_batch_tokens < self.max_length:
            raise ConfigError(
                "data.micro_batch_tokens",
                f"{self.micro_batch_tokens} tokens do not hold a row of data.max_length={self.max_length}",
                "raise it, or lower data.max_length as well",
            )

    def micro_rows(self, rows: int) -> int:
        """Say how many of a process's rows go through the model at once."""
        return rows if self.micro_batch_tokens is None else min(rows, self.micro_batch_tokens // self.max_length)


class RowBatches:
    """The rows of each pass through the model, and how many answer tokens the whole step has.

    A curriculum goes through its stages in their order; without one there is a single stage. Within a stage rows
    come in an order of the epoch's own. Every row is in every epoch: the last step has what is left, and ranks that
    have none of it put a filler through the model, since the others wait for them.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]],
        *,
        answers: Sequence[int],
        step_rows: int,
        micro_rows: int,
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        """Plan batches.

        Args:
            stages: The rows of each stage.
            answers: Answer tokens of each row.
            step_rows: Rows of an optimiser step over all ranks.
            micro_rows: Rows that a rank puts through the model at once.
            seed: With the epoch it fixes the order.
            rank: This process.
            world_size: All processes.
        """
        self.stages = [np.array(stage, dtype=np.int64) for stage in stages]
        self.answers = np.array(answers, dtype=np.int64)
        self.step_rows, self.micro_rows, self.seed = step_rows, micro_rows, seed
        self.rank, self.world_size = rank, world_size
        self._counts: tuple[int, dict[int, int]] = (-1, {})  # of the epoch asked about last

    @property
    def passes(self) -> int:
        """How many passes a whole step takes."""
        return self._passes(self.step_rows)

    def _passes(self, rows: int) -> int:
        of_rank = -(-rows // self.world_size)
        return -(-of_rank // self.micro_rows)

    def __len__(self) -> int:
        whole, left = divmod(sum(map(len, self.stages)), self.step_rows)
        return whole * self.passes + self._passes(left)

    def steps(self, epoch: int) -> list[np.ndarray]:
        """Return the rows of each step of an epoch, over all ranks."""
        rng = generator(self.seed, "rows", epoch)
        rows = np.concatenate([rng.permutation(stage) for stage in self.stages])
        return [rows[start : start + self.step_rows] for start in range(0, len(rows), self.step_rows)]

    def epoch(self, epoch: int) -> list[list[int]]:
        """Return this rank's passes of an epoch, as rows; PADDING is a filler."""
        passes: list[list[int]] = []
        for rows in self.steps(epoch):
            whole = np.full(-(-len(rows) // self.world_size) * self.world_size, PADDING)
            whole[: len(rows)] = rows
            mine = whole[self.rank :: self.world_size].tolist()
            passes += [mine[start : start + self.micro_rows] for start in range(0, len(mine), self.micro_rows)]
        return passes

    def answers_in_step(self, epoch: int, row: int) -> int:
        """Count the answer tokens of the optimiser step that a row belongs to, over ranks and passes."""
        if self._counts[0] != epoch:
            counts: dict[int, int] = {}
            for rows in self.steps(epoch):
                counts |= dict.fromkeys(rows.tolist(), int(self.answers[rows].sum()))
            self._counts = (epoch, counts)
        return self._counts[1][row]


class Rows(Dataset[tuple[list[Sample], int]]):
    """The samples of each row, written out for an epoch."""

    def __init__(self, rows: list[list[Example]], *, encode: Encode, batches: RowBatches, seed: int) -> None:
        self.rows, self.encode, self.batches, self.seed = rows, encode, batches, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[list[Sample], int]:
        row, epoch = key
        if row == PADDING:
            return [FILLER], 0
        samples = [self.encode([example], View(self.seed, epoch, example.id))[0] for example in self.rows[row]]
        return samples, self.batches.answers_in_step(epoch, row)


class ValBatch(NamedTuple):
    """Validation questions.

    Attributes:
        indices: Which they are; PADDING for a filler.
        golds: Each with its gold answer, to take the loss on; alone in its batch, so that all ranks have as many.
    """

    indices: list[int]
    golds: list[TokenBatch]


class QuestionIndices(Dataset[int]):
    """Validation questions, by their index."""

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
        self._accumulate = 1

    def setup(self, stage: str) -> None:
        """Have the trainer step when all passes of a step are through."""
        if stage == "fit" and self.trainer is not None:
            self._accumulate = self.trainer.accumulate_grad_batches
            batches = self.train_dataloader().batches
            assert isinstance(batches, RowBatches)
            self.trainer.accumulate_grad_batches = batches.passes

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
        indices = QuestionIndices(len(self.val))
        return make_loader(indices, batches=batches, collate=self.collate_questions, workers=0)

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
        step_rows = self.loading.batch_size * self._accumulate
        if len(rows) < step_rows:
            # A small database must not need another setting to be learned at all.
            warnings.warn(
                f"the training samples fill {len(rows)} rows of {self.loading.max_length} tokens, fewer than the "
                f"{step_rows} of a step: an epoch is one step; for more steps an epoch lower data.batch_size",
                stacklevel=2,
            )
        batches = RowBatches(
            stages,
            answers=answers,
            step_rows=step_rows,
            micro_rows=self.loading.micro_rows(-(-self.loading.batch_size // world_size)),
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        dataset = Rows(rows, encode=self.encode, batches=batches, seed=self.seed)
        return TrainLoader(dataset, batches=batches, collate=self.collate, workers=self.loading.workers)

    def collate(self, rows: list[tuple[list[Sample], int]]) -> TokenBatch:
        """Lay out the rows of one pass."""
        samples = [sample for row, _ in rows for sample in row]
        layout = pack if self.loading.packing else pad
        return layout(samples, answers_in_step=max(1, *(answers for _, answers in rows)))

    def collate_questions(self, indices: list[int]) -> ValBatch:
        """Lay out validation questions; the loss of one that is too long is left out."""
        golds = []
        for index in indices:
            sample = FILLER if index == PADDING else self.encode([self.val[index]], None)[0]
            fits = sample.length <= self.loading.max_length
            golds.append(pack([sample if fits else FILLER], answers_in_step=1))
        return ValBatch(indices, golds)

    def _report(self, overlong: dict[str, int], *, of: int) -> None:
        """Say which samples are left out; an answer is never cut off."""
        if len(overlong) == of:
            raise DataError(
                "data.max_length",
                f"none of the {of} training samples fits {self.loading.max_length} tokens",
                f"give at least {min(overlong.values(), default=1)}",
            )
        if overlong and self._place()[0] == 0:
            path = self.folder / "overlong.json"
            path.write_text(json.dumps(overlong, indent=2) + "\n")
            warnings.warn(
                f"{len(overlong)} of {of} training samples are longer than data.max_length={self.loading.max_length} "
                f"and are left out (the longest has {max(overlong.values())} tokens; all in {path})",
                stacklevel=2,
            )

    def _place(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size
