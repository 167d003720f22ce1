"""What guards a run: synchronised batch norm, losses that are not finite, averages on the device, lines of progress."""

import copy
import logging
import re
import traceback
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torch.multiprocessing
from lightning.pytorch import LightningModule, Trainer
from torch import distributed, nn

from tutelage.core.callbacks import NanGuard, StepSeed, WeightAverage
from tutelage.core.errors import RunError
from tutelage.core.progress import ProgressLines
from tutelage.core.randomness import seed_of
from tutelage.core.run import quiet
from tutelage.core.sync_batch_norm import SyncBatchNorm


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "mobilenetv2_100"])
def test_synchronised_batch_norm_keeps_activations_and_goes_again(name: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=5).eval()
    images, seen = torch.rand(2, 3, 64, 64), []
    norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    norm.register_forward_hook(lambda *_: seen.append(1))
    kinds = [type(module) for module in network.modules()]
    names = list(network.state_dict())
    plugin = SyncBatchNorm()
    with torch.no_grad():
        before = network(images)
        plugin.apply(network)
        synced = network(images)
        assert sum(isinstance(module, nn.SyncBatchNorm) for module in network.modules()) > 2
        for module in network.modules():  # as moving to a device does, and a training step
            for key, buffer in list(module._buffers.items()):
                module._buffers[key] = None if buffer is None else buffer + (buffer.is_floating_point())
        learned = network(images)
        plugin.revert(network)
        after = network(images)
    torch.testing.assert_close(synced, before, rtol=0, atol=0)
    torch.testing.assert_close(after, learned, rtol=0, atol=0)
    assert not torch.equal(after, before)
    assert [type(module) for module in network.modules()] == kinds and list(network.state_dict()) == names
    assert len(seen) == 4


def losses(rank: int, out: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=2)
    guard = NanGuard(out)
    saved: list[Path] = []
    trainer: Any = SimpleNamespace(
        current_epoch=0,
        global_step=0,
        train_dataloader=None,
        save_checkpoint=saved.append,
    )
    module = LightningModule()
    try:
        for step in range(6):
            trainer.global_step = step
            guard.on_train_batch_start(trainer, module, None, step)
            bad = rank == 1 and step == 3
            guard.on_before_backward(trainer, module, torch.tensor(float("nan") if bad else 1.0))
    except RunError as error:
        (out / f"rank{rank}").write_text(f"{error}\n{len(saved)}")
    distributed.destroy_process_group()


def test_a_bad_loss_of_one_process_stops_all_at_one_step(tmp_path: Path) -> None:
    context = torch.multiprocessing.start_processes(losses, (tmp_path,), nprocs=2, join=False, start_method="fork")
    assert context is not None and (context.join(60) or context.join(60))  # it returns when one has ended
    texts = [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)]
    assert all("not finite at step 3 (epoch 0, batch 3, " in text and text.endswith("1") for text in texts)
    assert "on another process" in texts[0] and "on another process" not in texts[1]


def test_a_checkpoint_is_never_taken_of_what_is_not_finite(tmp_path: Path) -> None:
    guard, module = NanGuard(tmp_path, look_every=50), nn.Linear(2, 2)
    trainer: Any = SimpleNamespace(current_epoch=0, global_step=0, train_dataloader=None)
    for step in range(4):  # a GPU's branch: nobody looks yet
        guard.on_train_batch_start(trainer, module, None, step)  # type: ignore[arg-type]
        guard.on_before_backward(trainer, module, torch.tensor(float("nan") if step == 2 else 1.0))  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"not finite since epoch 0, batch 2, .*last.ckpt is from before"):
        guard.on_save_checkpoint(trainer, module, {})  # type: ignore[arg-type]
    with pytest.raises(RunError, match="batch 2"):
        guard.on_validation_start(trainer, module)  # type: ignore[arg-type]

    # A gradient overflowed after a finite loss.
    guard = NanGuard(tmp_path)
    guard.on_before_backward(trainer, module, torch.tensor(1.0))  # type: ignore[arg-type]
    guard.on_save_checkpoint(trainer, module, {})  # type: ignore[arg-type]
    nn.init.constant_(module.weight, float("inf"))
    with pytest.raises(RunError, match="weights are not finite after step 0"):
        guard.on_save_checkpoint(trainer, module, {})  # type: ignore[arg-type]


class Small(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = self.layer(batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.25)


def test_averages_are_on_the_device_that_trains() -> None:
    average = WeightAverage(decay=0.9)
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
    average.setup(trainer, Small(), "fit")
    assert average._average_model is not None
    assert {parameter.device.type for parameter in average._average_model.parameters()} == {"meta"}


def test_a_copy_shares_the_teacher() -> None:
    from tutelage.multilabel.teacher import Teacher

    teacher = Teacher(nn.Linear(1, 1))  # type: ignore[arg-type]
    assert copy.deepcopy([teacher])[0] is teacher


def test_each_epoch_says_where_training_is(capsys: pytest.CaptureFixture[str]) -> None:
    loader = torch.utils.data.DataLoader(torch.ones(6, 2), batch_size=2)  # type: ignore[arg-type]
    Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[ProgressLines(batch_size=2)],
    ).fit(Small(), loader)  # fmt: skip
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split("  ")[:2] for line in lines] == [["epoch 1/2", "step 3/6"], ["epoch 2/2", "step 6/6"]]
    assert re.search(r"train/loss \S+  lr 0.25  \S+ samples/s  waiting for data \d+ %  left 0:00:\d\d  peak", lines[0])
    assert "left 0:00:00" in lines[1]


SILENT = [
    "The number of training batches (5) is smaller than the logging interval Trainer(log_every_n_steps=10).",
    "The 'train_dataloader' does not have many workers which may be a bottleneck.",
    "Checkpoint directory /runs/x/checkpoints exists and is not empty.",
    "It is recommended to use `self.log('val/mAP', ..., sync_dist=True)` when logging on epoch level",
    "Found 3 module(s) in eval mode at the start of training.",
]
HEARD = [
    "Checkpoint directory /runs/x cannot be written",
    "It is recommended to use a smaller learning rate",
    "`weights_only` is deprecated",
    "Detected call of `lr_scheduler.step()` before `optimizer.step()`.",
]


def test_only_what_is_said_of_every_run_is_silent() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        quiet()
        for message in [*SILENT, *HEARD]:
            warnings.warn(message, stacklevel=1)
    assert [str(warning.message) for warning in caught] == HEARD
    for name in ("lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        assert logger.isEnabledFor(logging.WARNING) and not logger.isEnabledFor(logging.INFO)


def test_a_step_is_seeded_by_its_place_and_nothing_else_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(epoch: int, batch: int, rank: int = 0) -> list[float]:
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        trainer: Any = SimpleNamespace(current_epoch=epoch, global_rank=rank, strategy=strategy)
        StepSeed(7).on_train_batch_start(trainer, LightningModule(), None, batch)
        found: list[float] = torch.rand(3).tolist()
        return found

    torch.manual_seed(seed_of(7, "step", 1, 2, 0))
    expected = torch.rand(3).tolist()

    def fail() -> None:
        raise AssertionError("a stack is written down, which takes a millisecond")

    monkeypatch.setattr(traceback, "format_stack", fail)
    assert drawn(1, 2) == expected
    assert len({tuple(drawn(*place)) for place in ((1, 2), (2, 1), (1, 3), (1, 2, 1))}) == 4
