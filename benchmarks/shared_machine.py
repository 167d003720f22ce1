"""How much longer `make train` takes on a machine that others use: beside busy processes, over beside none.

python benchmarks/shared_machine.py [busy=3] [repeats=3] [key=value …]   # writes results/shared_machine.{json,md}

Needs a machine that is otherwise idle, or both figures mean nothing. The busy processes count, one a process, as fast
as they can. Further key=value go to train.py; without any it is the run of `make train`, teacher included.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
TARGET = 2.5
BUSY = "import os, time\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100000))\n"


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep so many processes counting."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def seconds(folder: Path, overrides: list[str]) -> float:
    """Train from an empty store and return the wall time."""
    command = [sys.executable, "train.py", "trainer.progress_bar=false", f"run={folder}/run", f"store={folder}/store"]
    # What make train's user has: nobody has chosen a number of threads.
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    started = time.perf_counter()
    subprocess.run([*command, *overrides], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    options = {"busy": "3", "repeats": "3", "out": str(RESULTS)}
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    overrides = [f"{key}={value}" for key, value in given.items() if key not in options]
    options |= {key: value for key, value in given.items() if key in options}
    busy, repeats, out = int(options["busy"]), int(options["repeats"]), Path(options["out"])
    alone, beside = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            alone.append(seconds(Path(folder), overrides))
        with tempfile.TemporaryDirectory() as folder, busy_processes(busy):
            beside.append(seconds(Path(folder), overrides))
    row = {
        "machine": f"{os.cpu_count()}-core {platform.machine()}",
        "busy_processes": busy,
        "overrides": overrides,
        "alone_s": round(statistics.median(alone), 1),
        "beside_s": round(statistics.median(beside), 1),
        "ratio": round(statistics.median(b / a for a, b in zip(alone, beside, strict=True)), 2),
        "ratios": [round(b / a, 2) for a, b in zip(alone, beside, strict=True)],
        "target": TARGET,
    }
    out.mkdir(exist_ok=True)
    (out / "shared_machine.json").write_text(json.dumps(row, indent=2) + "\n")
    text = (
        f"`python benchmarks/shared_machine.py {' '.join(sys.argv[1:])}`".replace(" `", "`")
        + f" on a {row['machine']}, otherwise idle. Medians of {repeats} pairs.\n\n"
        f"| busy processes beside it | alone, s | beside them, s | beside ÷ alone | target |\n|---|---|---|---|---|\n"
        f"| {busy} | {row['alone_s']} | {row['beside_s']} | **{row['ratio']}** | {TARGET} |\n"
    )
    (out / "shared_machine.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
