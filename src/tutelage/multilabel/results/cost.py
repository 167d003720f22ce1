"""What a training step costs: time and memory, as part of a run's metrics."""

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from tutelage.core.progress import peak_memory


class StepCost(Callback):
    """Measures training batches: the clock, this process's processor time, and the most memory.

    Processor time tells two methods apart also where other processes want the same cores; processes that load data are
    not in it.
    """

    def __init__(self) -> None:
        self.before = 0.0  # processor seconds of the parts of a resumed run
        self.seconds: list[float] = []
        self.started = self.cpu_started = 0.0
        self.peak = 0

    def state_dict(self) -> dict[str, float]:
        return {"cpu_seconds": self.before}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.before = state_dict["cpu_seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        reset_peak()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.started, self.cpu_started = time.monotonic(), time.process_time()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seconds.append(time.monotonic() - self.started)
        self.before += time.process_time() - self.cpu_started

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.peak = read_peak()

    def metrics(self) -> dict[str, float]:
        """Return ``time/step_ms`` (median), ``time/train_cpu_s`` and ``memory/peak_mb``; empty without training.

        On a GPU the clock of one step says little, since the device is not waited for: see ``time/train_s``.
        """
        if not self.seconds:
            return {}
        return {
            "time/step_ms": round(1000 * statistics.median(self.seconds), 3),
            "time/train_cpu_s": round(self.before, 3),
            "memory/peak_mb": round(self.peak / 1e6, 1),
        }


def reset_peak() -> None:
    """Forget the peak so far, so that several runs of one process each have their own; where the system can."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: VmHWM begins again at what is in use
    except OSError:
        return


def read_peak() -> int:
    """Return the most bytes since `reset_peak`: of the GPU's memory where one is used, else of this process."""
    status = Path("/proc/self/status")
    if not torch.cuda.is_initialized() and status.is_file():  # type: ignore[no-untyped-call]
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return peak_memory()
