"""What keeps a run exact and safe: step seeds, the last checkpoint, the NaN guard, whole files."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EMAWeightAveraging
from torch import Tensor
from torch.distributed.tensor import DTensor

from tutelage.core.batches import TrainLoader
from tutelage.core.curves import CurvesLogger
from tutelage.core.errors import RunError
from tutelage.core.randomness import seed_of

CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"
BEST = "best.ckpt"
UNTRAINED = "untrained.ckpt"
BEFORE_NAN = "before_nan.ckpt"
NEVER = 2**63 - 1


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary name and renames it, so the last good one survives a full disk.

    The best one, and the one before training, get their weights alone: to go on from is what the last one is for.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        target = Path(path)
        if target.name in (BEST, UNTRAINED):
            checkpoint = {"state_dict": checkpoint["state_dict"]}
        temporary = target.with_name(target.name + ".tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            torch.save(checkpoint, temporary)
            temporary.replace(target)
        except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
            temporary.unlink(missing_ok=True)
            raise RunError(
                str(target),
                f"cannot write a checkpoint ({str(error).splitlines()[0]}); the one before it is whole",
                f"free space, then continue with: python train.py run={target.parent.parent}",
            ) from error


class StepSeed(Callback):
    """Seeds torch before each batch, so that dropout is a function of (seed, epoch, batch, rank).

    Not with torch.manual_seed: for kinds of device that are not in use it writes the whole stack down, twice a step.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        seed = seed_of(self.seed, "step", trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.default_generator.manual_seed(seed)
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.manual_seed(seed)


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``: every n steps, and at each epoch's end after its validation.

    Not at a step that a validation follows: a run resumed from there would have to remember whether it had run.
    The loader's place is kept here, since Lightning only restores it where no one has asked for the number of steps
    before.
    """

    def __init__(self, folder: Path, *, every_n_steps: int, task: str) -> None:
        """Keep the checkpoint of a run.

        Args:
            folder: The run's.
            every_n_steps: Optimiser steps between two.
            task: ``task._target_``, kept in it, so that a run of another task can refuse it.
        """
        self.path, self.task = folder / CHECKPOINTS / LAST, task
        self.every_n_steps = every_n_steps
        self.saved_at = 0
        self.place: dict[str, int] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place, "task": self.task}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.place = state_dict["place"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved_at = trainer.global_step
        if self.place is not None:  # its batches begin when the first is asked for, which comes after this
            _loader(trainer).load_state_dict(self.place)
        for logger in trainer.loggers:
            if isinstance(logger, CurvesLogger):
                logger.forget_from(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        validates = trainer.is_last_batch or (batch_idx + 1) % int(trainer.val_check_batch or 1) == 0
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and not validates and trainer.global_step - self.saved_at >= self.every_n_steps:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        self.saved_at = trainer.global_step
        self.place = _loader(trainer).state_dict()
        trainer.save_checkpoint(self.path)


def _loader(trainer: Trainer) -> TrainLoader:
    assert isinstance(trainer.train_dataloader, TrainLoader)
    return trainer.train_dataloader


class NanGuard(Callback):
    """Stops all processes at the first loss of any that is not finite, and names the step and the samples.

    Where the loss is on a CPU every step is looked at before its backward pass. On a GPU that would stall the queue, so
    the first bad step is remembered on the device, and read every 50 steps, before each validation and before each
    checkpoint: what is saved is always finite. All processes look at the same steps, so none waits for another.
    """

    def __init__(self, folder: Path, *, look_every: int | None = None) -> None:
        """Guard a run.

        Args:
            folder: The run's.
            look_every: Steps between two looks; None chooses by the device.
        """
        self.folder, self.look_every = folder, look_every
        self.first_bad: Tensor | None = None  # epoch · 2³² + batch
        self.place = (0, 0)
        self.stopping = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.place = (trainer.current_epoch, batch_idx)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if self.first_bad is None:
            self.first_bad = torch.full((), NEVER, device=loss.device)
        here = self.place[0] * 2**32 + self.place[1]
        if loss.device.type == "cpu":  # where reading it waits for nobody
            if not math.isfinite(float(loss.detach())):
                self.first_bad.clamp_(max=here)
        else:
            self.first_bad = torch.where(torch.isfinite(loss.detach()), self.first_bad, self.first_bad.clamp(max=here))
        look_every = self.look_every or (1 if loss.device.type == "cpu" else 50)
        if self.place[1] % look_every == 0:
            self._look(trainer, before_backward=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.first_bad is not None:  # while it trains
            self._look(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.first_bad is not None and not self.stopping:
            self._look(trainer)
            # A gradient can overflow where the loss did not; the next loss would show it, after this checkpoint.
            if not _all_finite(pl_module):
                self._stop(f"weights are not finite after step {trainer.global_step}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.first_bad = None

    def _look(self, trainer: Trainer, *, before_backward: bool = False) -> None:
        assert self.first_bad is not None
        first = self.first_bad
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            first = first.clone()
            torch.distributed.all_reduce(first, op=torch.distributed.ReduceOp.MIN)
        if int(first) == NEVER:
            return
        epoch, batch = divmod(int(first), 2**32)
        mine = int(self.first_bad) == int(first)
        loader = trainer.train_dataloader
        keys = loader.batches.epoch(epoch)[batch] if mine and isinstance(loader, TrainLoader) else []
        samples = [key.sample for key in keys]
        named = f"samples {', '.join(map(str, samples[:8]))}{', …' if len(samples) > 8 else ''}"
        where = f"epoch {epoch}, batch {batch}, {named if mine else 'on another process'}"
        if before_backward and (epoch, batch) == self.place:  # nothing is spoilt yet
            path = self.folder / CHECKPOINTS / BEFORE_NAN
            self.stopping = True
            trainer.save_checkpoint(path)
            kept = f"weights and optimiser are in {path}"
            self._stop(f"not finite at step {trainer.global_step} ({where}); {kept}")
        self._stop(f"not finite since {where}; {LAST} is from before")

    def _stop(self, what: str) -> None:
        raise RunError(
            "train/loss", what, "lower optim.lr, set trainer.gradient_clip_val, or use trainer.precision=32-true"
        )


def _all_finite(module: LightningModule) -> bool:
    """Tell whether every trained weight of every process is finite; waits for the device once."""
    trained = (parameter.detach() for parameter in module.parameters() if parameter.requires_grad)
    local = (weight.to_local() if isinstance(weight, DTensor) else weight for weight in trained)
    finite = torch.isfinite(torch.stack([weight.sum(dtype=torch.float32) for weight in local])).all().int()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(finite, op=torch.distributed.ReduceOp.MIN)
    return bool(finite)


class WeightAverage(EMAWeightAveraging):
    """The exponential moving average of the weights, on the device that trains.

    Lightning makes the average before the module has moved, so under CUDA it would stay on the CPU, and each step would
    wait for a copy of all weights.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)


class TrainTime(Callback):
    """Counts the seconds spent in fit, over all parts of a resumed run."""

    def __init__(self) -> None:
        self.before = 0.0
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before, self.started = self.seconds, time.monotonic()

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.before = state_dict["seconds"]
