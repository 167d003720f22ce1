"""Whole runs with settings that change the order of a run's parts: precision, accumulation, validation in an epoch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from tutelage.core.callbacks import LastCheckpoint
from tutelage.core.curves import read_curves
from tutelage.core.results import read_metrics
from tutelage.core.run import train

Compose = Callable[..., DictConfig]
# Eight batches an epoch.
SMALL = [
    "data.num_train=64", "data.num_val=12", "data.num_test=12", "data.batch_size=8", "trainer.max_epochs=2",
    "trainer=cpu", "trainer.progress_bar=false", "trainer.log_every_n_steps=1", "trainer.threads=1",
    "trainer.checkpoint_every_n_steps=1", "method=supervised",
]  # fmt: skip
SETTINGS = {
    "bf16-mixed": ["trainer.precision=bf16-mixed"],
    "accumulation": ["trainer.accumulate_grad_batches=2"],
    "validation in an epoch": ["trainer.val_check_interval=0.5"],
}


class Killed(BaseException):
    """Ends a run where a kill would."""


def kill_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, end = [], LastCheckpoint.on_train_batch_end

    def counted(self: LastCheckpoint, *args: Any) -> None:
        end(self, *args)
        seen.append(1)
        if len(seen) == batches:
            raise Killed

    monkeypatch.setattr(LastCheckpoint, "on_train_batch_end", counted)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return content


@pytest.mark.parametrize("name", SETTINGS)
def test_a_whole_run(name: str, compose_config: Compose, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    metrics = train(compose_config(*SMALL, *SETTINGS[name]), folder=folder)
    assert 0 < metrics["test/mAP"] <= 100 and 0 < metrics["val/best"] <= 100
    steps = {key: [step for step, _ in points] for key, points in read_curves(folder).items()}
    assert all(value.dtype == torch.float32 for value in weights(folder).values() if value.is_floating_point())
    optimiser = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    taken = {int(state["step"]) for state in optimiser.values()}
    assert taken == {8 if name == "accumulation" else 16}
    assert len(steps["val/mAP"]) == (4 if name == "validation in an epoch" else 2)


def test_all_of_them_resume_to_the_same_bits(
    compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the first epoch after its first validation, between two steps of the optimiser; then in the second."""
    cfg = [*SMALL, *(override for overrides in SETTINGS.values() for override in overrides)]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(compose_config(*cfg), folder=whole)
    for batches in (7, 5):  # from batch 6 of the first epoch: its batches 7 and 8, then three of the second
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after(batches, patch)
            train(compose_config(*cfg), folder=killed)
        assert read_metrics(killed) is None and (killed / "checkpoints" / "last.ckpt").exists()
    train(compose_config(*cfg), folder=killed)
    expected, found = weights(whole), weights(killed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (whole / "curves.csv").read_text() == (killed / "curves.csv").read_text()
    for name, value in (read_metrics(whole) or {}).items():
        measured = name.startswith("memory/") or "time/" in name  # of the machine
        assert measured or (read_metrics(killed) or {})[name] == value, name


def test_each_weight_lies_in_a_checkpoint_once_and_each_file_is_read_once(
    compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["method=cam_kd", "trainer.max_epochs=1", "teacher.trainer.max_epochs=1", "teacher.batch_size=8"]
    train(compose_config(*SMALL, *settings), folder=tmp_path / "first")  # trains the teacher, too
    read, load = [], torch.load

    def counted(file: Path, *args: Any, **options: Any) -> Any:
        read.append(str(file))
        return load(file, *args, **options)

    monkeypatch.setattr(torch, "load", counted)
    train(compose_config(*SMALL, *settings, "seed=2"), folder=tmp_path / "run")
    assert len([path for path in read if "/teachers/" in path]) == 1
    assert len(read) == len(set(read)) == 2  # the teacher's, and the student's best

    (teacher,) = (tmp_path / "store" / "teachers").glob("*/checkpoints/best.ckpt")
    for path in (
        tmp_path / "run" / "checkpoints" / "last.ckpt",
        tmp_path / "run" / "checkpoints" / "best.ckpt",
        teacher,
    ):
        content = load(path, weights_only=True)
        state = {name: value for name, value in content["state_dict"].items() if value.numel() > 1}
        assert len({value.untyped_storage().data_ptr() for value in state.values()}) == len(state) > 20
        assert len({name.split(".", 1)[1] for name in state}) == len(state)
        assert not any("_orig_mod" in name or "_forward" in name for name in state)
