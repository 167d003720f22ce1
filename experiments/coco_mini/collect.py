"""Gather the study's finished runs into results.csv: ``python experiments/coco_mini/collect.py RUNS``."""

import csv
import sys
from pathlib import Path

from omegaconf import OmegaConf

from tutelage.core.results import print_table, read_metrics
from tutelage.multilabel.metrics import difference_interval
from tutelage.multilabel.results.comparison import read_predictions

# Each run, and the one that it is measured against.
RUNS = {
    "probe": None,
    "teacher": "probe",
    "lite0_probe": None,
    "lite0_supervised": "lite0_probe",
    "lite0_cam_kd": "lite0_supervised",
    "small_supervised": None,
    "small_cam_kd": "small_supervised",
}
COLUMNS = ("val/best", "test/mAP", "test/mAP_low", "test/mAP_high", "test/CF1", "test/OF1", "test/pointing_game")


def main(runs: Path) -> None:
    """Write a row for each run that has ended, in the order of the study."""
    rows = []
    for name, other in RUNS.items():
        metrics = read_metrics(runs / name)
        if metrics is None:
            print(f"{name}: not finished")
            continue
        config = OmegaConf.load(runs / name / ".hydra" / "config.yaml")
        numbers = [f"{float(metrics[key]):.2f}" if key in metrics else "" for key in COLUMNS]
        compared = ["", "", "", ""] if other is None else [other, *difference(runs / name, runs / other)]
        rows.append([name, config.model.student.name, str(config.trainer.max_epochs), *numbers, *compared])
    header = ["run", "network", "epochs", *COLUMNS, "against", "mAP difference", "low", "high"]
    with (Path(__file__).parent / "results.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    print_table("coco_mini", header, rows)


def difference(run: Path, other: Path) -> list[str]:
    """Return the difference in test mAP and its 95 % interval, as evaluate.py run=… against=… prints them."""
    first, second = read_predictions(run), read_predictions(other)
    low, high = difference_interval(first.logits_NK, second.logits_NK, first.targets_NK)
    mine, theirs = (float((read_metrics(folder) or {})["test/mAP"]) for folder in (run, other))
    return [f"{mine - theirs:+.2f}", f"{100 * low:+.2f}", f"{100 * high:+.2f}"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
