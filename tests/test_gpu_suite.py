"""`make gpu`, as far as a machine without a GPU can show it."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUITE = ROOT / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def suite() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_suite", SUITE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_suite"] = module  # its dataclass looks there
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_says_so_and_ends_well() -> None:
    rule = re.search(r"^gpu:.*\n\t(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert rule is not None and rule[1] == "$(BIN)/python benchmarks/gpu.py"
    written = (ROOT / "benchmarks" / "results" / "gpu.md").exists()
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py"], cwd=ROOT, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "No CUDA device here: there is nothing to run."
    assert (ROOT / "benchmarks" / "results" / "gpu.md").exists() == written


def test_its_jobs_are_there_and_take_their_arguments(suite: ModuleType) -> None:
    scripts = [job for job in suite.JOBS if job.command[0] != "-m"]
    assert len(scripts) >= 7
    for job in scripts:
        text = (ROOT / job.command[0]).read_text()
        for argument in job.command[1:]:
            name = argument.split("=")[0]
            if argument.startswith("--") or "=" in argument:
                assert f'"{name}"' in text or re.search(rf"^ +{name}: ", text, re.MULTILINE), f"{job.what}: {argument}"
    for name in suite.METHODS.split(","):
        assert (ROOT / "conf" / "method" / f"{name}.yaml").is_file()


def test_a_job_that_fails_or_takes_too_long_is_a_row(suite: ModuleType) -> None:
    ways = {
        "print(7)": (r"^0 s$", "7"),
        "import sys; print('so far'); sys.exit('broken')": (r"^FAILED after 0 s$", "so far\n\nbroken"),
        "import time; time.sleep(60)": (r"^stopped after 1 s$", ""),
    }
    for code, (how, said) in ways.items():
        seconds = 1 if "sleep" in code else 60
        ended, printed = suite.run(suite.Job("try", ("-S", "-c", code), 60), seconds=seconds, machine="none")
        assert re.match(how.replace("0 s", r"\d+ s"), ended) and printed.strip() == said.strip(), code
