"""The tables and figures of a study come from its two csv files alone."""

import math
from pathlib import Path

import numpy as np
import pytest

from tutelage.multilabel.results.statistics import paired_difference
from tutelage.multilabel.study import page, table
from tutelage.multilabel.study.plan import Entry, Outcome, Part, Study, Trial
from tutelage.multilabel.study.table import Row, compare, read_results, rows, write_comparisons, write_results

WEIGHTS = (Trial(name="x1", factor=1), Trial(name="x10", factor=10))
RATES = tuple(Trial(name=f"lr{rate}", overrides=(f"optim.lr={rate}",)) for rate in (1, 2))
STUDY = Study(
    name="tiny",
    overrides=(),
    selection_seed=0,
    parts=(
        Part(
            name="methods",
            title="Methods",
            entries=(
                Entry(name="supervised", family="baseline", overrides=("method=supervised",), trials=RATES),
                Entry(name="mse", family="logits", overrides=("method=mse",), trials=WEIGHTS),
                Entry(name="vkd", family="features", overrides=("method=vkd",), trials=WEIGHTS),
            ),
            seeds=(1, 2),
        ),
    ),
    baselines=("supervised", "mse"),
)
BLOCKS = ("progress", "methods table", "methods forest", "methods trials", "failures")
README = "# Study\n\n" + "\n".join(f"<!-- {name} -->\nold\n<!-- end -->\n" for name in BLOCKS)


def outcomes(runs: Path) -> dict[str, Outcome]:
    """Both seeds of supervised and mse, whose predictions lie below ``runs``; all of vkd failed."""
    random = np.random.default_rng(0)
    targets_NK = (random.random((200, 4)) < 0.3).astype(np.int8)
    found = {}
    for name, signal in (("supervised", 0.5), ("mse", 1.5)):
        for trial, score in zip(STUDY.parts[0].entries[name == "mse"].trials, (50.0, 51.0), strict=True):
            found[f"methods/{name}/{trial.name}"] = Outcome(
                overrides=("method=x",), metrics={"val/best": score}, weight=3.0, error=None, seconds=1
            )
        for seed in (1, 2):
            folder = runs / "methods" / name / f"seed_{seed}"
            folder.mkdir(parents=True)
            logits_NK = (signal * targets_NK + random.normal(size=targets_NK.shape)).astype(np.float32)
            np.savez(folder / "predictions.npz", ids=np.arange(200), logits=logits_NK, targets=targets_NK, labels=[0])
            metrics = {"val/best": 50.0, "test/mAP": 40.0 + 10 * signal + seed, "time/train_cpu_s": 10.0}
            found[f"methods/{name}/seed_{seed}"] = Outcome(
                overrides=("method=x",), metrics=metrics, weight=3.0, error=None, seconds=1
            )
    for last in ("x1", "x10", "seed_1", "seed_2"):
        found[f"methods/vkd/{last}"] = Outcome(overrides=(), metrics={}, weight=None, error="does | fit", seconds=0)
    return found


def test_rows_come_back_from_the_file(tmp_path: Path) -> None:
    written = rows(STUDY, outcomes(tmp_path / "runs"))
    write_results(tmp_path, written)
    found = read_results(tmp_path)
    assert [row for row in found if not math.isnan(row.weight)] == [r for r in written if not math.isnan(r.weight)]
    assert [row.status for row in found].count("failed") == 4
    assert {row.trial for row in found if row.entry == "mse" and row.kind == "test"} == {"x10"}
    assert all(row.edge for row in found if row.entry == "mse" and row.kind == "test")


def test_comparisons_are_paired_by_seed_and_half_sample(tmp_path: Path) -> None:
    results = rows(STUDY, outcomes(tmp_path))
    first, *_ = found = compare(STUDY, results, runs=tmp_path)
    assert [(each.entry, each.against, each.seeds) for each in found] == [
        ("mse", "supervised", 2), ("supervised", "mse", 2)
    ]  # fmt: skip
    halves = {
        name: np.stack([np.load(tmp_path / f"methods/{name}/seed_{seed}/{table.HALVES}") for seed in (1, 2)])
        for name in ("mse", "supervised")
    }
    expected = paired_difference(
        np.array([56.0, 57.0]),
        np.array([46.0, 47.0]),
        subsampled_SR=100 * halves["mse"],
        other_subsampled_SR=100 * halves["supervised"],
    )
    assert first.difference == expected
    assert first.difference.mean == 10
    assert first.holm == pytest.approx(expected.p)


def test_the_page_is_made_of_the_files_alone(tmp_path: Path) -> None:
    results = rows(STUDY, outcomes(tmp_path / "runs"))
    write_results(tmp_path, results)
    write_comparisons(tmp_path, compare(STUDY, results, runs=tmp_path / "runs"))
    for path in (tmp_path / "runs").rglob("*.npz"):
        path.unlink()
    (tmp_path / "README.md").write_text(README)
    page.write(STUDY, folder=tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "| Methods | 6 of 6 | 6 of 6 | 4 |" in text
    assert "old" not in text
    line = next(line for line in text.splitlines() if line.startswith("| mse |"))
    assert "| x10 (edge) | 56.50 ± 0.71 (2) | +10.00 [" in line
    assert "| methods | vkd | x1 | does / fit |" in text
    forest = (tmp_path / "methods_forest.svg").read_bytes()
    page.write(STUDY, folder=tmp_path)
    assert (tmp_path / "README.md").read_text() == text
    assert (tmp_path / "methods_forest.svg").read_bytes() == forest
    assert (tmp_path / "methods_trials.svg").exists()


def test_the_clock_matched_table_interpolates_supervision() -> None:
    def row(entry: str, seed: int, score: float, seconds: float) -> Row:
        return Row(
            part="methods" if entry in ("supervised", "cam_kd") else "supervision",
            entry=entry, family="maps" if entry == "cam_kd" else "baseline", kind="test", trial="", seed=seed,
            status="done", error="", edge=False, weight=1.0, settings="",
            metrics={"test/mAP": score, "time/train_cpu_s": seconds},
        )  # fmt: skip

    found = [
        each
        for seed in (1, 2)
        for each in (
            row("supervised", seed, 60.0, 10.0),
            row("supervised_4x", seed, 70.0, 40.0),
            row("cam_kd", seed, 68.0 + seed, 20.0),  # half-way between, by the logarithm
        )
    ]
    text = page.time_table(found, first="methods")
    assert "| cam_kd | 2.00 | 65.00 | 69.50 | +4.50 [" in text
