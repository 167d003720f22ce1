"""export.py: a run's student, taken out of its run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from tutelage.core.errors import ConfigError
from tutelage.multilabel.networks.network import NetworkSpec, build_network
from tutelage.multilabel.results.exporting import Wanted, export_run, parse

ROOT = Path(__file__).resolve().parents[3]
HEAD = {"_target_": "tutelage.multilabel.networks.heads.Linear"}
LABELS = ["zero", "one", "two"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run, as training leaves it, whose data are gone."""
    network = build_network(
        NetworkSpec(name="resnet10t", weights="none"), num_labels=3, head=HEAD, resolution=32, where="model.student"
    )
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    spec = {"_target_": "tutelage.multilabel.networks.network.NetworkSpec", "name": "resnet10t", "weights": "imagenet"}
    config = {
        "task": {"_target_": "tutelage.multilabel.task.MultilabelTask"},
        "data": {"root": "/gone", "resolution": 32},
        "head": HEAD,
        "model": {"_target_": "tutelage.multilabel.networks.network.Pair", "teacher": spec, "student": spec},
    }
    (folder / ".hydra" / "config.yaml").write_text(json.dumps(config))
    (folder / "metrics.json").write_text("{}")
    (folder / "manifest.json").write_text(json.dumps({"labels": LABELS}))
    state = {f"student.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state | {"weight.value": torch.ones(())}}, folder / "checkpoints" / "best.ckpt")
    return folder


def test_a_run_gives_up_its_student(run: Path) -> None:
    export_run(Wanted(run=run, out=run / "export", onnx=False))
    described = json.loads((run / "export" / "network.json").read_text())
    assert described["labels"] == LABELS and described["resolution"] == 32
    exported = load_file(run / "export" / "timm.safetensors")
    timm.create_model(**described["timm"]["create_model"]).load_state_dict(exported, strict=True)
    kept = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(exported["fc.weight"], kept["student.head.classifier.weight"])
    torch.testing.assert_close(exported["conv1.0.weight"], kept["student.backbone.conv1.0.weight"])


def test_the_script(run: Path) -> None:
    command = [sys.executable, str(ROOT / "export.py"), f"run={run}", "onnx=false", f"out={run / 'elsewhere'}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "timm.safetensors" in found.stdout and (run / "elsewhere" / "network.json").is_file()


def test_the_command_line(tmp_path: Path) -> None:
    assert parse(["run=a"]) == Wanted(run=Path("a"), out=Path("a/export"), onnx=True)
    assert parse(["run=a", "out=b", "onnx=false"]) == Wanted(run=Path("a"), out=Path("b"), onnx=False)
    for arguments, place in ((["out=b"], "run"), (["run=a", "onnx=no"], "onnx"), (["run=a", "opset=9"], "opset")):
        with pytest.raises(ConfigError, match=f"^{place}: "):
            parse(arguments)


def test_what_is_no_finished_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no finished run"):
        export_run(Wanted(run=tmp_path, out=tmp_path, onnx=False))
    config = run / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("tutelage.multilabel.task", "tutelage.text2sql.task"))
    with pytest.raises(ConfigError, match="is no run of task=multilabel"):
        export_run(Wanted(run=run, out=run / "export", onnx=False))
