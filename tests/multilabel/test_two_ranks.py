"""Two processes with batch norm against one, and what a process group of GPUs would refuse, as far as a CPU shows it.

torch synchronises batch norms on GPUs only, and gloo gathers whatever it is given. So the two processes here have the
synchronisation in plain Python, and collectives that fail for a module that has left its device, as NCCL's do.
"""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tutelage.core import run
from tutelage.core.results import read_metrics
from tutelage.core.run_folder import save_config

Compose = Callable[..., DictConfig]
# Nine test pictures: one process has a row of padding.
SMALL = [
    "data.num_train=40", "data.num_val=9", "data.num_test=9", "data.batch_size=8", "trainer.max_epochs=1",
    "trainer.progress_bar=false", "trainer.log_every_n_steps=1", "trainer.threads=1", "method=supervised",
]  # fmt: skip


class GlobalSum(torch.autograd.Function):
    """Sums over processes; so does its gradient."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        values = values.clone()
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient


def batch_norm_of_all(norm: nn.SyncBatchNorm, images_BCHW: Tensor) -> Tensor:
    """Normalise by the mean and variance of all processes' batches (what torch does on GPUs)."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    mean_C, var_C = norm.running_mean, norm.running_var
    if norm.training:
        count = images_BCHW.numel() // images_BCHW.shape[1] * distributed.get_world_size()
        mean_C = GlobalSum.apply(images_BCHW.sum((0, 2, 3))) / count
        var_C = GlobalSum.apply((images_BCHW - mean_C[:, None, None]).square().sum((0, 2, 3))) / count
        with torch.no_grad():
            norm.num_batches_tracked += 1
            momentum = norm.momentum or 1 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean_C, momentum)
            norm.running_var.lerp_(var_C * count / (count - 1), momentum)
    scale_C = norm.weight * torch.rsqrt(var_C + norm.eps)
    return (images_BCHW - mean_C[:, None, None]) * scale_C[:, None, None] + norm.bias[:, None, None]


def as_on_gpus() -> None:
    """Let batch norms synchronise, and let no tensor of a module be gathered that has left the device."""
    run.check_devices = lambda cfg: None  # type: ignore[assignment]
    nn.SyncBatchNorm.forward = batch_norm_of_all  # type: ignore[assignment, method-assign]
    DistributedDataParallel._passing_sync_batchnorm_handle = lambda ddp, module: None  # which refuses CPUs
    away = [False]
    cpu, model_to_device = LightningModule.cpu, DDPStrategy.model_to_device

    def leave(module: LightningModule) -> Any:
        away[0] = True
        return cpu(module)

    def come(strategy: DDPStrategy) -> None:
        away[0] = False
        model_to_device(strategy)

    LightningModule.cpu = leave  # type: ignore[method-assign]
    DDPStrategy.model_to_device = come  # type: ignore[method-assign]
    for name in ("all_gather", "all_reduce", "all_gather_into_tensor", "gather", "reduce"):
        collective = vars(distributed)[name]

        def on_device(*args: Any, collective: Any = collective, **options: Any) -> Any:
            if away[0]:
                raise RuntimeError("No backend type associated with device type cpu")
            return collective(*args, **options)

        setattr(distributed, name, on_device)


def rank(index: int, cfg: DictConfig, folder: Path, port: int) -> None:
    """Be one rank, as torchrun would start it."""
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(index), LOCAL_RANK=str(index), GROUP_RANK="0", WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test", GLOO_SOCKET_IFNAME="lo",
    )  # fmt: skip
    as_on_gpus()
    run.fit(run.open_task(cfg, folder=folder))
    distributed.destroy_process_group()


def two_ranks(cfg: DictConfig, folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cfg.run = str(folder)
    save_config(cfg, folder)
    torch.multiprocessing.start_processes(rank, args=(cfg, folder, port), nprocs=2, start_method="fork")


def weights(folder: Path) -> dict[str, Tensor]:
    content: dict[str, Tensor] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {name: value for name, value in content.items() if value.is_floating_point()}


def test_two_processes_with_synchronised_batch_norms_equal_one(compose_config: Compose, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    # Not Adam, whose first steps have the size of the rate however small a gradient is: rounding could turn them.
    common = [*SMALL, "optim=sgd_cosine", "optim.lr=0.02"]
    two_ranks(compose_config(*common, "trainer=cpus", "trainer.sync_batchnorm=true"), two)
    run.train(compose_config(*common, "trainer=cpu"), folder=one)
    expected, found = weights(one), weights(two)
    assert expected.keys() == found.keys() and any("running_var" in name for name in expected)
    for name in expected:
        torch.testing.assert_close(
            found[name], expected[name], rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}"
        )
    with np.load(one / "predictions.npz") as a, np.load(two / "predictions.npz") as b:
        assert a["ids"].tolist() == b["ids"].tolist() and len(b["ids"]) == 9
        np.testing.assert_allclose(b["logits"], a["logits"], rtol=1e-2, atol=1e-2)
    metrics = read_metrics(two)
    assert metrics is not None and 0 < metrics["test/mAP"] <= 100
