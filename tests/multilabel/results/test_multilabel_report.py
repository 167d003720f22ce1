"""What a run writes for people: classes.csv and report.html."""

# N images, K labels

import csv
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from tutelage.multilabel.evaluation import Scored
from tutelage.multilabel.metrics import Prediction
from tutelage.multilabel.results import report
from tutelage.multilabel.results.report import CARD, CLASSES, SHOWN, keep_classes, summary


def test_names_of_labels_come_back_from_the_file_as_they_are(tmp_path: Path) -> None:
    names = ["Grün, hell", 'a "quoted", one', "plain", "two\nlines"]
    targets_NK = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]], dtype=np.int8)
    prediction = Prediction(
        logits_NK=targets_NK.astype(np.float32), targets_NK=targets_NK, index_N=np.arange(4, dtype=np.int64)
    )
    keep_classes(tmp_path, label_names=names, scored={"student": Scored({}, prediction)})
    with (tmp_path / CLASSES).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == names
    assert [row["positives"] for row in rows] == ["1", "2", "1", "0"]
    assert [row["student_AP"] for row in rows] == ["100.0000"] * 3 + [""]


def test_the_card_shows_calibration_and_both_networks_aps(tmp_path: Path) -> None:
    logits_NK = np.array([[0.0, 2.2], [0.0, -2.2]], np.float32)  # .5, .9, .5, .1
    np.savez(tmp_path / "predictions.npz", ids=[0, 1], logits=logits_NK, targets=np.array([[1, 1], [0, 1]]), labels=[0])
    classes = [
        {"label": "cat", "student_AP": "75.0", "teacher_AP": "80.0"},
        {"label": "dog", "student_AP": "", "teacher_AP": ""},  # no positives
    ]
    left, right = report._draw_card(tmp_path, classes).axes
    probability, share = left.lines[1].get_data()
    assert np.round(probability, 1).tolist() == [0.1, 0.5, 0.9]
    assert np.asarray(share).tolist() == [1.0, 0.5, 1.0]
    assert np.asarray(right.collections[0].get_offsets()).tolist() == [[80.0, 75.0]]


def test_the_card_has_no_cell_for_a_teacher_against_itself() -> None:
    networks = {"teacher": {"name": "big"}, "student": {"name": "small"}}
    cfg = OmegaConf.create({"scoring": None, "teachers": None, "model": networks})
    of_both = {"mAP": 50.0, "mAP_low": 49.0, "mAP_high": 51.0, "ECE": 2.0}
    metrics = {f"{prefix}test/{name}": value for prefix in ("", "teacher/") for name, value in of_both.items()}
    metrics |= {"test/fidelity_kl": 0.125, "student/parameters": 1e6, "teacher/parameters": 2e6}
    metrics |= {"time/train_s": 9.0, "time/step_ms": 12.0, "memory/peak_mb": 800.0}
    columns, rows = summary(cfg, metrics, shown=(*SHOWN, *CARD))
    found = {name: cells for name, *cells in rows}
    assert columns == ["", "teacher", "student"]
    assert found["fidelity_kl"] == ["—", "0.125"]
    assert found["ECE"] == ["2.00", "2.00"]
    assert found["time a step"] == ["—", "12.0 ms"]
    assert "fidelity_kl" not in {name for name, *_ in summary(cfg, metrics)[1]}
