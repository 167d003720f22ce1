"""Whole runs on a handful of scenes: what they leave behind, resuming, several processes, and what they refuse."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from omegaconf import DictConfig
from PIL import Image

from tutelage.core.curves import read_curves
from tutelage.core.errors import ConfigError, DataError, RunError
from tutelage.core.evaluate import compare, evaluate
from tutelage.core.results import read_metrics
from tutelage.core.run import make_trainer, open_task, train
from tutelage.core.run_folder import LOCK, best_checkpoint
from tutelage.multilabel.module import Distillation
from tutelage.multilabel.results import report
from tutelage.multilabel.task import label_shares

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "data.num_train=40",
    "data.num_val=12",
    "data.num_test=15",
    "data.batch_size=8",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.progress_bar=false",
    "trainer.log_every_n_steps=1",
    "trainer.threads=1",
]
Compose = Callable[..., DictConfig]
Script = Callable[..., subprocess.CompletedProcess[str]]


def weights(folder: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    content = torch.load(folder / "checkpoints" / name, weights_only=True)["state_dict"]
    assert isinstance(content, dict)
    return content


def scores(folder: Path) -> dict[str, float]:
    metrics = read_metrics(folder)
    assert metrics is not None
    return {name: float(value) for name, value in metrics.items() if "time/" not in name and "memory/" not in name}


def test_a_run_leaves_what_was_promised(
    compose_config: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    metrics = train(compose_config(*SMALL), folder=folder)
    assert {path.name for path in folder.iterdir()} >= {
        ".hydra", "metrics.json", "checkpoints", "predictions.npz", "items.csv", "report.html", "manifest.json",
        "curves.csv",
    }  # fmt: skip
    assert {"test/mAP", "test/CF1", "teacher/test/mAP", "time/train_s", "student/parameters"} <= metrics.keys()
    assert all(not isinstance(value, dict | list) for value in metrics.values())

    # The teacher is in no checkpoint, and the student's is loadable without it.
    names = weights(folder).keys()
    assert any(name.startswith("student.") for name in names) and not any("teacher" in name for name in names)

    # The numbers are those of the predictions that were written.
    from tutelage.multilabel.metrics import scores as score

    with np.load(folder / "predictions.npz") as kept:
        again = score(kept["logits"], kept["targets"])
        assert len(kept["ids"]) == 15 == len((folder / "items.csv").read_text().splitlines()) - 1
    assert metrics["test/mAP"] == pytest.approx(100 * again["mAP"])

    table = capsys.readouterr().out
    assert "teacher" in table and "student" in table and f"{metrics['test/mAP']:.2f}" in table
    thresholds = json.loads((folder / "thresholds.json").read_text())
    assert list(thresholds) == list("0123456789") and all(0 < value < 1 for value in thresholds.values())
    page = (folder / "report.html").read_text()
    assert "<svg" in page and page.count("data:image/png") > 10
    assert not re.search(r"""(src|href)=["']http""", page)  # self-contained
    for section in ("Training pictures", "Maps", "Most wrong", "Hardest"):
        assert section in page, section
    manifest = json.loads((folder / "manifest.json").read_text())
    assert len(manifest["data"]["fingerprint"]) == 16 and manifest["labels"] == list("0123456789")

    # Scored again from its folder alone: the same numbers; trained again: it answers with them.
    before = scores(folder)
    (folder / "predictions.npz").unlink()
    evaluate(folder)
    assert scores(folder) == pytest.approx(before) and (folder / "predictions.npz").exists()
    assert train(compose_config(*SMALL), folder=folder) == read_metrics(folder)

    # A second student finds the teacher.
    capsys.readouterr()
    second = train(compose_config(*SMALL, "seed=2"), folder=tmp_path / "second")
    assert "First the teacher" not in capsys.readouterr().out
    assert second["teacher/test/mAP"] == metrics["teacher/test/mAP"] and second["test/mAP"] != metrics["test/mAP"]


