"""A line of text every epoch, and at least every minute, where there is no terminal for a progress bar."""

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

INTERVAL = 60.0  # seconds


class ProgressLines(Callback):
    """Prints where training is, its losses, its speed, and what it waits for."""

    def __init__(self, *, batch_size: int) -> None:
        """Count from here.

        Args:
            batch_size: Samples of one batch over all processes.
        """
        self.batch_size = batch_size
        self.batches, self.waited = 0, 0.0
        self.since = self.last_end = self.started = time.monotonic()
        self.first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started, self.first_step = time.monotonic(), trainer.global_step
        self._reset()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.waited += time.monotonic() - self.last_end

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batches += 1
        self.last_end = time.monotonic()
        if self.last_end - self.since >= INTERVAL:
            self._print(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.last_end = time.monotonic()  # validating is not waiting for data

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.batches:
            self._print(trainer)

    def _print(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            print(self.line(trainer), flush=True)
        self._reset()

    def line(self, trainer: Trainer) -> str:
        """Write one line of what came since the last."""
        now = time.monotonic()
        seconds = max(now - self.since, 1e-9)
        step, steps = trainer.global_step, int(trainer.estimated_stepping_batches)
        per_step = (now - self.started) / max(step - self.first_step, 1)
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if not name.endswith("_step")}
        parts = [
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            f"step {step}/{steps}",
            *(f"{name} {value:.4g}" for name, value in sorted(logged.items())),
            f"lr {trainer.optimizers[0].param_groups[0]['lr']:.3g}",
            f"{self.batches * self.batch_size / seconds:.4g} samples/s",
            f"waiting for data {100 * self.waited / seconds:.0f} %",
            f"left {_duration(per_step * max(steps - step, 0))}",
            f"peak memory {peak_memory() / 1e9:.1f} GB",
        ]
        return "  ".join(parts)

    def _reset(self) -> None:
        self.batches, self.waited = 0, 0.0
        self.since = self.last_end = time.monotonic()


def peak_memory() -> int:
    """Return the most bytes so far: of the GPU's memory where one is used, else of this process."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
