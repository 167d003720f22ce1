"""Gather the study's finished runs: ``python experiments/replay/collect.py RUNS`` → results.csv, and a table."""

import csv
import json
import statistics
import sys
from pathlib import Path

from omegaconf import OmegaConf

from tutelage.core.results import markdown_table, read_metrics

SWEEPS = ("supervised", "live", "float16", "uint8")
METRICS = ("test/mAP", "val/best", "time/train_s", "time/teacher_saved_s")


def main(runs: Path) -> None:
    """Write a row a run; print a row a sweep."""
    rows = []
    for sweep in SWEEPS:
        for job in sorted((runs / sweep).glob("[0-9]*"), key=lambda path: int(path.name)):
            metrics = read_metrics(job)
            if metrics is None:
                print(f"{job}: not finished")
                continue
            seed = OmegaConf.load(job / ".hydra" / "config.yaml").seed
            rows.append({"sweep": sweep, "seed": seed, **{key: metrics.get(key, "") for key in METRICS}})
    with (Path(__file__).parent / "results.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, fieldnames=["sweep", "seed", *METRICS], lineterminator="\n")
        out.writeheader()
        out.writerows(rows)
    disk = disk_of_records(runs / "store" / "replays")
    lines = []
    for sweep in SWEEPS:
        mine = [row for row in rows if row["sweep"] == sweep]
        if mine:
            scores = [float(row["test/mAP"]) for row in mine]
            spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
            later = [float(row["time/train_s"]) for row in mine if row["seed"] != 1]
            first = [float(row["time/train_s"]) for row in mine if row["seed"] == 1]
            times = [f"{statistics.fmean(each):.0f}" if each else "" for each in (first, later)]
            megabytes = f"{disk[sweep] / 1e6:.1f}" if sweep in disk else ""
            lines.append([sweep, str(len(mine)), f"{statistics.fmean(scores):.2f}{spread}", *times, megabytes])
    columns = ["teacher", "seeds", "test mAP", "first student, s", "later students, mean s", "disk, MB"]
    print(markdown_table(columns, lines))


def disk_of_records(folder: Path) -> dict[str, int]:
    """Return the bytes that records take of the disk, by format."""
    found: dict[str, int] = {}
    for manifest in folder.glob("*/manifest.json"):
        dtype = json.loads(manifest.read_text())["key"]["dtype"]
        size = sum(path.stat().st_blocks * 512 for path in manifest.parent.rglob("*"))
        found[dtype] = found.get(dtype, 0) + size
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
