"""Whole runs of methods that learn parts of their own: resumed, saved, and what is exported of them."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

from tutelage.core import callbacks
from tutelage.core.evaluate import evaluate
from tutelage.core.results import read_metrics
from tutelage.core.run import open_task, train
from tutelage.multilabel.results.exporting import ExportSettings, export_run, open_student

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
    "trainer.checkpoint_every_n_steps=2",
    "teacher.trainer.max_epochs=1",
    "teacher.batch_size=8",
]
# Every method that has parts of its own, but simkd, whose part stays in the student.
LEARNED = [
    "crd", "fitnet", "kdsvd", "lshfm", "ofa", "ofd", "reviewkd", "token_relation", "vid", "vitkd", "vkd", "wkd_f",
]  # fmt: skip
# Medians of the training set, a memory, a queue, a step that hides places.
STATEFUL = {"lshfm": "bias_N", "crd": "memory_student_ND", "token_relation": "queue_MC", "vitkd": "step"}
CONF = Path(__file__).resolve().parents[3] / "conf" / "method"
# Every method of task=multilabel that has a teacher, whoever wrote it.
METHODS = sorted(
    path.stem
    for path in CONF.glob("*.yaml")
    if "tutelage.multilabel.methods" in path.read_text() and path.stem != "supervised"
)
Compose = Callable[..., DictConfig]


def weights(folder: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    content = torch.load(folder / "checkpoints" / name, weights_only=True)["state_dict"]
    assert isinstance(content, dict)
    return content


def test_what_methods_learn_is_resumed_to_the_same_bits_and_not_exported(
    compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose_config(*SMALL)
    OmegaConf.set_struct(cfg, False)
    cfg.method = {name: compose_config(*SMALL, f"method={name}").method for name in LEARNED}
    cfg.method.ofa.force_softmax = True
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(cfg, folder=whole)

    batches = 0
    kept = callbacks.LastCheckpoint.on_train_batch_end

    def end(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal batches
        kept(self, *args, **kwargs)
        batches += 1
        if batches == 7:  # in the second epoch, a step after a checkpoint
            raise KeyError("the power went")

    monkeypatch.setattr(callbacks.LastCheckpoint, "on_train_batch_end", end)
    with pytest.raises(KeyError, match="the power went"):
        train(cfg, folder=stopped)
    monkeypatch.undo()
    train(cfg, folder=stopped)
    expected, found = weights(whole), weights(stopped)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key

    task = open_task(cfg, folder=tmp_path / "again")
    task.prepare()
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    module = task.module(task.datamodule())
    begun = {name: value for name, value in module.named_parameters() if name.startswith("terms.") and len(value)}
    assert {name.split(".")[1] for name in begun} == set(LEARNED)
    assert not [name for name, value in begun.items() if torch.equal(value.detach(), expected[name])]
    for name, part in STATEFUL.items():
        assert expected[f"terms.{name}.method.{part}"].float().abs().sum() > 0
    assert expected["terms.vitkd.method.step"] == 10 and expected["terms.lshfm.calibrated"]
    export_run(ExportSettings(run=whole, onnx=False))
    names = load_file(whole / "export" / "timm.safetensors").keys()
    student, _ = open_student(whole)
    assert len(names) == len([name for name in student.state_dict() if not name.startswith("head.pooling")])
    assert not any(part in name for name in names for part in ("terms", "method", "memory", "queue", "projection"))


def test_simkds_student_is_tested_and_exported_with_the_teachers_head(compose_config: Compose, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the export extra")
    folder = tmp_path / "run"
    metrics = train(compose_config(*SMALL, "method=simkd", "trainer.max_epochs=1"), folder=folder)
    teacher = weights(next((tmp_path / "store" / "teachers").glob("*/checkpoints")).parent, "best.ckpt")
    kept = weights(folder, "best.ckpt")
    reused = "student.head.classifier.classifier.weight"  # the head's classifier is the teacher's head
    assert torch.equal(kept[reused], teacher["student.head.classifier.weight"])
    assert any(key.startswith("student.head.projector.") for key in kept)
    # The backbone of the teacher is not in the student: its pooling has no weights.
    assert not any(key.startswith("student.head.pooling.") for key in kept)

    student, labels = open_student(folder)
    export_run(ExportSettings(run=folder))
    assert not (folder / "export" / "timm.safetensors").exists()
    described = json.loads((folder / "export" / "network.json").read_text())
    assert described["labels"] == list(labels) and "timm" not in described
    images = torch.rand(3, 3, student.resolution, student.resolution, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(folder / "export" / "network.onnx")
    (found,) = session.run(None, {"images_BCHW": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), student(images).logits_BK, rtol=1e-3, atol=1e-4)

    evaluate(folder)
    again = read_metrics(folder)
    assert again is not None and again["test/mAP"] == pytest.approx(metrics["test/mAP"])


@pytest.mark.slow  # the compiler takes a minute
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler for CPUs needs g++")
def test_a_compiled_run_learns_the_same(compose_config: Compose, tmp_path: Path) -> None:
    """With a method of each family, so that logits, maps, stages and last features come out of compiled networks."""
    families = ("mld", "cam_kd", "fitnet", "sp")
    logged: dict[bool, dict[tuple[str, str], float]] = {}
    for compiled in (False, True):
        cfg = compose_config(*SMALL, "trainer.max_epochs=1", f"trainer.compile={str(compiled).lower()}")
        OmegaConf.set_struct(cfg, False)
        cfg.method = {name: compose_config(*SMALL, f"method={name}").method for name in families}
        train(cfg, folder=tmp_path / str(compiled))
        with (tmp_path / str(compiled) / "curves.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["name"].startswith("train/")]
        logged[compiled] = {(row["name"], row["step"]): float(row["value"]) for row in rows}
    assert {name.split("/")[1] for name, _ in logged[True]} >= set(families)
    assert logged[True] == pytest.approx(logged[False], rel=0.02, abs=1e-4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all methods, so that they share a teacher."""
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_for_three_steps(name: str, compose_config: Compose, tmp_path: Path, store: Path) -> None:
    cfg = compose_config(*SMALL, "trainer.max_epochs=1", "data.num_train=24", f"method={name}", f"store={store}")
    cfg.method.force_softmax = True  # of those for single labels
    metrics = train(cfg, folder=tmp_path / "run")
    # A method whose class says that it reads nothing of a teacher would train as supervised, without a word.
    assert "teacher/test/mAP" in metrics
    with (tmp_path / "run" / "curves.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["name"].startswith("train/")]
    own = {row["name"] for row in logged} - {"train/task", "train/loss", "train/weight"}
    assert own and all(math.isfinite(float(row["value"])) for row in logged)
    values = {name: [float(row["value"]) for row in logged if row["name"] == name] for name in own}
    assert all(len(value) == 3 for value in values.values()) and any(any(value) for value in values.values())
