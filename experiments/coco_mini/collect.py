"""Gather the study's finished runs into results.csv: ``python experiments/coco_mini/collect.py RUNS``."""

import csv
import sys
from pathlib import Path

from omegaconf import OmegaConf

from tutelage.core.results import print_table, read_metrics

COLUMNS = ("val/best", "test/mAP", "test/mAP_low", "test/mAP_high", "test/CF1", "test/OF1", "test/pointing_game")


def main(runs: Path) -> None:
    """Write a row for each run that has ended, in the order of the study."""
    rows = []
    for name in ("probe", "teacher", "lite0_supervised", "lite0_cam_kd", "small_supervised", "small_cam_kd"):
        metrics = read_metrics(runs / name)
        if metrics is None:
            print(f"{name}: not finished")
            continue
        config = OmegaConf.load(runs / name / ".hydra" / "config.yaml")
        numbers = [f"{float(metrics[key]):.2f}" if key in metrics else "" for key in COLUMNS]
        rows.append([name, config.model.student.name, str(config.trainer.max_epochs), *numbers])
    header = ["run", "network", "epochs", *COLUMNS]
    with (Path(__file__).parent / "results.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    print_table("coco_mini", header, rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
