"""Lets teachers answer from their records while a run trains, where the disk has room for them."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from tutelage.core.batches import Key, TrainLoader
from tutelage.core.build import parameters_of, split
from tutelage.core.errors import ConfigError
from tutelage.core.store import content_hash
from tutelage.multilabel.data.datamodule import MultilabelDataModule
from tutelage.multilabel.module import Distillation
from tutelage.multilabel.networks.ensemble import Ensemble
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.replay.check import rounding
from tutelage.multilabel.replay.codec import Dtype
from tutelage.multilabel.replay.fields import Positives, TeacherReads, combine_reads, recorded_fields, units_of
from tutelage.multilabel.replay.record import Record, bytes_a_view, make_room
from tutelage.multilabel.replay.teacher import ReplayedTeacher
from tutelage.multilabel.teacher import Teacher
from tutelage.multilabel.terms import Term

_VERSION = 1  # of the files: a change makes records of old be made anew


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """The keys of ``teacher`` that say whether its answers are kept; they change no teacher.

    Attributes:
        replay: ``auto`` records and replays where there is room, ``off`` asks the live teacher at each step,
            ``require`` is an error where ``auto`` would do that.
        replay_dtype: How numbers are kept; ``uint8`` is for maps, each with a scale of its own; the rest then takes
            float16.
        replay_max_gb: The most that all records of the store may take. The ones used longest ago make room.
    """

    replay: Literal["auto", "off", "require"] = "auto"
    replay_dtype: Dtype = "float16"
    replay_max_gb: float = 20.0


def replay_options(cfg: DictConfig) -> ReplayOptions:
    """Read ``teacher.replay…`` off a run's config.

    Raises:
        ConfigError: One teacher of several has settings of its own.
    """
    members = cfg.teachers.members if cfg.teachers is not None else {}
    for name, member in members.items():
        for key in parameters_of(ReplayOptions):
            if member is not None and key in member:
                raise ConfigError(f"teachers.members.{name}.{key}", "is of all teachers", f"set teacher.{key}")
    options: ReplayOptions = split(cfg.teacher, ReplayOptions, where="teacher")[0]
    return options


class Replay(Callback):
    """Opens the records before the first step, names the samples of each batch, and counts what was saved."""

    def __init__(self, options: ReplayOptions, *, root: Path, settings: Mapping[str, Any]) -> None:
        """Prepare.

        Args:
            options: ``auto`` or ``require``.
            root: Where records are.
            settings: What of each teacher its weights do not tell, as JSON values.
        """
        self.options, self.root, self.settings = options, root, settings
        self.teachers: dict[str, ReplayedTeacher] = {}
        self._planned: int | None = None  # the epoch of the plan
        self._plan: list[list[Key]] = []
        # Of a resumed run: whether each teacher was replayed, and what that had saved.
        self._decided: dict[str, bool] = {}
        self._saved_before = 0.0

    @property
    def saved_s(self) -> float:
        """Seconds that this process did not wait for a teacher."""
        return self._saved_before + sum(each.replayed * each.live_s for each in self.teachers.values())

    def state_dict(self) -> dict[str, Any]:
        return {"decided": self._decided, "saved_s": self.saved_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._decided, self._saved_before = state_dict["decided"], state_dict["saved_s"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Distillation)
        for name, teacher in pl_module.teachers.items():
            replayed = self._open(name, teacher, trainer, pl_module)
            self._decided[name] = replayed is not None
            if replayed is not None:
                self.teachers[name] = pl_module.answers[name] = replayed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._planned != trainer.current_epoch:  # a run that resumes within an epoch is told of no epoch's start
            loader = trainer.train_dataloader
            assert isinstance(loader, TrainLoader)
            self._planned, self._plan = trainer.current_epoch, loader.batches.epoch(trainer.current_epoch)
            for teacher in self.teachers.values():
                teacher.check_due = True
        for teacher in self.teachers.values():
            teacher.keys = self._plan[batch_idx]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        for teacher in self.teachers.values():
            teacher.record.close()

    def _open(self, name: str, teacher: Teacher, trainer: Trainer, module: Distillation) -> ReplayedTeacher | None:
        """Decide, with all processes of the job, whether a teacher is replayed, and open its record."""
        teacher_reads = combine_reads(
            (term.method.teacher_reads, term.method.positives_only)
            for term in module.terms.values()
            if isinstance(term, Term) and term.teacher == name
        )
        if teacher_reads.unstorable:
            made = ", ".join(sorted(teacher_reads.unstorable))
            self._say_live(name, f"{made} of labels that are not known before cannot be recorded", trainer)
            return None
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(datamodule, MultilabelDataModule)
        views = _num_views(trainer, datamodule)
        positives = Positives(datamodule.source.split("train").targets_NK)
        units = _probe(teacher, teacher_reads, resolution=datamodule.loading.resolution)
        fields = recorded_fields(units, positives, dtype=self.options.replay_dtype)
        key = self._key(name, teacher, trainer, datamodule)
        needed = views * bytes_a_view(fields)

        def unfit() -> str | None:
            try:
                return make_room(self.root, key, needed=needed, at_most=int(self.options.replay_max_gb * 1e9))
            except OSError as error:
                return f"and in {self.root} nothing can be written ({error.strerror})"

        if name not in self._decided:  # else it goes on as it began
            why = trainer.strategy.broadcast(unfit() if trainer.is_global_zero else None)
            if why is not None:
                what = f"recording {views} view(s) of {', '.join(fields)} takes {_size(needed)}, {why}"
                self._say_live(name, what, trainer)
                return None
        elif not self._decided[name]:
            return None
        try:
            record = Record(self.root, key, fields)
        except OSError as error:
            self._say_live(name, f"{self.root} cannot be written ({error.strerror})", trainer)
            return None
        if trainer.is_global_zero:
            share = record.share(range(views))
            print(
                f"replay: {name} answers from {record.folder}, {share:.0%} of which is recorded: {views} view(s) of "
                f"{fields['logits_BK'].layout.num_samples:,} pictures, {_size(needed)} when whole"
            )
        noise = rounding(device=trainer.strategy.root_device.type, precision=str(trainer.precision))
        return ReplayedTeacher(teacher, record=record, teacher_reads=teacher_reads, positives=positives, noise=noise)

    def _say_live(self, name: str, why: str, trainer: Trainer) -> None:
        """Say why a teacher is not replayed, or refuse that."""
        if self.options.replay == "require":
            raise ConfigError(
                "teacher.replay",
                f"{name} cannot be replayed: {why}",
                "raise teacher.replay_max_gb, set fewer data.views, teacher.replay_dtype=uint8 or teacher.replay=auto",
            )
        if trainer.is_global_zero:
            print(f"replay: {name} answers live: {why}")

    def _key(self, name: str, teacher: Teacher, trainer: Trainer, datamodule: MultilabelDataModule) -> dict[str, Any]:
        """Return everything that the answers depend on beside view and sample."""
        loading, source = datamodule.loading, datamodule.source
        on_device = loading.cache == "device"  # which also augments there
        network = teacher.network
        return {
            "version": _VERSION,
            "dtype": self.options.replay_dtype,
            "teacher": {
                "weights": [_weights_hash(each) for each in teacher.networks],
                "settings": [self.settings[name]] if name in self.settings else list(self.settings.values()),
                "shares": network.weights_TK.tolist() if isinstance(network, Ensemble) else None,
                "device": trainer.strategy.root_device.type,
                "precision": str(trainer.precision),
            },
            "augment": asdict(datamodule.augment) if datamodule.augment.is_random else None,
            "decoder": {name: version(name) for name in ("torchvision", "pillow")},
            "augmented_on": trainer.strategy.root_device.type if on_device else "cpu",
            "resolution": loading.resolution,
            "data": {
                "fingerprint": source.fingerprint,
                "samples": content_hash({"ids": list(source.split("train").ids)}),
            },
        }


def _num_views(trainer: Trainer, datamodule: MultilabelDataModule) -> int:
    """Return how many views a run will see."""
    batches = len(datamodule.source.split("train").ids) // datamodule.loading.batch_size
    steps = int(trainer.estimated_stepping_batches)
    epochs = math.ceil(steps * trainer.accumulate_grad_batches / max(1, batches))
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        epochs = min(epochs, trainer.max_epochs)
    crops = datamodule.loading.crops_per_decode
    views = math.ceil(epochs / crops) * crops  # an epoch shows so many of each of its pictures
    return min(views, datamodule.loading.views or views) if datamodule.augment.is_random else 1


def _probe(teacher: Teacher, teacher_reads: TeacherReads, *, resolution: int) -> dict[str, torch.Tensor]:
    """Show a teacher one black picture, to know the shapes of what is read of it."""
    network = teacher.networks[0]
    black = torch.zeros(1, 3, resolution, resolution, dtype=torch.uint8, device=network.mean_C11.device)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        output = teacher.network(black, reads=teacher_reads.fields)
    return units_of(output, teacher_reads, torch.zeros(1, 1, dtype=torch.int64, device=black.device))


def _weights_hash(network: Network) -> str:
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()[:16]


def _size(number: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number / 1e3:.0f} kB"
