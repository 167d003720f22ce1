"""A sweep from the command line: jobs of one and of several processes, one that fails, one table, typed twice."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "data.num_train=24", "data.num_val=8", "data.num_test=9", "data.batch_size=8",
    "optim.warmup=0", "trainer.max_epochs=1", "trainer.progress_bar=false", "trainer.threads=1",
]  # fmt: skip


def sweep(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    arguments = ["-m", f"hydra.sweep.dir={folder / 'sweep'}", f"store={folder / 'store'}", *SMALL, *overrides]
    return subprocess.run(
        [sys.executable, "train.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow  # a sweep of three jobs and a teacher
def test_methods_are_swept_beside_one_that_is_refused(tmp_path: Path) -> None:
    done = sweep(
        tmp_path, "method=mld,cam_kd+mld,kd", "teacher.trainer.max_epochs=1", "teacher.batch_size=8",
        "trainer.accelerator=cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with (tmp_path / "sweep" / "sweep.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["mld", "cam_kd+mld", "kd"]
    for name in ("mld", "cam_kd+mld"):
        assert rows[name]["seeds"] == "1" and not rows[name]["failures"] and float(rows[name]["test/mAP mean"]) > 0
    assert rows["mld"]["teacher/test/mAP mean"] == rows["cam_kd+mld"]["teacher/test/mAP mean"]  # one teacher
    assert rows["kd"]["seeds"] == "0" and "Choose method=mld, its counterpart" in rows["kd"]["failures"]
    assert len(list((tmp_path / "store" / "teachers").glob("*/metrics.json"))) == 1
    shown = (tmp_path / "sweep" / "sweep.md").read_text()
    assert all(f"| {name} |" in shown for name in rows) and "method=mld, its counterpart" in shown


def test_a_sweep_ends_with_one_table(tmp_path: Path) -> None:
    # An lr of 1e30 has no finite second loss.
    done = sweep(tmp_path, "method=supervised", "optim.lr=0.001,1e30", "seed=1,2")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "sweep" / "sweep.csv").open(newline="") as file:
        rows = {row["optim.lr"]: row for row in csv.DictReader(file)}
    assert rows["0.001"]["seeds"] == "2" and 0 < float(rows["0.001"]["test/mAP mean"]) < 100
    assert rows["1e+30"]["seeds"] == "0" and rows["1e+30"]["failures"].count("not finite at step 1") == 2
    assert "mean ± standard deviation" in done.stdout and "failed" in done.stdout and "Traceback" not in done.stderr
    before = (tmp_path / "sweep" / "sweep.md").read_text()

    # Typed again, finished jobs answer at once.
    stamp = (tmp_path / "sweep" / "0" / "metrics.json").stat().st_mtime_ns
    again = sweep(tmp_path, "method=supervised", "optim.lr=0.001", "seed=1,2")
    assert again.returncode == 0 and (tmp_path / "sweep" / "0" / "metrics.json").stat().st_mtime_ns == stamp
    assert before.splitlines()[2].split("|")[3] in (tmp_path / "sweep" / "sweep.md").read_text()


@pytest.mark.slow  # six processes that import torch
def test_jobs_of_several_processes_are_one_torchrun_each(tmp_path: Path) -> None:
    done = sweep(
        tmp_path,
        "method=supervised",
        "trainer=cpus",
        "seed=1,2",
        "model.student.name=test_convnext",
        "model.student.output_stride=null",
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "sweep" / "sweep.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["seeds"] == "2" and not row["failures"]
    assert not (tmp_path / "sweep" / "2").exists()  # no rank began a sweep of its own
