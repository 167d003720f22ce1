"""Every published prediction file at hand: our official numbers beside the official scorers' own, item by item.

    python benchmarks/official_vectors.py --data-root ../shared/data

Writes benchmarks/results/official_vectors.md and exits with 1 if one item differs.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tutelage.text2sql.evaluation.score import Scores, score_predictions

RESULTS = Path(__file__).parent / "results"
# Our metric, the benchmark, whether DISTINCT is kept, and the official vector of it.
COLUMNS = (
    ("spider", "execution", False, "exec"),
    ("spider", "execution", True, "exec_keep_distinct"),
    ("spider", "exact_match", False, "exact_match"),
    ("bird", "ex", False, "ex"),
    ("bird", "soft_f1", False, "soft_f1"),
)


def compare(root: Path, store: Path) -> Iterator[tuple[str, str, int, float, float, int]]:
    """File, metric, items, our value, the official value, items that differ by more than 1e-9."""
    for benchmark in ("spider", "bird"):
        for path in sorted((root / "predictions" / benchmark).glob("*.json")):
            if path.stem == "units":
                continue
            official = json.loads(path.read_text())["official"]
            scored: dict[bool, Scores] = {}
            for name, metric, keep_distinct, key in COLUMNS:
                if name != benchmark:
                    continue
                if keep_distinct not in scored:
                    scored[keep_distinct] = score(benchmark, root, path, store, keep_distinct)
                scores = scored[keep_distinct]
                ours = scores.systems[0].values(metric, "official")
                theirs = official[key]
                differing = sum(abs(a - b) > 1e-9 for a, b in zip(ours, theirs, strict=True))
                label = f"{metric}, DISTINCT kept" if keep_distinct else metric
                yield path.stem, label, len(ours), 100 * sum(ours) / len(ours), 100 * sum(theirs) / len(ours), differing
            if benchmark == "spider":
                levels = scored[False].groups
                differing = sum(a != b for a, b in zip(levels, official["hardness"], strict=True))
                hard, theirs_hard = (
                    100 * names.count("extra") / len(names) for names in (levels, official["hardness"])
                )
                yield path.stem, "hardness (share of extra)", len(levels), hard, theirs_hard, differing


def score(benchmark: Any, root: Path, path: Path, store: Path, keep_distinct: bool) -> Scores:
    """Our scores of one file."""
    return score_predictions(
        benchmark=benchmark,
        root=root / benchmark,
        predictions=[path],
        store=store,
        on_missing="skip",
        keep_distinct=keep_distinct,
    )


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("TUTELAGE_DATA", "../shared/data")))
    arguments = parser.parse_args()
    lines = ["| file | metric | items | ours | official | items that differ |", "|---|---|---:|---:|---:|---:|"]
    differing = 0
    with tempfile.TemporaryDirectory() as store:
        for file, metric, items, ours, theirs, wrong in compare(arguments.data_root, Path(store)):
            lines.append(f"| {file} | {metric} | {items:,} | {ours:.2f} | {theirs:.2f} | {wrong} |")
            differing += wrong
            print(lines[-1])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "official_vectors.md").write_text("\n".join(lines) + "\n")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
