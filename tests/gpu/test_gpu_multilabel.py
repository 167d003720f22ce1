"""Distillation on a GPU: where everything lies, that no step waits for the device, and each way of computing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from torch import nn

from tutelage.core.callbacks import NanGuard, StepSeed, WeightAverage
from tutelage.core.errors import RunError
from tutelage.core.evaluate import evaluate
from tutelage.core.results import read_metrics
from tutelage.core.run import make_trainer, open_task, prepare, train
from tutelage.multilabel.networks.network import NetworkSpec, build_network

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "data.num_train=640", "data.num_val=64", "data.num_test=64", "data.cache=device", "trainer.max_epochs=1",
    "teacher.trainer.max_epochs=1", "trainer.progress_bar=false",
]  # fmt: skip
Compose = Callable[..., DictConfig]


class Watch(Callback):
    """Looks at a training step from outside: devices, layouts, and whether anything waits for the device."""

    def __init__(self, *, first: int = 10) -> None:
        self.first, self.steps = first, 0
        self.devices: set[str] = set()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        module: Any = pl_module
        tensors = [*batch, *module.parameters(), *module.buffers()]
        for teacher in module.teachers.values():
            tensors += [*teacher.network.parameters(), *teacher.network.buffers()]
        self.devices |= {tensor.device.type for tensor in tensors}
        if batch_idx >= self.first:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        torch.cuda.set_sync_debug_mode("default")
        self.steps += batch_idx >= self.first


@pytest.mark.parametrize("replayed", [False, True])
def test_all_of_a_step_lies_on_the_device_and_nothing_waits_for_it(
    compose_config: Compose, tmp_path: Path, replayed: bool
) -> None:
    """A synchronisation raises inside the step. Steps that log, or look for a NaN, may wait; they are rare."""
    replay = "teacher.replay=require" if replayed else "teacher.replay=off"
    cfg = compose_config(*SMALL, "trainer.log_every_n_steps=1000", replay)
    if replayed:
        train(cfg, folder=tmp_path / "records")
    task = open_task(cfg, folder=tmp_path / "run")
    task.prepare()
    datamodule = task.datamodule()
    watch = Watch()
    callbacks = [StepSeed(1), NanGuard(tmp_path), *task.callbacks(), watch]
    trainer = make_trainer(task, callbacks=callbacks, loggers=[])
    try:
        trainer.fit(task.module(datamodule), datamodule=datamodule)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert watch.devices == {"cuda"} and watch.steps >= 8


def test_averages_lie_on_the_device(compose_config: Compose, tmp_path: Path) -> None:
    task = open_task(compose_config(*SMALL, "method=supervised"), folder=tmp_path / "run")
    datamodule = task.datamodule()
    averages = WeightAverage(decay=0.9)
    found: set[str] = set()

    class Look(Callback):
        def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
            assert averages._average_model is not None
            found.update(parameter.device.type for parameter in averages._average_model.parameters())

    trainer = make_trainer(task, callbacks=[averages, Look()], loggers=[])
    trainer.fit(task.module(datamodule), datamodule=datamodule)
    assert found == {"cuda"}


def test_convolutions_keep_their_memory_format(gpu: torch.device) -> None:
    head = {"_target_": "tutelage.multilabel.networks.heads.Linear"}
    spec = NetworkSpec(name="resnet18", weights="none")
    network = build_network(spec, num_labels=5, head=head, resolution=64, where="model.student").to(gpu)
    seen = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            module.register_forward_hook(
                lambda m, inputs, output: seen.append(
                    all(value.is_contiguous(memory_format=torch.channels_last) for value in (*inputs, m.weight, output))
                )
            )
    network(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, device=gpu))
    assert len(seen) > 10 and all(seen)


@pytest.mark.parametrize(
    "more",
    [
        ["trainer.precision=bf16-mixed"],
        ["trainer.precision=16-mixed"],
        ["trainer.compile=true"],
        ["trainer.precision=bf16-mixed", "trainer.compile=true", "trainer.ema_decay=0.9"],
        ["trainer.precision=bf16-mixed", "trainer.accumulate_grad_batches=2", "trainer.val_check_interval=0.5"],
        ["data.cache=none", "data.workers=2"],
    ],
    ids=lambda more: " ".join(more),
)
def test_a_whole_run(more: list[str], compose_config: Compose, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    metrics = train(compose_config(*SMALL, *more), folder=folder)
    with np.load(folder / "predictions.npz") as kept:
        assert kept["logits"].dtype == np.float32 and np.isfinite(kept["logits"]).all()
    assert 0 < metrics["test/mAP"] <= 100 and 0 < metrics["teacher/test/mAP"] <= 100


def test_a_loss_that_is_not_finite_between_two_looks_spoils_no_checkpoint(
    compose_config: Compose, tmp_path: Path
) -> None:
    """On a GPU it is looked at every 50 steps, and before each checkpoint."""
    often = ["trainer.checkpoint_every_n_steps=1", "optim.lr=1e30", "optim.warmup=0", "method=supervised"]
    with pytest.raises(RunError, match=r"train/loss: .*not finite"):
        train(compose_config(*SMALL, *often), folder=tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    if last.exists():  # its first step was still finite
        state = torch.load(last, map_location="cpu", weights_only=True)["state_dict"]
        assert all(torch.isfinite(value).all() for value in state.values())


def test_a_group_of_one_over_nccl(compose_config: Compose, tmp_path: Path) -> None:
    """What several GPUs run, as far as one can show it: NCCL, DDP, synchronised batch norms, metrics gathered.

    Scored again by one process without a group, it is the same network.
    """
    prepare(compose_config(*SMALL), folder=tmp_path / "prepared")  # ranks train no teacher
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "train.py"]
    overrides = ["trainer=gpus", "trainer.devices=1", f"run={tmp_path / 'run'}", f"store={tmp_path / 'store'}"]
    done = subprocess.run(
        [*command, *SMALL, *overrides], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    metrics = read_metrics(tmp_path / "run")
    assert metrics is not None and 0 < metrics["test/mAP"] <= 100
    assert evaluate(tmp_path / "run")["test/mAP"] == pytest.approx(metrics["test/mAP"], abs=0.01)
