"""How long a person waits: for --help, for the config, for the first training step.

python benchmarks/startup.py [repeats=5]     # writes benchmarks/results/startup.{json,md}

The first step is measured with and without core/startup.py's deferred imports, in turns.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
# train.py, ended after its first training step; {prepare} is what comes before the imports.
FIRST_STEP = """
import os, sys
from tutelage.core import startup
{prepare}
from tutelage.core import callbacks
callbacks.LastCheckpoint.on_train_batch_end = lambda *args, **kwargs: os._exit(0)
sys.argv[0] = "train.py"
exec(open("train.py").read())
"""


def seconds(*command: str) -> float:
    """Run Python and return its wall time."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def measure(repeats: int, folder: Path) -> list[dict[str, object]]:
    # A student alone on one batch of scenes: start, imports, data, set-up, and the step.
    scenes = ["data.num_train=32", "data.num_val=1", "data.num_test=1"]
    run = ["method=supervised", *scenes, "trainer.max_steps=1", "trainer.progress_bar=false", f"store={folder}/store"]
    whole = FIRST_STEP.format(prepare="startup.prepare = lambda: None")
    deferred = FIRST_STEP.format(prepare="startup.prepare()")
    cases: dict[str, Callable[[int], float]] = {
        "a bare interpreter": lambda i: seconds("-c", ""),
        "`--help`": lambda i: seconds("train.py", "--help"),
        "`--cfg job`": lambda i: seconds("train.py", "--cfg", "job"),
        "`import torch, torch._dynamo`: any optimiser of torch needs both": lambda i: seconds(
            "-c", "import torch, torch._dynamo"
        ),
        "to the first training step, everything imported whole": lambda i: seconds(
            "-c", whole, *run, f"run={folder}/whole-{i}"
        ),
        "to the first training step": lambda i: seconds("-c", deferred, *run, f"run={folder}/first-{i}"),
        "to the end of a run of one step": lambda i: seconds("train.py", *run, f"run={folder}/end-{i}"),
    }
    times = [{name: case(i) for name, case in cases.items()} for i in range(repeats)]
    return [
        {
            "what": name,
            "median_s": round(statistics.median(t[name] for t in times), 2),
            "min_s": round(min(t[name] for t in times), 2),
        }
        for name in cases
    ]


def main() -> None:
    arguments = dict(argument.split("=", 1) for argument in sys.argv[1:])
    repeats, out = int(arguments.get("repeats", 5)), Path(arguments.get("out", RESULTS))
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(repeats, Path(folder))
    machine = f"{os.cpu_count()}-core {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    versions = {name: version(name) for name in ("torch", "lightning", "torchmetrics", "timm")}
    out.mkdir(exist_ok=True)
    (out / "startup.json").write_text(
        json.dumps({"machine": machine, "repeats": repeats, "versions": versions, "rows": rows}, indent=2) + "\n"
    )
    lines = [
        f"`python benchmarks/startup.py` on a {machine}; "
        f"{', '.join(f'{name} {number}' for name, number in versions.items())}. Seconds, {repeats} repeats in turns.",
        "",
        "| | median | least |",
        "|---|---|---|",
        *(f"| {row['what']} | {row['median_s']} | {row['min_s']} |" for row in rows),
    ]
    (out / "startup.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
