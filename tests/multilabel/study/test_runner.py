"""A study in small: it goes on after a kill, trains nothing twice, and counts failures as rows."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tutelage.core.errors import RunError
from tutelage.multilabel.results.comparison import read_predictions
from tutelage.multilabel.study import runner
from tutelage.multilabel.study.table import read_results

ROOT = Path(__file__).resolve().parents[3]
STUDY = """
from pathlib import Path
from tutelage.multilabel.study.command import main
from tutelage.multilabel.study.plan import Entry, Part, Study, Trial

RATES = (Trial(name="lr0.003", overrides=("optim.lr=0.003",)),)
WEIGHTS = (Trial(name="x1", factor=1), Trial(name="x3", factor=3))
ENTRIES = (
    Entry(name="supervised", family="baseline", overrides=("method=supervised",), trials=RATES),
    Entry(name="mse", family="logits", overrides=("method=mse",), trials=WEIGHTS),
    Entry(name="kd", family="logits", overrides=("method=kd",), trials=WEIGHTS),  # a softmax: refused
)
STUDY = Study(
    name="tiny",
    overrides=(
        "data=digits", "data.num_train=64", "data.num_val=32", "data.num_test=32", "data.batch_size=16",
        "trainer=cpu", "trainer.threads=1", "trainer.max_epochs=2", "teacher.trainer.max_epochs=1",
        "teacher.batch_size=16", "trainer.log_every_n_steps=1", "store={store}",
    ),
    selection_seed=0,
    parts=(Part(name="methods", title="Methods", entries=ENTRIES, seeds=(1,)),),
    baselines=("supervised",),
)
main(STUDY, folder=Path("{folder}"))
"""


def start(folder: Path) -> subprocess.Popen[str]:
    script = folder / "run.py"
    script.write_text(STUDY.format(store=folder / "store", folder=folder))
    return subprocess.Popen(
        [sys.executable, str(script), str(folder / "runs")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_killed_study_goes_on_and_trains_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("<!-- failures -->\n<!-- end -->\n")
    killed = start(tmp_path)
    half_way = tmp_path / "runs/methods/mse/x1/checkpoints/last.ckpt"
    while not half_way.exists() and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    ended = tmp_path / "runs/methods/supervised/lr0.003/outcome.json"
    before = ended.stat().st_mtime_ns
    assert not (tmp_path / "runs/methods/mse/x1/outcome.json").exists()

    again = start(tmp_path)
    said, _ = again.communicate()
    assert again.returncode == 0, said
    assert ended.stat().st_mtime_ns == before
    assert "7/8  methods/mse/seed_1  test/mAP" in said  # the eighth, kd's, has no settings to be run with

    found = read_results(tmp_path)
    assert [(row.entry, row.trial if row.kind == "trial" else row.seed, row.status) for row in found] == [
        ("supervised", "lr0.003", "done"),
        ("mse", "x1", "done"),
        ("kd", "x1", "failed"),
        ("mse", "x3", "done"),
        ("kd", "x3", "failed"),
        ("supervised", 1, "done"),
        ("mse", 1, "done"),
        ("kd", 1, "failed"),
    ]
    one, three = (next(row for row in found if row.entry == "mse" and row.trial == name) for name in ("x1", "x3"))
    assert three.weight == pytest.approx(3 * one.weight, rel=1e-4)
    assert "force_softmax" in next(row.error for row in found if row.entry == "kd")
    assert "| methods | kd | x1 | ConfigError:" in (tmp_path / "README.md").read_text()

    # The test runs saw the test split, the trials did not.
    assert "test/mAP" not in one.metrics
    assert len(read_predictions(tmp_path / "runs/methods/mse/x1").ids_N) == 32
    supervised = read_predictions(tmp_path / "runs/methods/supervised/seed_1")
    assert np.array_equal(supervised.targets_NK, read_predictions(tmp_path / "runs/methods/mse/seed_1").targets_NK)


def test_a_failure_under_changed_code_is_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise ValueError(f"no such key in {tmp_path / 'x1'}/config.yaml")

    monkeypatch.setattr(runner, "composed", fails)
    states = iter(["before", "after", "same", "same"])
    monkeypatch.setattr(runner, "code_state", lambda: next(states))
    with pytest.raises(RunError, match="the code changed"):
        runner.run_one([], own=(), folder=tmp_path / "x1")
    assert not (tmp_path / "x1" / runner.OUTCOME).exists()
    outcome = runner.run_one([], own=("seed=1",), folder=tmp_path / "x1")
    assert outcome.error == "ValueError: no such key in config.yaml"
    assert (tmp_path / "x1" / runner.OUTCOME).exists()
