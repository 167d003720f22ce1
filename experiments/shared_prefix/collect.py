"""Gather the study's finished runs: ``python experiments/shared_prefix/collect.py RUNS`` → results.csv, and a table."""

import csv
import statistics
import sys
from pathlib import Path

from tutelage.core.curves import read_curves
from tutelage.core.results import markdown_table, read_json, read_metrics

KINDS = ("shared", "unshared")
COLUMNS = ("prefix", "seed", "val_loss", "val_ex", "train_s", "samples", "rows", "tokens_seen", "tokens_computed")


def main(runs: Path) -> None:
    """Write a row a run; print a row a way of packing, and the ratio of their times."""
    rows = [row for kind in KINDS for folder in sorted((runs / kind).glob("[0-9]*")) for row in finished(kind, folder)]
    with (Path(__file__).parent / "results.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, fieldnames=COLUMNS, lineterminator="\n")
        out.writeheader()
        out.writerows(rows)
    lines = []
    for kind in KINDS:
        mine = [row for row in rows if row["prefix"] == kind]
        if mine:
            losses, times = ([float(row[key]) for row in mine] for key in ("val_loss", "train_s"))
            spread = f" ± {statistics.stdev(losses):.4f}" if len(losses) > 1 else ""
            line = [kind, str(len(mine)), f"{statistics.fmean(losses):.4f}{spread}", f"{statistics.fmean(times):.0f}"]
            lines.append([*line, *(str(mine[0][key]) for key in ("samples", "rows", "tokens_computed"))])
    columns = ["prefix", "seeds", "validation loss", "training, mean s", "samples", "steps", "tokens computed"]
    print(markdown_table(columns, lines))
    found = {(row["prefix"], row["seed"]): row for row in rows}
    seeds = [seed for kind, seed in found if kind == "shared" and ("unshared", seed) in found]
    for seed in seeds:
        one, other = found["shared", seed], found["unshared", seed]
        print(
            f"seed {seed}: loss {float(one['val_loss']) - float(other['val_loss']):+.4f}, "
            f"time {float(one['train_s']) / float(other['train_s']):.2f} of unshared"
        )


def finished(kind: str, folder: Path) -> list[dict[str, object]]:
    """Return the row of a finished run, or none."""
    metrics = read_metrics(folder)
    if metrics is None:
        print(f"{folder}: not finished", file=sys.stderr)
        return []
    curves, sharing = read_curves(folder), read_json(folder / "sharing.json")
    values = {
        "prefix": kind,
        "seed": folder.name,
        "val_loss": f"{curves['val/loss'][-1][1]:.5f}",
        "val_ex": f"{curves['val/ex'][-1][1]:.1f}",
        "train_s": f"{float(metrics['time/train_s']):.1f}",
        "samples": sharing["samples"],
        "rows": curves["train/loss"][-1][0] + 1,
        "tokens_seen": sharing["tokens_seen"],
        "tokens_computed": sharing["tokens_computed"],
    }
    return [values]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
