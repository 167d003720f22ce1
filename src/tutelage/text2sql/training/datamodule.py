"""Rows of packed samples to train on; questions to validate on."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from tutelage.core.batches import PADDING, EvalBatches, Key, TrainLoader, make_loader
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.randomness import generator
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.training.packing import Sample, TokenBatch, Tree, pack, pad
from tutelage.text2sql.training.plan import Encode, Group, Plan, Prefix, mix_databases, plan_rows, write_group

FILLER = Sample([0], [])  # no answer, so no loss
SHARING_FILE = "sharing.json"  # of a run's folder


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
        prefix: Whether the tokens that prompts about a database begin with are ``shared``, that is computed once for
            several samples; or ``none``. It changes time and memory, and no gradient.
        branches: The most samples that share a prefix at once. More save more, and see more of one database a step.
        workers: Loader processes of each training process; 0 loads in the process itself.
        val_size: How many validation questions, at most, pick the checkpoint; the same ones each time.
        test_size: How many test questions, at most, are scored; the same ones each time. None for all.
    """

    max_length: int
    batch_size: int
    micro_batch_tokens: int | None = None
    packing: bool = True
    prefix: Prefix = "shared"
    branches: int = 16
    workers: int = 0
    val_size: int
    test_size: int | None = None

    def __post_init__(self) -> None:
        for key, value in (
            ("max_length", self.max_length),
            ("batch_size", self.batch_size),
            ("val_size", self.val_size),
            ("branches", self.branches),
        ):
            if value < 1:
                raise ConfigError(f"data.{key}", f"{value} is not positive", "give a whole number from 1")
        if self.prefix not in ("shared", "none"):
            raise ConfigError("data.prefix", f"{self.prefix!r} is not a way to share", "give shared or none")
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
        databases: Sequence[frozenset[str]],
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
            databases: Of each row.
            step_rows: Rows of an optimiser step over all ranks.
            micro_rows: Rows that a rank puts through the model at once.
            seed: With the epoch it fixes the order.
            rank: This process.
            world_size: All processes.
        """
        self.stages = [np.array(stage, dtype=np.int64) for stage in stages]
        self.answers, self.databases = np.array(answers, dtype=np.int64), databases
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
        stages = [
            mix_databases(rng.permutation(stage).tolist(), self.databases, step=self.step_rows) for stage in self.stages
        ]
        rows = np.concatenate([np.array(stage, dtype=np.int64) for stage in stages])
        return [rows[start : start + self.step_rows] for start in range(0, len(rows), self.step_rows)]

    def epoch(self, epoch: int) -> list[list[Key]]:
        """Return this rank's passes of an epoch, as (row, epoch)."""
        passes: list[list[Key]] = []
        for rows in self.steps(epoch):
            whole = np.full(-(-len(rows) // self.world_size) * self.world_size, PADDING)
            whole[: len(rows)] = rows
            mine = [Key(row, epoch) for row in whole[self.rank :: self.world_size].tolist()]
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


class Rows(Dataset[tuple[list[Tree], int]]):
    """The trees of each row, written out for an epoch."""

    def __init__(self, rows: Sequence[Sequence[Group]], *, encode: Encode, batches: RowBatches, seed: int) -> None:
        self.rows, self.encode, self.batches, self.seed = rows, encode, batches, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Key) -> tuple[list[Tree], int]:
        row, epoch = key.sample, key.view
        if row == PADDING:
            return [Tree((), (FILLER,))], 0
        trees = [
            tree
            for group in self.rows[row]
            for tree in write_group(group, encode=self.encode, seed=self.seed, epoch=epoch)
        ]
        return trees, self.batches.answers_in_step(epoch, row)


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

    def __getitem__(self, key: Key) -> int:
        return key.sample


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
        self.sharing: dict[str, int] = {}  # what was planned; empty before train_dataloader
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
        plan = plan_rows(
            self.stages,
            encode=self.encode,
            max_length=self.loading.max_length,
            packing=self.loading.packing,
            prefix=self.loading.prefix,
            branches=self.loading.branches,
            seed=self.seed,
        )
        self.sharing = plan.sharing
        self._report(plan)
        step_rows = self.loading.batch_size * self._accumulate
        if len(plan.rows) < step_rows:
            # A small database must not need another setting to be learned at all.
            warnings.warn(
                f"the training samples fill {len(plan.rows)} rows of {self.loading.max_length} tokens, fewer than the "
                f"{step_rows} of a step: an epoch is one step. For more steps an epoch, lower data.batch_size",
                stacklevel=2,
            )
        batches = RowBatches(
            plan.stages,
            answers=plan.answers,
            databases=plan.databases,
            step_rows=step_rows,
            micro_rows=self.loading.micro_rows(-(-self.loading.batch_size // world_size)),
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        dataset = Rows(plan.rows, encode=self.encode, batches=batches, seed=self.seed)
        return TrainLoader(dataset, batches=batches, collate=self.collate, workers=self.loading.workers)

    def collate(self, rows: list[tuple[list[Tree], int]]) -> TokenBatch:
        """Lay out the rows of one pass."""
        trees = [tree for row, _ in rows for tree in row]
        answers = max(1, *(answers for _, answers in rows))
        if self.loading.packing:
            return pack(trees, answers_in_step=answers)
        return pad([branch for tree in trees for branch in tree.branches], answers_in_step=answers)

    def collate_questions(self, indices: list[int]) -> ValBatch:
        """Lay out validation questions; the loss of one that is too long is left out."""
        golds = []
        for index in indices:
            sample = FILLER if index == PADDING else self.encode([self.val[index]], None)[0]
            fits = sample.length <= self.loading.max_length
            golds.append(pack([sample if fits else FILLER], answers_in_step=1))
        return ValBatch(indices, golds)

    def _report(self, plan: Plan) -> None:
        """Say which samples are left out (an answer is never cut off), and write down what sharing saves."""
        overlong, of = plan.overlong, sum(map(len, self.stages))
        if len(overlong) == of:
            raise DataError(
                "data.max_length",
                f"none of the {of} training samples fits {self.loading.max_length} tokens",
                f"give at least {min(overlong.values(), default=1)}",
            )
        if self._place()[0] != 0:
            return
        (self.folder / SHARING_FILE).write_text(json.dumps(plan.sharing, indent=2) + "\n")
        if alone := plan.sharing["prefix_too_long"]:
            warnings.warn(
                f"{alone} training samples share no prefix: what they have in common leaves no room for a second "
                f"question in data.max_length={self.loading.max_length} tokens",
                stacklevel=2,
            )
        if overlong:
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
