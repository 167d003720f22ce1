"""Gather the runs of run.sh into results.csv and a table: ``python collect.py runs/spider_smollm2/small``."""

import csv
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROWS = (("base, untrained", "sft", "base/"), ("sft: seed questions", "sft", ""), ("db_explore", "db_explore", ""))
SCORES = {"ex": "dev", "ex_without_doubtful": "dev without wta_1"}


def main(runs: Path) -> None:
    rows = []
    for model, run, prefix in ROWS:
        path = runs / run / "metrics.json"
        if not path.exists():
            print(f"{path} is not there yet", file=sys.stderr)
            continue
        metrics = json.loads(path.read_text())
        corpus = json.loads((path.parent / "manifest.json").read_text())["corpus"]
        trained = (0, 0) if prefix else (corpus["seeds"], corpus["explored_pairs"])
        for name, questions in SCORES.items():
            low, high, count = (metrics[f"{prefix}test/{name}_{part}"] for part in ("low", "high", "count"))
            value = metrics[f"{prefix}test/{name}"]
            rows.append([model, *trained, questions, count, f"{value:.1f}", f"{low:.1f}", f"{high:.1f}"])
    columns = ["model", "seeds", "explored_pairs", "questions", "count", "ex", "low", "high"]
    with (HERE / "results.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    for row in [columns, ["---"] * len(columns), *rows]:
        print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