def test_a_student_alone_needs_no_teacher_and_its_scores_no_report(
    compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object, **named: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space left"):
        patched.setattr(report, "write", fail)
        train(compose_config(*SMALL, "method=supervised"), folder=tmp_path / "run")
    metrics = read_metrics(tmp_path / "run")
    assert metrics is not None and not any(name.startswith("teacher/") for name in metrics)
    assert not (tmp_path / "store").exists() and not (tmp_path / "run" / "report.html").exists()
    # The same command draws the report, and trains nothing.
    assert train(compose_config(*SMALL, "method=supervised"), folder=tmp_path / "run") == metrics
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_new_student_starts_at_the_labels_shares(compose_config: Compose, tmp_path: Path) -> None:
    targets_NK = np.array([[1, 0, -1], [1, 0, 1], [0, 0, 1], [0, 0, -1]], dtype=np.int8)
    torch.testing.assert_close(label_shares(targets_NK), torch.tensor([0.5, 0.1, 2.5 / 3]).double())

    task = open_task(compose_config(*SMALL, "method=supervised"), folder=tmp_path / "run")
    student = task.module(task.datamodule()).student
    shares_K = label_shares(task.source.split("train").targets_NK)
    torch.testing.assert_close(student.head.classifier.bias.sigmoid(), shares_K.float())
    with torch.no_grad():
        student.head.classifier.bias.fill_(7.0)
    torch.save(student.state_dict(), tmp_path / "trained.pth")
    trained = compose_config(*SMALL, "method=supervised", f"model.student.checkpoint={tmp_path / 'trained.pth'}")
    task = open_task(trained, folder=tmp_path / "run")
    assert (task.module(task.datamodule()).student.head.classifier.bias == 7).all()


def test_a_probe_trains_the_head_alone_and_is_then_fine_tuned(compose_config: Compose, tmp_path: Path) -> None:
    common = [*SMALL, "method=supervised", "trainer.max_epochs=1"]
    task = open_task(compose_config(*common), folder=tmp_path / "run")
    untouched = task.module(task.datamodule()).student.state_dict()
    torch.save(untouched, tmp_path / "start.pth")
    start = f"model.student.checkpoint={tmp_path / 'start.pth'}"
    train(compose_config(*common, "model.student.frozen=backbone", start), folder=tmp_path / "probe")
    probed = weights(tmp_path / "probe")
    changed = {name for name in untouched if not torch.equal(untouched[name], probed[f"student.{name}"])}
    assert changed == {"head.classifier.weight", "head.classifier.bias"}

    checkpoint = f"model.student.checkpoint={tmp_path / 'probe' / 'checkpoints' / 'best.ckpt'}"
    train(compose_config(*common, checkpoint), folder=tmp_path / "tuned")
    tuned = weights(tmp_path / "tuned")
    assert any(not torch.equal(probed[name], tuned[name]) for name in probed if name.startswith("student.backbone."))


def test_averaged_weights_are_the_ones_that_are_selected_and_scored(compose_config: Compose, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    cfg = compose_config(*SMALL, "method=supervised", "trainer.ema_decay=0.9")
    metrics = train(cfg, folder=folder)
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    name = "student.head.classifier.weight"
    assert not torch.equal(kept["state_dict"][name], kept["current_model_state"][name])
    task = open_task(cfg, folder=folder)
    datamodule = task.datamodule()
    module = task.module(datamodule)
    task.load(module, best_checkpoint(folder))
    [found] = make_trainer(task, callbacks=[], loggers=[]).validate(module, datamodule=datamodule, verbose=False)
    assert found["val/mAP"] == pytest.approx(metrics["val/best"], abs=1e-4)


def test_two_runs_are_compared_on_their_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets_NK = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], dtype=np.int8)
    right_NK = targets_NK.astype(np.float32)
    finished_run(tmp_path / "good", logits=right_NK, targets=targets_NK)
    finished_run(tmp_path / "bad", logits=right_NK * [1, -1], targets=targets_NK)
    for name, percent in (("good", 30.5), ("bad", 10)):
        (tmp_path / name / "metrics.json").write_text(json.dumps({"test/pointing_game": percent}))
    compare(tmp_path / "good", tmp_path / "bad")
    words = capsys.readouterr().out.split()
    # dog's only picture comes last of four: AP 1/4. Cat's are first in both.
    place = words.index("mAP")
    assert "on the same 4 test pictures" in " ".join(words)
    assert words[place + 2 : place + 7 : 2] == ["100.00", "62.50", "+37.50"]
    place = words.index("pointing_game")
    assert words[place + 2 : place + 7 : 2] == ["30.50", "10.00", "+20.50"] and "cam_mass" not in words
    assert words[words.index("dog") : words.index("dog") + 9 : 2] == ["dog", "1", "100.00", "25.00", "+75.00"]

    for name, changes in {
        "labels": {"labels": ["cat", "cow"]}, "ids": {"ids": list("abce")}, "targets": {"targets": 1 - targets_NK}
    }.items():  # fmt: skip
        finished_run(tmp_path / name, logits=right_NK, **{"targets": targets_NK, **changes})
        with pytest.raises(DataError, match=rf"{name} was not scored on .*good's test data \({name} differ\)"):
            compare(tmp_path / "good", tmp_path / name)
    (tmp_path / "bad" / "predictions.npz").write_bytes(b"half")
    with pytest.raises(DataError, match=r"bad/predictions.npz: cannot be read .*: python evaluate.py run=.*bad"):
        compare(tmp_path / "good", tmp_path / "bad")
    (tmp_path / "bad" / "metrics.json").unlink()
    with pytest.raises(ConfigError, match=r"against: .*bad holds no finished run"):
        compare(tmp_path / "good", tmp_path / "bad")


