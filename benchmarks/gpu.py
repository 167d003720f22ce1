"""All that only a GPU can show, in one command and half an hour: the tests marked gpu, then the benchmarks.

    make gpu                        # or: python benchmarks/gpu.py

Offline and with random weights. Writes benchmarks/results/gpu.md with the device's name; what fails or takes too long
is a row that says so, and the rest goes on. On a machine without a GPU it says so, and there is nothing to do.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
BUDGET = 30 * 60  # seconds


@dataclass(frozen=True, slots=True)
class Job:
    """One command, and the most seconds it may take."""

    what: str
    command: tuple[str, ...]
    seconds: int


def kd_step(*arguments: str) -> Job:
    return Job(f"kd_step.py {' '.join(arguments)}".strip(), ("benchmarks/kd_step.py", *arguments), 150)


PAIR = "model=resnet101_to_resnet34"
METHODS = "cam_kd,mld,cwd,grad_cam,l2d,crd,reviewkd"
JOBS = (
    Job("tests marked gpu", ("-m", "pytest", "-m", "gpu", "-n", "0", "-rs", "tests"), 720),
    kd_step(),
    kd_step(PAIR, "resolution=224", "batch=64"),
    kd_step(PAIR, "resolution=224", "batch=64", "precision=bf16-mixed"),
    kd_step(PAIR, "resolution=448", "batch=64", "precision=bf16-mixed"),
    Job("methods.py", ("benchmarks/methods.py", f"methods={METHODS}", "resolution=224", "batch=64"), 150),
    Job("sft.py, 7 B", ("benchmarks/sft.py", "--shape", "7b", "--rounds", "1", "--steps", "5"), 420),
    Job("generate.py, 7 B", ("benchmarks/generate.py", "--shape", "7b", "--questions", "32", "--rounds", "1"), 300),
)


def device() -> str | None:
    """Return the GPU's name and memory; None where there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    free = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{torch.cuda.get_device_name(0)}, {free:.0f} GB"


def run(job: Job, *, seconds: float, machine: str) -> tuple[str, str]:
    """Run one job; return how it ended, and the end of what it printed."""
    # Their own files hold the figures of a CPU.
    away = job.command[0] in ("benchmarks/sft.py", "benchmarks/generate.py")
    labelled = ("--machine", machine, "--out", tempfile.mkdtemp()) if away else ()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    started = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, *job.command, *labelled],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s", ""
    took = f"{time.monotonic() - started:.0f} s"
    said = done.stdout if done.returncode == 0 else f"{done.stdout}\n{done.stderr}"
    return took if done.returncode == 0 else f"FAILED after {took}", "\n".join(said.strip().splitlines()[-40:])


def main() -> None:
    name = device()
    if name is None:
        print("No CUDA device here: there is nothing to run.")
        return
    started = time.monotonic()
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "lightning", "timm", "transformers"))
    lines = [
        "# On a GPU",
        "",
        f"`make gpu` on one {name}; {platform.machine()}, {os.cpu_count()} cores; {versions}. Random weights.",
    ]
    ended = []
    for job in JOBS:
        left = BUDGET - (time.monotonic() - started)
        how, said = run(job, seconds=min(job.seconds, left), machine=name) if left > 30 else ("no time was left", "")
        print(json.dumps({"what": job.what, "ended": how}), flush=True)
        ended.append(how)
        lines += ["", f"## {job.what}: {how}", "", "```", said, "```"]
        (RESULTS / "gpu.md").write_text("\n".join(lines) + "\n")
    if any(how.startswith(("FAILED", "stopped")) for how in ended):
        sys.exit(1)


if __name__ == "__main__":
    main()
