"""What a run writes for people: classes.csv and report.html."""

# N images, K labels

import csv
from pathlib import Path

import numpy as np

from tutelage.multilabel.evaluation import Scored
from tutelage.multilabel.metrics import Prediction
from tutelage.multilabel.results.report import CLASSES, keep_classes


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