def finished_run(folder: Path, **predictions: Any) -> None:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text("task: {_target_: tutelage.multilabel.task.MultilabelTask}\n")
    (folder / "metrics.json").write_text("{}")
    np.savez(folder / "predictions.npz", **{"ids": list("abcd"), "labels": ["cat", "dog"], **predictions})


def test_the_teacher_is_frozen_and_stays_as_it_was(compose_config: Compose, tmp_path: Path) -> None:
    from lightning.pytorch import Trainer

    task = open_task(compose_config(*SMALL), folder=tmp_path / "run")
    task.prepare()
    datamodule = task.datamodule()
    module = task.module(datamodule)
    teacher = module.teachers["teacher"]  # type: ignore[union-attr, index]
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    student = {name: value.clone() for name, value in module.student.state_dict().items()}  # type: ignore[union-attr]
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(module, datamodule)
    assert not teacher.network.training and not any(p.requires_grad for p in teacher.network.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.network.state_dict().items())
    changed = {n for n, value in module.student.state_dict().items() if not torch.equal(student[n], value)}  # type: ignore[union-attr]
    assert any(name.startswith("head.") for name in changed)
    assert any(name.startswith("backbone.") for name in changed)
    optimised = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert not optimised & {id(p) for p in teacher.network.parameters()}


@pytest.mark.parametrize("more", [[], pytest.param(["trainer.ema_decay=0.9"], marks=pytest.mark.slow)])
def test_a_killed_run_resumes_to_the_same_bits(train_script: Script, tmp_path: Path, more: list[str]) -> None:
    """Killed in the first epoch, at an epoch's last step before its validation, and in the second epoch."""
    often = ["trainer.checkpoint_every_n_steps=2", "trainer.max_epochs=3"]
    common = [*SMALL, *often, *more, f"store={tmp_path / 'store'}"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = train_script(*common, f"run={whole}")
    assert done.returncode == 0, done.stderr
    for after in (3, 3, 4):  # step 3; step 2 + 3 = the epoch's last; then into the second epoch
        stopped = train_script(*([*common] if not killed.exists() else []), f"run={killed}", kill_after=after)
        assert stopped.returncode == -signal.SIGKILL, stopped.stderr
        assert read_metrics(killed) is None
    done = train_script(f"run={killed}")
    assert done.returncode == 0, done.stderr
    for name in ("last.ckpt", "best.ckpt"):
        expected, found = weights(whole, name), weights(killed, name)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected), name
    assert scores(whole) == scores(killed)
    assert (whole / "curves.csv").read_text() == (killed / "curves.csv").read_text()
    assert (whole / "items.csv").read_text() == (killed / "items.csv").read_text()


def test_other_settings_cannot_continue_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text("seed: 1\n")
    (folder / ".hydra" / "overrides.yaml").write_text("- seed=1\n")
    command = [sys.executable, str(ROOT / "train.py"), f"run={folder}", "optim.lr=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "was started without optim.lr=1" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow  # test_two_ranks.py and test_method_processes.py hold the parts of it
def test_two_processes_equal_one(compose_config: Compose, tmp_path: Path) -> None:
    """No batch statistics in these networks, so that the only difference is the order of sums."""
    common = [
        *SMALL, "model.teacher.name=test_convnext", "model.student.name=test_convnext",
        "model.student.output_stride=null", "model.teacher.output_stride=null", "trainer.max_epochs=1",
        "trainer.gradient_clip_val=1.0",
    ]  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    train(compose_config(*common), folder=one)
    train(compose_config(*common, "trainer=cpus"), folder=two)
    expected, found = weights(one), weights(two)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5)
    with np.load(one / "predictions.npz") as a, np.load(two / "predictions.npz") as b:
        assert a["ids"].tolist() == b["ids"].tolist() and len(a["ids"]) == 15  # odd: one rank had a filler
        np.testing.assert_allclose(a["logits"], b["logits"], rtol=1e-3, atol=1e-4)
    assert scores(two) == pytest.approx(
        scores(one), abs=0.01
    )  # percent: no two logits were so near as to change places


