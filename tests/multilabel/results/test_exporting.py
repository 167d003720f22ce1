"""export.py: a run's student, taken out of its run."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from tutelage.core import startup
from tutelage.core.arguments import parse_arguments
from tutelage.core.errors import ConfigError
from tutelage.core.run_folder import load_config
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.results import model_card
from tutelage.multilabel.results.exporting import USAGE, ExportSettings, export_run, open_student

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


def test_the_card(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"mAP": 71.5, "mAP_low": 66.1, "mAP_high": 75.9, "CF1": 60.0}
    metrics = {f"test/{name}": value for name, value in scores.items()} | {"teacher/test/mAP": 80.25}
    (run / "metrics.json").write_text(json.dumps(metrics))
    versions = {"torch": "2.15", "timm": "1.0"}
    told = {"labels": LABELS, "git": "abc", "versions": versions, "data": {"fingerprint": "f00d", "selection": "val"},
            "protocols": {"mAP": "all-point AP."}}  # fmt: skip
    (run / "manifest.json").write_text(json.dumps(told))
    rows = ["label,positives,student_AP", "zero,40,91.5", "one,12,33.25", "two/three,0,"]
    (run / "classes.csv").write_text("\n".join(rows) + "\n")
    export_run(ExportSettings(run=run, onnx=False))
    text = (run / "export" / "README.md").read_text()
    assert "| mAP | 71.50 (66.1–75.9) | 80.25 |" in text and "all-point AP." in text and "`f00d`" in text
    table = text[text.index("## Where it fails") :]
    assert table.index("| one | 33.2 | 12 |") < table.index("| zero | 91.5 | 40 |")
    assert "Without any positive in the test split, so never scored: two/three." in table
    assert "onnxruntime" not in text and 'load_file("timm.safetensors")' in text
    assert "{{" not in text and "{%" not in text
    code = text.split("```python\n")[1].split("```")[0]
    images = torch.zeros(1, 3, 32, 32)
    monkeypatch.chdir(run / "export")
    scope: dict[str, Any] = {"torch": torch, "images": images}
    exec(code, scope)
    network, _ = open_student(run)
    with torch.no_grad():
        expected = network(normalised(network, images)).logits_BK.sigmoid()[0]
    torch.testing.assert_close(scope["probabilities"][0].detach(), expected, rtol=1e-3, atol=1e-4)


def test_the_card_names_all_teachers(run: Path) -> None:
    config = json.loads((run / ".hydra" / "config.yaml").read_text())
    config["method"] = {"_target_": "tutelage.multilabel.methods.logits.mld.Mld", "temperature": 1.0}
    members = {"plain": None, "wide": {"network": {"name": "wide_resnet50_2"}}}
    config["teachers"] = {"combine": "average", "members": members}
    (run / ".hydra" / "config.yaml").write_text(json.dumps(config))
    (run / "metrics.json").write_text(json.dumps({"test/mAP": 70.0, "test/CF1": 60.0, "teacher/test/mAP": 80.5}))
    export_run(ExportSettings(run=run, onnx=False))
    text = (run / "export" / "README.md").read_text()
    assert "by `method=mld` under plain: resnet10t, wide: wide_resnet50_2." in text
    assert "| score | student | teachers, average (plain: resnet10t, wide: wide_resnet50_2) |" in text
    assert "| mAP | 70.00 | 80.50 |" in text and "| CF1 | 60.00 | — |" in text
    config["teachers"]["combine"] = "terms"
    (run / ".hydra" / "config.yaml").write_text(json.dumps(config))
    scores = {"test/mAP": 70.0, "teacher/plain/test/mAP": 75.0, "teacher/wide/test/mAP": 80.0}
    (run / "metrics.json").write_text(json.dumps(scores))
    text = model_card.write(load_config(run), open_student(run)[0], run=run, out=run / "export")
    assert "| score | student | plain (resnet10t) | wide (wide_resnet50_2) |" in text
    assert "| mAP | 70.00 | 75.00 | 80.00 |" in text


def test_a_run_with_classes_of_another_package_has_to_be_trusted(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run / ".hydra" / "config.yaml"
    (run / "mine.py").write_text("from tutelage.multilabel.networks.heads import Linear as Mine\n")
    config.write_text(config.read_text().replace("tutelage.multilabel.networks.heads.Linear", "mine.Mine"))
    monkeypatch.syspath_prepend(run)
    monkeypatch.setattr(startup, "prepare", lambda: None)  # it is for a process that has imported nothing yet
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.png")
    exporting = ["export.py", f"run={run}", "onnx=false"]
    predicting = ["predict.py", f"run={run}", f"images={tmp_path / 'photo.png'}", f"out={tmp_path / 'out'}"]
    for arguments in (exporting, predicting):
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit, match=r"(?i)add trust=mine"):
            runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
        monkeypatch.setattr(sys, "argv", [*arguments, "trust=mine"])
        runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
    assert (run / "export" / "network.json").is_file() and (tmp_path / "out" / "predictions.csv").is_file()


def normalised(network: Network, zeros_BCHW: torch.Tensor) -> torch.Tensor:
    """The image that our network normalises to these values."""
    return zeros_BCHW * network.std_C11 + network.mean_C11


def test_a_card_names_the_onnx_file_that_is_there(run: Path) -> None:
    export_run(ExportSettings(run=run, onnx=False))
    out = run / "export"
    (out / "network.onnx").touch()
    text = model_card.write(load_config(run), open_student(run)[0], run=run, out=out)
    assert 'InferenceSession("network.onnx")' in text and "This run kept no scores." in text


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
