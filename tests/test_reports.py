"""The reports of both tasks in a real browser: made from a run's files, readable on a phone."""

import csv
from pathlib import Path
from typing import ClassVar

import numpy as np
from browser import assert_it_fits
from omegaconf import OmegaConf

from tutelage.multilabel.results import report as multilabel_report
from tutelage.text2sql.results import report as text2sql_report
from tutelage.text2sql.results.items import COLUMNS, ITEMS

LONG = "a_label_with_a_very_long_name_that_nobody_broke_into_words_" * 3


class Source:
    name, label_names = "photos", ("cat", LONG)
    notes: ClassVar = {"counts": {"train": 4, "test": 2}}


def test_the_multilabel_report_fits(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 255, size=(2, 3, 32, 32), dtype=np.uint8)
    targets, logits = np.array([[1, 0], [1, 1]], np.int8), np.array([[-3.0, 2.0], [4.0, -1.0]], np.float32)
    kept = {"images": images, "targets": targets, "ids": np.array(["a", LONG])}
    cams = random.normal(size=(2, 2, 4, 4)).astype(np.float32)
    np.savez(tmp_path / multilabel_report.MAPS, **kept, cams_student=cams, logits_student=logits)
    np.savez(
        tmp_path / multilabel_report.EXAMPLES,
        train=np.stack([images] * 5, axis=1), train_ids=kept["ids"], wrong=images, wrong_ids=kept["ids"],
        wrong_logits=logits, wrong_targets=targets,
    )  # fmt: skip
    rows = [("label", "positives", "student_AP"), ("cat", "9", "75.0"), (LONG, "5", "12.5")]
    with (tmp_path / multilabel_report.CLASSES).open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    cfg = OmegaConf.create(
        {
            "method": {"_target_": "a.cam_kd.CamKD"},
            "data": {"_target_": "a.Photos"},
            "model": {"student": {"name": "x"}, "teacher": {"name": "y"}},
            "teachers": None,
            "scoring": None,
        }
    )
    metrics = {"test/mAP": 43.75, "test/mAP_low": 1.0, "test/mAP_high": 99.0, "student/parameters": 1000}
    multilabel_report.write(tmp_path, cfg=cfg, metrics=metrics, source=Source())  # type: ignore[arg-type]
    page = (tmp_path / "report.html").read_text()
    # The first picture's cat was missed and the other label invented; of the second the long one was missed.
    assert "missed: cat (0.05)" in page and f"not there: {LONG} (0.88)" in page and f"missed: {LONG} (0.27)" in page
    assert f"Hardest (of those with five positives or more): {LONG} (12.5), cat (75.0)" in page
    assert_it_fits(tmp_path / "report.html")


def test_the_text2sql_report_fits(tmp_path: Path) -> None:
    with (tmp_path / ITEMS).open("w", newline="") as file:
        rows = csv.DictWriter(file, COLUMNS)
        rows.writeheader()
        for n in range(40):
            gold = f"SELECT {LONG} FROM {LONG} WHERE x = {n}"
            rows.writerow(dict.fromkeys(COLUMNS, "") | {
                "id": n, "db_id": "shop", "source": "seed", "right": int(n % 4 == 0), "status": "ok",
                "question": f"Question {n}?", "gold": gold, "sql": gold if n % 4 == 0 else "",
            })  # fmt: skip
    cfg = OmegaConf.create(
        {
            "method": {"_target_": "a.Sft"}, "data": {"_target_": "a.Own"}, "adapter": {"_target_": "a.Full"},
            "model": {"path": "somewhere"}, "inference": {},
        }
    )  # fmt: skip
    metrics = {"test/ex": 25.0, "test/ex_low": 14.2, "test/ex_high": 40.2, "test/ex_count": 40}
    corpus = {"explored_in": "nothing", "seeds": 3, "explored_pairs": 0}
    notes = {"corpus": corpus, "data": {"fingerprint": "0"}}
    text2sql_report.write(tmp_path, cfg=cfg, metrics=metrics, notes=notes)
    page = (tmp_path / "report.html").read_text()
    assert [page.index(f"Question {n}?") for n in (0, 8, 16, 24, 32, 1)] == sorted(
        page.index(f"Question {n}?") for n in (0, 8, 16, 24, 32, 1)
    )
    assert page.count('<div class="pairs right">') == 5 and page.count('<div class="pairs">') == 5
    assert_it_fits(tmp_path / "report.html")
