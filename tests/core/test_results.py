"""Tables over a sweep: seeds together, failures named."""

import csv
import json
from pathlib import Path

import pytest

from tutelage.core.results import (
    format_value,
    markdown_table,
    mean_and_std,
    print_table,
    read_metrics,
    sweep_rows,
    write_sweep,
)


def job(folder: Path, overrides: list[str], *, metrics: dict[str, float] | None = None, failure: str = "") -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {override}\n" for override in overrides) or "[]\n")
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    if failure:
        (folder / "failure.json").write_text(json.dumps({"error": failure}))
    return folder


@pytest.fixture
def jobs(tmp_path: Path) -> list[Path]:
    common = ["trainer.max_epochs=2"]
    return [
        job(tmp_path / "0", [*common, "method=supervised", "seed=1"], metrics={"test/mAP": 60.0, "time/train_s": 5}),
        job(tmp_path / "1", [*common, "method=supervised", "seed=2"], metrics={"test/mAP": 62.0, "time/train_s": 7}),
        job(tmp_path / "2", [*common, "method=cam_kd", "seed=1"], metrics={"test/mAP": 64.0, "time/train_s": 9}),
        job(tmp_path / "3", [*common, "method=cam_kd", "seed=2"], failure="train/loss: not finite"),
        job(tmp_path / "4", [*common, "method=mld", "seed=1"]),
    ]


def test_rows_are_runs_that_differ_in_their_seed_alone(jobs: list[Path]) -> None:
    rows = sweep_rows(jobs)
    assert [(row.choices["method"], row.seeds) for row in rows] == [("supervised", 2), ("cam_kd", 1), ("mld", 0)]
    assert rows[0].metrics == {"test/mAP": [60.0, 62.0], "time/train_s": [5.0, 7.0]}
    assert rows[1].failures == ("3: train/loss: not finite",)
    assert rows[2].failures == ("4: stopped before its end",)


def test_the_table_has_mean_and_deviation_and_says_what_failed(jobs: list[Path], tmp_path: Path) -> None:
    markdown = write_sweep(tmp_path, jobs=jobs, headline=["test/mAP", "test/none"])
    assert markdown.splitlines() == [
        "| method | seeds | test/mAP |",
        "| --- | --- | --- |",
        "| supervised | 2 | 61.00 ± 1.41 |",
        "| cam_kd | 1 | 64.00 |",
        "| mld | 0 | — |",
        "",
        "failed: trainer.max_epochs=2, method=cam_kd: 3: train/loss: not finite",
        "",
        "failed: trainer.max_epochs=2, method=mld: 4: stopped before its end",
    ]
    assert (tmp_path / "sweep.md").read_text() == markdown
    with (tmp_path / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["test/mAP mean"]) == 61 and float(rows[0]["test/mAP std"]) == pytest.approx(2**0.5)
    assert rows[1]["test/mAP std"] == "" and rows[1]["failures"] == "3: train/loss: not finite"
    assert "trainer.max_epochs" not in rows[0]  # the same in every row


def test_one_value_has_no_deviation() -> None:
    assert mean_and_std([3.0]) == (3.0, None)
    assert mean_and_std([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))


def test_numbers_have_the_digits_of_a_table() -> None:
    assert [format_value(value) for value in (61.2345, 0.01234, 7, "x")] == ["61.23", "0.0123", "7", "x"]
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


def test_a_run_without_metrics_is_not_finished(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) is None


def test_a_table_in_a_log_file_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    columns = ["run", *(f"test/score_{number}" for number in range(12))]
    print_table("many scores", columns, [["a", *(f"{number}.125 ± 0.250" for number in range(12))]])
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert [line for line in printed.splitlines() if "test/score_0" in line and "test/score_11" in line]
    assert "11.125 ± 0.250" in printed
    print_table("t", ["a"], [["1"]], caption=f"/{'long' * 40}/report.html")
    assert f"/{'long' * 40}/report.html" in capsys.readouterr().out.splitlines()
