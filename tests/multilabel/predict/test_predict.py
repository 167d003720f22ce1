"""predict.py: a folder of pictures in, labels out; killed, resumed, and from ONNX."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.core.arguments import parse_arguments
from tutelage.core.errors import ConfigError, DataError
from tutelage.multilabel.predict.command import USAGE, PredictSettings, predict
from tutelage.multilabel.predict.output import map_path, overlay, read_rows, rows_of
from tutelage.multilabel.predict.pictures import find_pictures
from tutelage.multilabel.results.exporting import ExportSettings, export_run, open_student
from tutelage.multilabel.results.thresholds import read_thresholds, tune_thresholds, write_thresholds

ROOT = Path(__file__).resolve().parents[3]
LABELS = ("zero", "one", "two/three")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Seven pictures in two folders, beside three files that are none."""
    random = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for n in range(7):
        pixels = random.integers(0, 256, size=(40 + n, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("deep" if n % 2 else ".") / f"picture {n}.png")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")
    return folder


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_labelled(student_run: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(PredictSettings(run=student_run, images=str(pictures), out=out, top=3, batch=2))
    found = rows(out)
    assert len({row["path"] for row in found}) == 7 and len(found) == 21
    network, labels = open_student(student_run)
    assert labels == LABELS
    path = pictures / "picture 0.png"
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = network(pixels).logits_BK.sigmoid()[0]
    mine = {row["label"]: float(row["probability"]) for row in found if row["path"] == str(path)}
    for label, probability in zip(LABELS, expected.tolist(), strict=True):
        assert mine[label] == pytest.approx(probability, abs=0.02)  # resized as uint8 here, inside the network there
    with (out / "failed.csv").open(newline="") as file:
        assert {Path(line["path"]).name for line in csv.DictReader(file)} == {"cut.jpg", "empty.png"}
    page = (out / "index.html").read_text()
    assert page.count("<article>") == 7 and "two/three" in page


def test_the_probability_is_against_the_labels_own_threshold() -> None:
    logits_K = np.array([0.0, 2.0, -3.0], np.float32)
    thresholds_K = np.array([0.4, 0.9, 0.01], np.float32)
    found = rows_of(Path("a"), logits_K, labels=LABELS, thresholds_K=thresholds_K, top=0)
    assert [(row.label, row.predicted) for row in found] == [("zero", True), ("two/three", True)]
    found = rows_of(Path("a"), logits_K, labels=LABELS, thresholds_K=thresholds_K, top=1)
    assert [(row.label, row.predicted) for row in found] == [("one", False), ("zero", True), ("two/three", True)]


def test_a_killed_job_continues_to_the_same_file(student_run: Path, pictures: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for out in (whole, cut):
        predict(PredictSettings(run=student_run, images=str(pictures), out=out, batch=3))
    complete = (whole / "predictions.csv").read_bytes()
    (cut / "predictions.csv").write_bytes(complete[: len(complete) // 2])  # in the middle of a line
    predict(PredictSettings(run=student_run, images=str(pictures), out=cut, batch=3))
    assert (cut / "predictions.csv").read_bytes() == complete
    with pytest.raises(ConfigError, match="another top"):
        predict(PredictSettings(run=student_run, images=str(pictures), out=cut, top=1))


def test_maps_lie_over_their_pictures(student_run: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(PredictSettings(run=student_run, images=str(pictures), out=out, cams=True, threshold=1e-6))
    predicted = [row for row in read_rows(out / "predictions.csv") if row.predicted]
    assert len(predicted) == 21
    for row in predicted:
        assert Image.open(map_path(out, row.path, row.label)).size == (32, 32)
    assert (out / "index.html").read_text().count("<figcaption>") == 21
    cam = np.zeros((2, 2), np.float32)
    cam[0, 0] = 5.0
    drawn = overlay(np.full((8, 8, 3), 100, np.uint8), cam)
    assert drawn[7, 7].tolist() == [100, 100, 100] and drawn[0, 0, 0] > 180 > drawn[0, 0, 2]


def test_onnx_says_the_same_without_torch(student_run: Path, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_thresholds(student_run, labels=LABELS, thresholds_K=np.array([0.1, 0.2, 0.3], np.float32))
    export_run(ExportSettings(run=student_run, out=tmp_path / "export"))
    description = json.loads((tmp_path / "export" / "network.json").read_text())
    assert description["thresholds"] == pytest.approx([0.1, 0.2, 0.3])
    predict(PredictSettings(run=student_run, images=str(pictures), out=tmp_path / "run"))
    code = f"""
import sys
sys.argv = ["predict.py", "onnx={tmp_path}/export/network.onnx", "images={pictures}", "out={tmp_path}/onnx"]
exec(open("predict.py").read())
assert "torch" not in sys.modules, "torch was imported"
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    for mine, other in zip(rows(tmp_path / "run"), rows(tmp_path / "onnx"), strict=True):
        assert mine["path"] == other["path"]
        assert float(mine["probability"]) == pytest.approx(float(other["probability"]), abs=0.02)


def test_thresholds_are_those_of_the_best_f1(tmp_path: Path) -> None:
    logits_NK = np.array([[3, 0], [2, 0], [1, 0], [0, 0], [-1, 0], [-2, 0], [-3, 0]], np.float32)
    targets_NK = np.array([[1, 1], [1, 0], [0, 0], [1, 0], [1, 0], [1, 0], [0, 0]], np.int8)
    found = tune_thresholds(logits_NK, targets_NK)
    # F1 over the top n: .33 .57 .5 .67 .8 .91 .83: the first six, half-way between sigmoid(−2) and sigmoid(−3).
    assert found[0] == pytest.approx((1 / (1 + np.exp(2)) + 1 / (1 + np.exp(3))) / 2)
    assert found[1] == 0.5  # one positive tells nothing
    targets_NK[5, 0] = -1  # unknown: out of the count
    assert tune_thresholds(logits_NK, targets_NK, least_positives=4)[0] == pytest.approx(
        (1 / (1 + np.exp(1)) + 1 / (1 + np.exp(3))) / 2
    )
    assert read_thresholds(tmp_path, labels=LABELS).tolist() == [0.5, 0.5, 0.5]
    write_thresholds(tmp_path, labels=LABELS, thresholds_K=np.array([0.25, 0.5, 0.75], np.float32))
    assert read_thresholds(tmp_path, labels=LABELS[::-1]).tolist() == [0.75, 0.5, 0.25]


def test_what_cannot_work_is_refused(student_run: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no picture below"):
        find_pictures(str(tmp_path / "none"))
    with pytest.raises(DataError, match="no file matches"):
        find_pictures(str(tmp_path / "*.jpg"))
    assert len(find_pictures(str(pictures / "**" / "*.png"))) == 8
    for arguments, place in (
        ([f"images={pictures}", "out=o"], "run"),
        ([f"images={pictures}", "out=o", "run=a", "onnx=b"], "run"),
        ([f"images={pictures}", "out=o", "onnx=b", "cams=true"], "cams"),
        ([f"images={pictures}", "out=o", "run=a", "threshold=2"], "threshold"),
        ([f"images={pictures}", "out=o", "run=a", "bach=2"], "bach"),
        (["run=a", "out=o"], "images"),
    ):
        with pytest.raises(ConfigError, match=f"^{place}: "):
            parse_arguments(arguments, PredictSettings, usage=USAGE)
    other = tmp_path / "other.onnx"
    other.write_bytes(b"something else")
    with pytest.raises(ConfigError, match="is no ONNX network"):
        predict(PredictSettings(onnx=other, images=str(pictures), out=tmp_path / "o"))
    with pytest.raises(ConfigError, match="holds no finished run"):
        predict(PredictSettings(run=tmp_path, images=str(pictures), out=tmp_path / "o"))
