"""Finished runs scored again: from their folder alone, on another machine, with other data, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from tutelage.core.errors import ConfigError
from tutelage.core.evaluate import compare, evaluate
from tutelage.core.results import read_metrics
from tutelage.core.run import train
from tutelage.core.run_folder import CONFIG
from tutelage.multilabel.metrics import scores as score

SMALL = [
    "data.num_train=40", "data.num_val=12", "data.num_test=15", "data.batch_size=8", "trainer.max_epochs=1",
    "trainer.accelerator=cpu", "trainer.progress_bar=false", "trainer.threads=1",
]  # fmt: skip
Compose = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def finished(compose_below: Callable[[Path], Compose], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run under a teacher; what it started from and the store are gone."""
    folder = tmp_path_factory.mktemp("finished")
    compose_config, start = compose_below(folder), folder / "start"
    train(compose_config(*SMALL, "method=supervised"), folder=start)
    checkpoint = start / "checkpoints" / "best.ckpt"
    train(compose_config(*SMALL, f"model.student.checkpoint={checkpoint}"), folder=folder / "run")
    shutil.rmtree(start)
    shutil.rmtree(folder / "store")
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test may change."""
    return shutil.copytree(finished, tmp_path / "run")


def changed(folder: Path, **values: object) -> None:
    cfg = OmegaConf.load(folder / CONFIG)
    for key, value in values.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    OmegaConf.save(cfg, folder / CONFIG)


def test_a_run_of_several_gpus_is_scored_from_its_folder_alone(run: Path, tmp_path: Path) -> None:
    before = read_metrics(run)
    classes = (run / "classes.csv").read_text()
    trainer = {"accelerator": "gpu", "devices": 8, "num_nodes": 2, "strategy": "ddp", "sync_batchnorm": True}
    changed(run, store=str(tmp_path / "nowhere"), **{f"trainer__{key}": value for key, value in trainer.items()})
    shutil.move(run, tmp_path / "elsewhere")
    metrics = evaluate(tmp_path / "elsewhere")
    assert metrics == pytest.approx(before)  # the teacher's scores stay, too
    assert not (tmp_path / "nowhere").exists()  # nothing was trained
    assert (tmp_path / "elsewhere" / "classes.csv").read_text() == classes
    assert "teacher" in (tmp_path / "elsewhere" / "report.html").read_text()


def test_changed_settings_leave_the_runs_own_scores_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    found = evaluate(run, changes=["scoring.split=val", "scoring.threshold=0.2", "trainer.progress_bar=false"])
    out = run / "evaluations" / "scoring.split=val,scoring.threshold=0.2"
    assert read_metrics(out) == found
    assert {path.name for path in out.iterdir()} >= {"predictions.npz", "items.csv", "report.html"}
    with np.load(out / "predictions.npz") as kept:
        assert len(kept["ids"]) == 12
        expected = score(kept["logits"], kept["targets"], threshold=0.2)
        assert found["val/CF1"] == pytest.approx(100 * expected["CF1"])
        predicted = int((1 / (1 + np.exp(-kept["logits"])) > 0.2).sum())
    rows = (out / "items.csv").read_text().splitlines()[1:]
    assert sum(len([name for name in row.split(",")[2].split("|") if name]) for row in rows) == predicted
    assert "val split" in capsys.readouterr().out
    assert own == {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["changes"][:2] == ["scoring.split=val", "scoring.threshold=0.2"] and manifest["run"] == str(run)

    # Other data of the same labels, at another resolution; two evaluations can be compared.
    one = evaluate(run, changes=["data.scene_seed=5", "data.num_test=9"])
    two = evaluate(run, changes=["data=digits", "data.scene_seed=5", "data.num_test=9", "data.resolution=64"])
    assert one["test/mAP"] != two["test/mAP"]
    folders = sorted(path for path in (run / "evaluations").iterdir() if "num_test" in path.name)
    assert len(folders) == 2
    compare(*folders)
    assert "on the same 9 test pictures" in capsys.readouterr().out


def test_half_precision_of_a_gpu_is_scored_in_full_precision(run: Path) -> None:
    changed(run, trainer__precision="16-mixed", trainer__accelerator="gpu")
    if torch.cuda.is_available():
        pytest.skip("this machine can do it")
    evaluate(run)
    assert (run / "evaluations" / "trainer.precision=32-true" / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("optim.lr=1", r"optim.lr: was fixed when the run was trained. Scoring can change: data, "),
        ("data=coco", r"data.root: no value given"),
        ("data=cocoa", r"data: no choice 'cocoa'. Choose from: "),
        ("data.num_tests=3", r"data.num_tests: the run has no such key. Did you mean data.num_test\?"),
        ("data.num_test=many", r"data.num_test: 'many'"),
        ("data.num_test=1,2", r"data.num_test: data.num_test=1,2 cannot be used on a finished run"),
        ("scoring.threshold=2", r"scoring.threshold: 2.* is not a probability"),
        ("scoring.split=dev", r"scoring.split: 'dev'"),
        ("nonsense", r"nonsense: "),
    ],
)
def test_what_scoring_cannot_change_is_refused(tmp_path: Path, compose_config: Compose, change: str, says: str) -> None:
    from tutelage.core.run_folder import save_config

    save_config(compose_config(*SMALL), tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text("{}")
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoints" / "best.ckpt").write_bytes(b"")
    with pytest.raises(ConfigError, match=says):
        evaluate(tmp_path / "run", changes=[change])
    assert not (tmp_path / "run" / "evaluations").exists()


def test_data_with_other_labels_is_refused(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "labels": ["cat", "dog"]}))
    with pytest.raises(ConfigError, match=r"trained on 2 labels, this data has 10 \(only the network's: \['cat'"):
        evaluate(run, changes=["data.num_test=9"])
