"""Gather the sweeps of this study: ``python experiments/digits/collect.py SWEEP …`` → results.csv, figure.svg."""

import csv
import json
import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from omegaconf import OmegaConf

HERE = Path(__file__).parent
METRICS = (
    "test/mAP",
    "test/mAP_low",
    "test/mAP_high",
    "test/CF1",
    "test/OF1",
    "test/pointing_game",
    "test/cam_mass",
    "val/best",
)


# cam_kd's loss splits into what the maps' means say, which are the logits, and what is left of them over space.
PARTS = {"method.spatial_weight": "cam_kd, logit part", "method.logit_weight": "cam_kd, spatial part"}


def main(*sweeps: Path) -> None:
    rows = []
    for job in (job for sweep in sweeps for job in sorted(sweep.glob("[0-9]*"), key=lambda path: int(path.name))):
        chosen = dict(str(text).split("=", 1) for text in OmegaConf.load(job / ".hydra" / "overrides.yaml"))
        metrics = json.loads((job / "metrics.json").read_text())
        row = {
            "method": next((part for key, part in PARTS.items() if key in chosen), chosen["method"]),
            "seed": chosen["seed"],
            **{name: round(metrics[name], 3) for name in METRICS},
        }
        rows.append(row)
        if "teacher/test/mAP" in metrics:
            teacher = {name: round(metrics[f"teacher/{name}"], 3) for name in METRICS if name.startswith("test/")}
    rows.append({"method": "teacher", "seed": 0, **teacher})
    with (HERE / "results.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, fieldnames=["method", "seed", *METRICS])
        out.writeheader()
        out.writerows(rows)
    draw([row for row in rows if row["method"] != "teacher"], teacher=teacher)


def draw(rows: list[dict[str, float]], *, teacher: dict[str, float]) -> None:
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("test/mAP", "test/pointing_game"), strict=True):
        methods = list(dict.fromkeys(row["method"] for row in rows))
        for place, method in enumerate(methods):
            values = [row[name] for row in rows if row["method"] == method]
            axes.scatter([place] * len(values), values, alpha=0.7)
            axes.hlines(sum(values) / len(values), place - 0.2, place + 0.2, color="black")
        axes.axhline(teacher[name], linestyle=":", color="grey", label="teacher")
        axes.set(
            title=f"{name}, percent",
            xticks=range(len(methods)),
            xticklabels=[m.replace(", ", "\n") for m in methods],
            xlim=(-0.6, len(methods) - 0.4),
        )
        axes.legend(fontsize=8)
    with matplotlib.rc_context({"svg.hashsalt": "tutelage"}):
        figure.savefig(HERE / "figure.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
