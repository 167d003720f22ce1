"""Jobs of several processes: one torchrun a job, started by the parent that prepared it.

Lightning would re-run ``sys.argv`` for every rank, which inside a sweep starts a second sweep. Here the parent
composes, checks and prepares, and the ranks read the finished config from the run's folder.
"""

import os
import subprocess
import sys
from pathlib import Path

from tutelage.core.errors import ConfigError, RunError

RANK_ERROR = "rank_error.txt"


def inside() -> bool:
    """Tell whether this process is a rank that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def first() -> bool:
    """Tell whether this process is the only one of its job, or the one of rank 0 over all machines."""
    return int(os.environ.get("RANK", "0")) == 0 if inside() else True


def refuse_to_train_first(what: str) -> None:
    """Refuse another training among the ranks of a job: they would wait for each other in the store's lock.

    Raises:
        ConfigError: This process is a rank.
    """
    if inside():
        raise ConfigError(
            "store",
            f"{what} is not trained yet, and the processes of torchrun cannot train it first",
            "train it with one process first: the same command without torchrun, and with prepare_only=true "
            "trainer.devices=1 trainer.num_nodes=1 trainer.strategy=auto",
        )


def launch(folder: Path, *, processes: int) -> None:
    """Run the job of a prepared run folder on several processes of this machine, and wait for it.

    Raises:
        RunError: A rank failed; its output stands above.
    """
    error = folder / RANK_ERROR
    error.unlink(missing_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    done = subprocess.run([*command, "-m", "tutelage.core.run", str(folder)], env=environment, check=False)
    if done.returncode:
        said = error.read_text().strip() if error.exists() else f"a process ended with exit code {done.returncode}"
        raise RunError("trainer.devices", said, f"fix it, then continue with: python train.py run={folder}")