def test_a_loss_that_is_not_finite_stops_and_says_where(compose_config: Compose, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(RunError, match=r"not finite at step 1 \(epoch 0, batch 1, samples \d+, ") as caught:
        train(compose_config(*SMALL, "method=supervised", "optim.lr=1e30", "optim.warmup=0"), folder=folder)
    assert "Lower optim.lr" in str(caught.value)
    assert (folder / "checkpoints" / "before_nan.ckpt").exists() and read_metrics(folder) is None


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, saved, save = tmp_path / "run", [], torch.save

    def full(content: object, path: Path) -> None:
        if len(saved) >= 2:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        saved.append(path)
        save(content, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=f"No space left on device.*continue with: python train.py run={folder}"):
        train(compose_config(*SMALL, "method=supervised"), folder=folder)
    assert weights(folder) and not list((folder / "checkpoints").glob("*.tmp"))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", "foreign"], ids=["empty", "text", "foreign"])
def test_a_checkpoint_that_is_none_is_refused(compose_config: Compose, tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    if isinstance(content, str):
        torch.save({"weights": torch.zeros(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(RunError, match=r"last.ckpt: (not a whole checkpoint|not a checkpoint of a run).* Delete"):
        train(compose_config(*SMALL, "method=supervised"), folder=tmp_path / "run")


def test_a_teacher_of_other_labels_is_refused(compose_config: Compose, tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    train(compose_config(*SMALL, "method=supervised", "trainer.max_epochs=1"), folder=folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "labels": ["cat", "dog"]}))
    checkpoint = folder / "checkpoints" / "best.ckpt"
    with pytest.raises(
        ConfigError, match=r"was trained on 2 labels, the data has 10 \(only the network's: \['cat', 'dog'\]"
    ):
        open_task(compose_config(*SMALL, f"model.teacher.checkpoint={checkpoint}"), folder=tmp_path / "run")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data.num_train=0", "no training samples"),
        ("data.batch_size=41", r"data.batch_size: 41 is larger than the training data \(40 samples\). Use at most 40."),
        ("model.student.name=resnet1000", "resnet1000"),
        ("data.num_val=0", "no validation samples"),
    ],
)
def test_data_that_cannot_train_is_refused(compose_config: Compose, tmp_path: Path, override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        train(compose_config(*SMALL, "method=supervised", override), folder=tmp_path / "run")


def test_a_folder_that_another_process_trains_in_is_refused(compose_config: Compose, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with FileLock(folder / LOCK), pytest.raises(RunError, match="another process is training in"):
        train(compose_config(*SMALL), folder=folder)
    assert not (folder / ".hydra").exists()  # the other's config stays as it is


def test_a_single_label_is_refused(compose_config: Compose, tmp_path: Path) -> None:
    rows = [f"{number:02}.png,{'cat' if number % 2 else ''}" for number in range(20)]
    for number in range(20):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / f"{number:02}.png")
    (tmp_path / "train.csv").write_text("\n".join(["path,labels", *rows]))
    options = ["data=table", f"data.root={tmp_path}", "data.resolution=32", "data.batch_size=4"]
    small = [option for option in SMALL if not option.startswith("data.")]
    with pytest.raises(ConfigError, match=r"1 label\(s\) in \('cat',\)"):
        train(compose_config(*small, *options), folder=tmp_path / "run")


def test_a_folder_that_cannot_be_written_is_refused(compose_config: Compose, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write into"):
        train(compose_config(*SMALL), folder=tmp_path / "file" / "run")


def test_pictures_are_loaded_at_the_highest_resolution_that_a_network_asks_for(
    compose_config: Compose, tmp_path: Path
) -> None:
    def sides(*overrides: str) -> tuple[int, int]:
        task = open_task(compose_config(*SMALL, *overrides), folder=tmp_path / "run")
        batch = next(iter(task.datamodule().val_dataloader()))
        return batch.images_BCHW.shape[-1], task._student().resolution

    assert sides() == (48, 48)
    assert sides("model.teacher.resolution=64") == (64, 48)  # the student keeps the data's
    assert sides("model.teacher.resolution=64", "method=supervised") == (48, 48)
    assert sides("model.student.resolution=32") == (48, 32)


def test_only_steps_that_are_written_or_shown_are_logged(
    compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[int] = []
    log_dict = Distillation.log_dict

    def counted(module: Distillation, values: dict[str, Any], **options: Any) -> None:
        logged.extend([module.trainer.global_step] * ("train/loss" in values))
        log_dict(module, values, **options)

    monkeypatch.setattr(Distillation, "log_dict", counted)
    train(compose_config(*SMALL, "method=supervised", "trainer.log_every_n_steps=2"), folder=tmp_path / "run")
    assert [step for step, _ in read_curves(tmp_path / "run")["train/loss"]] == [1, 3, 5, 7, 9]
    assert logged == [1, 3, 4, 5, 7, 9]  # 4 ends the first epoch, whose line shows its loss
