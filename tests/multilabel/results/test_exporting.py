"""export.py: a run's student, taken out of its run."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from tutelage.core import startup
from tutelage.core.arguments import parse_arguments
from tutelage.core.errors import ConfigError
from tutelage.multilabel.results.exporting import USAGE, ExportSettings, export_run

ROOT = Path(__file__).resolve().parents[3]
LABELS = ["zero", "one", "two/three"]


@pytest.fixture
def run(student_run: Path) -> Path:
    return student_run


def test_a_run_gives_up_its_student(run: Path) -> None:
    export_run(ExportSettings(run=run, out=run / "export", onnx=False))
    described = json.loads((run / "export" / "network.json").read_text())
    assert described["labels"] == LABELS and described["resolution"] == 32
    exported = load_file(run / "export" / "timm.safetensors")
    timm.create_model(**described["timm"]["create_model"]).load_state_dict(exported, strict=True)
    kept = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(exported["fc.weight"], kept["student.head.classifier.weight"])
    torch.testing.assert_close(exported["conv1.0.weight"], kept["student.backbone.conv1.0.weight"])


def test_the_script(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(startup, "prepare", lambda: None)  # it is for a process that has imported nothing yet
    monkeypatch.setattr(sys, "argv", ["export.py", f"run={run}", "onnx=false", f"out={run / 'elsewhere'}"])
    runpy.run_path(str(ROOT / "export.py"), run_name="__main__")
    assert "timm.safetensors" in capsys.readouterr().out and (run / "elsewhere" / "network.json").is_file()


def test_the_command_line(tmp_path: Path) -> None:
    def parse(arguments: list[str]) -> ExportSettings:
        return parse_arguments(arguments, ExportSettings, usage=USAGE)

    assert parse(["run=a"]) == ExportSettings(run=Path("a"), out=None, onnx=True)
    assert parse(["run=a", "out=b", "onnx=false"]) == ExportSettings(run=Path("a"), out=Path("b"), onnx=False)
    for arguments, place in ((["out=b"], "run"), (["run=a", "onnx=maybe"], "onnx"), (["run=a", "opset=9"], "opset")):
        with pytest.raises(ConfigError, match=f"^{place}: "):
            parse(arguments)


def test_what_is_no_finished_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no finished run"):
        export_run(ExportSettings(run=tmp_path, out=tmp_path, onnx=False))
    config = run / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("multilabel.task.MultilabelTask", "text2sql.task.Text2SqlTask"))
    with pytest.raises(ConfigError, match="is not a run of task=multilabel"):
        export_run(ExportSettings(run=run, out=run / "export", onnx=False))
