"""Two machines, as two torchruns on this one: pytest -m slow tests/multilabel/test_two_nodes.py."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tutelage.core.results import read_metrics

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "data.num_train=40", "data.num_val=12", "data.num_test=15", "data.batch_size=8", "trainer.max_epochs=2",
    "trainer.accelerator=cpu", "trainer.progress_bar=false", "trainer.log_every_n_steps=1", "trainer.threads=1",
]  # fmt: skip
ONE = ["trainer.devices=1", "trainer.num_nodes=1", "trainer.strategy=auto"]
TWO = ["trainer.devices=1", "trainer.num_nodes=2", "trainer.strategy=ddp"]
Script = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.slow


# train.py, of which each process is killed in its second epoch.
KILLED = """
import os, signal, sys
from tutelage.core import callbacks
batches = 0
def end(self, *args, kept=callbacks.LastCheckpoint.on_train_batch_end, **kwargs):
    global batches
    kept(self, *args, **kwargs)
    batches += 1
    if batches == 7:
        os.kill(os.getpid(), signal.SIGKILL)
callbacks.LastCheckpoint.on_train_batch_end = end
exec(open("train.py").read())
"""


def two_nodes(*overrides: str, program: str = "train.py") -> list[tuple[int, str]]:
    """Run train.py under one torchrun a node, and return each node's exit code and output."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src"), "GLOO_SOCKET_IFNAME": "lo"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    nodes = [
        subprocess.Popen(
            [*torchrun, f"--node-rank={node}", "--master-addr=127.0.0.1", f"--master-port={port}", program, *overrides],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for node in range(2)
    ]  # fmt: skip
    outputs = [node.communicate()[0] for node in nodes]
    return [(node.returncode, output) for node, output in zip(nodes, outputs, strict=True)]


def scores(folder: Path) -> dict[str, float]:
    metrics = read_metrics(folder)
    assert metrics is not None
    return {name: float(value) for name, value in metrics.items() if "time/" not in name and "memory/" not in name}


def student(folder: Path) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {name: value for name, value in content.items() if value.is_floating_point()}


def difference(one: Path, two: Path) -> float:
    """Return the largest difference of any weight."""
    ours, theirs = student(one), student(two)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def test_two_nodes_train_test_and_resume(tmp_path: Path, train_script: Script) -> None:
    settings = [*SMALL, "method=supervised", f"store={tmp_path / 'store'}"]
    whole, stopped, one_machine = tmp_path / "whole", tmp_path / "stopped", tmp_path / "one_machine"
    for code, output in two_nodes(*settings, *TWO, f"run={whole}"):
        assert code == 0, output
    assert {"metrics.json", "predictions.npz", "items.csv", "report.html"} <= {path.name for path in whole.iterdir()}
    assert len((whole / "items.csv").read_text().splitlines()) == 16  # each test picture once, of both nodes

    # Two processes of one machine, which test_runs.py holds to one process.
    other = train_script(*settings, "trainer.devices=2", "trainer.strategy=ddp", f"run={one_machine}")
    assert other.returncode == 0, other.stdout + other.stderr
    assert difference(whole, one_machine) < 1e-5
    assert scores(whole) == pytest.approx(scores(one_machine), abs=1e-3)

    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    for code, output in two_nodes(*settings, *TWO, f"run={stopped}", program=str(program)):
        assert code != 0, output
    assert (stopped / "checkpoints" / "last.ckpt").exists() and not (stopped / "metrics.json").exists()
    for code, output in two_nodes(*settings, *TWO, f"run={stopped}"):  # the whole command again
        assert code == 0, output
    assert difference(whole, stopped) == 0
    assert scores(stopped) == scores(whole)


def test_a_teacher_is_prepared_with_one_process(tmp_path: Path, train_script: Script) -> None:
    settings = [*SMALL, "method=cam_kd", f"store={tmp_path / 'store'}", f"run={tmp_path / 'run'}"]
    for code, output in two_nodes(*settings, *TWO):
        assert code != 0 and "the same command without torchrun, and with prepare_only=true" in output, output
    prepared = train_script(*settings, *ONE, "prepare_only=true")
    assert prepared.returncode == 0 and "prepared: " in prepared.stdout, prepared.stdout + prepared.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()
    for code, output in two_nodes(*settings, *TWO):
        assert code == 0 and "First the teacher" not in output, output
    assert scores(tmp_path / "run")["teacher/test/mAP"] > 0
