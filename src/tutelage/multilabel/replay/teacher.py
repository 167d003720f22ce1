"""A teacher that answers from its record, and records what is not there."""

# B batch, U units, P positives of an image

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.core.batches import Key
from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.networks.output import Field, NetOutput
from tutelage.multilabel.replay.check import refuse_if_apart
from tutelage.multilabel.replay.fields import Positives, RecordedField, TeacherReads, output_of, units_of
from tutelage.multilabel.replay.record import Record
from tutelage.multilabel.replay.shards import Bytes, Flags, Integers
from tutelage.multilabel.teacher import Teacher


class ReplayedTeacher:
    """Stands for a teacher during training.

    What it shows is always what the record holds, rounded as the record rounds, also while it is being recorded: so the
    student that records, those that replay, and one that was killed in between see the same numbers.

    Attributes:
        keys: Sample and view of each row of the batch that comes next. They are known without asking a GPU, for which
            each step would have to wait.
        check_due: The next batch is shown to the live teacher too, and compared.
        replayed: Samples that the live teacher did not have to look at.
        live_s: Seconds that it takes for one of them; 0 until it was measured.
    """

    def __init__(
        self, live: Teacher, *, record: Record, teacher_reads: TeacherReads, positives: Positives, noise: float
    ) -> None:
        self.live, self.record, self.noise = live, record, noise
        self.teacher_reads, self.positives = teacher_reads, positives
        self.keys: Sequence[Key] = ()
        self.check_due = True
        self.replayed = 0
        self.live_s = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> "ReplayedTeacher":
        return self

    @torch.no_grad()
    def __call__(self, batch: Batch, *, reads: frozenset[Field]) -> NetOutput:
        """Show a batch, whose samples and views are `keys`.

        Raises:
            DataError: The record is not this teacher's.
            ConfigError: Numbers that the format cannot keep.
        """
        assert len(self.keys) == len(batch.images_BCHW)
        samples_B, views_B = np.array([(key.sample, key.view) for key in self.keys], dtype=np.int64).T
        positives_BP = self.positives.of(samples_B).to(batch.images_BCHW.device, non_blocking=True)
        kept: dict[str, Bytes] = {}
        whole: dict[str, Flags] = {}
        for name, field in self.record.fields.items():
            kept[name], whole[name] = self.record.read(field, samples_B, views_B)
        complete = all(whole_B.all() for whole_B in whole.values())
        if complete and not self.check_due:
            self.replayed += len(samples_B)
        else:
            live = units_of(self._ask(batch, reads, timed=complete), self.teacher_reads, positives_BP)
            # A picture that could not be read is a black one this time, and perhaps not the next time.
            real_B = (batch.index_B >= 0).cpu().numpy()
            for name, field in self.record.fields.items():
                self._check(field, live[name], kept[name], samples_B, views_B, whole[name] & real_B)
                if not whole[name].all():
                    kept[name] = self._record(field, live[name], kept[name], samples_B, views_B, whole[name], real_B)
        return output_of(self._decoded(kept, batch.images_BCHW.device), self.teacher_reads, positives_BP)

    def _ask(self, batch: Batch, reads: frozenset[Field], *, timed: bool) -> NetOutput:
        """Ask the live teacher, and measure what a sample costs where that needs no waiting in every step."""
        if not timed:
            return self.live(batch, reads=reads)
        if not self.live_s:  # its first pass of a process chooses kernels
            self.live(batch, reads=reads)
        started = _now(batch)
        output = self.live(batch, reads=reads)
        seconds = (_now(batch) - started) / len(batch.images_BCHW)
        self.live_s = min(seconds, self.live_s or seconds)
        return output

    def _check(
        self, field: RecordedField, live: Tensor, kept: Bytes, samples_B: Integers, views_B: Integers, chosen_B: Flags
    ) -> None:
        """Compare the recorded rows of some samples with live ones."""
        chosen_U = torch.from_numpy(np.repeat(chosen_B, field.layout.counts(samples_B)))
        if not chosen_U.any():
            return
        refuse_if_apart(
            field.name,
            field.codec.decode(torch.from_numpy(kept)[chosen_U]),
            live.cpu()[chosen_U],
            codec=field.codec,
            noise=self.noise,
            views="view " + ", ".join(map(str, np.unique(views_B[chosen_B]))),
            folder=self.record.folder,
        )
        self.check_due = False

    def _record(
        self,
        field: RecordedField,
        live: Tensor,
        kept: Bytes,
        samples_B: Integers,
        views_B: Integers,
        whole_B: Flags,
        real_B: Flags,
    ) -> Bytes:
        """Record the rows of real pictures that are missing; return all rows, as they are recorded."""
        counts_B = field.layout.counts(samples_B)
        completed = np.where(np.repeat(whole_B, counts_B)[:, None], kept, _encoded(field, live))
        new_B = ~whole_B & real_B
        new_U = np.repeat(new_B, counts_B)
        completed[new_U] = self.record.write(field, samples_B[new_B], views_B[new_B], completed[new_U])
        return completed

    def _decoded(self, kept: Mapping[str, Bytes], device: torch.device) -> dict[str, Tensor]:
        decoded = {}
        for name, units in kept.items():
            content = torch.from_numpy(units)
            if device.type == "cuda":
                content = content.pin_memory()
            decoded[name] = self.record.fields[name].decode(content.to(device, non_blocking=True))
        return decoded


def _encoded(field: RecordedField, live: Tensor) -> Bytes:
    encoded = field.codec.encode(live).cpu()
    if not torch.isfinite(field.codec.decode(encoded)).all():
        raise ConfigError(
            "teacher.replay_dtype",
            f"{field.name} holds numbers that are not finite in {field.codec.dtype}",
            "set teacher.replay_dtype=float32 or teacher.replay=off",
        )
    content: Bytes = encoded.numpy()
    return content


def _now(batch: Batch) -> float:
    if batch.images_BCHW.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
