"""How long a person waits: for --help, for the config, for the first training step.

python benchmarks/startup.py
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 5


def seconds(*arguments: str) -> float:
    """Run train.py and return its wall time."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "train.py", *arguments], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        # One step of a student alone, on a batch of scenes: start, imports, data, set-up and the step itself.
        scenes = ["data.num_train=32", "data.num_val=1", "data.num_test=1"]
        options = ["trainer.max_steps=1", "trainer.progress_bar=false", f"store={folder}/store"]
        first_step = ["method=supervised", *scenes, *options]
        cases = {
            "bare interpreter": lambda i: _bare(),
            "--help": lambda i: seconds("--help"),
            "--cfg job": lambda i: seconds("--cfg", "job"),
            "to the end of a run of one step": lambda i: seconds(*first_step, f"run={folder}/{i}"),
        }
        for name, measure in cases.items():
            times = [measure(i) for i in range(REPEATS)]
            print(
                json.dumps(
                    {"what": name, "median_s": round(statistics.median(times), 2), "min_s": round(min(times), 2)}
                )
            )


def _bare() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", ""], check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
