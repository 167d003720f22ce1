"""Fixtures that every part shares."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from tutelage.core import config

ROOT = Path(__file__).resolve().parent.parent

# train.py, killed after so many training batches of the process; {code} may change more before it starts.
KILLED = """
import os, signal, sys
from tutelage.core import callbacks
batches = 0
def end(self, *args, kept=callbacks.LastCheckpoint.on_train_batch_end, **kwargs):
    global batches
    kept(self, *args, **kwargs)
    batches += 1
    if batches == {kill_after}:
        os.kill(os.getpid(), signal.SIGKILL)
callbacks.LastCheckpoint.on_train_batch_end = end
{code}
sys.argv[0] = "train.py"
exec(open("train.py").read())
"""


def script(*overrides: str, code: str = "", kill_after: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run train.py in a process of its own, and kill it after so many training batches of this process."""
    return subprocess.run(
        [sys.executable, "-c", KILLED.format(code=code, kill_after=kill_after), *overrides],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def train_script() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The function `script`."""
    return script


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data (Spider, BIRD, COCO images), which the project never ships."""
    folder = Path(os.environ.get("TUTELAGE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set TUTELAGE_DATA to the folder that holds spider/, bird/, coco_mini/")
    return folder


@pytest.fixture(scope="session")
def compose_below() -> Callable[[Path], Callable[..., DictConfig]]:
    """The function `compose_config` with the store below a folder: for runs that the tests of a module share."""
    config.register()

    def below(folder: Path) -> Callable[..., DictConfig]:
        def composed(*overrides: str, primary: str = "config") -> DictConfig:
            GlobalHydra.instance().clear()
            with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
                return compose(primary, overrides=[f"run={folder / 'run'}", f"store={folder / 'store'}", *overrides])

        return composed

    return below


@pytest.fixture
def compose_config(
    compose_below: Callable[[Path], Callable[..., DictConfig]], tmp_path: Path
) -> Callable[..., DictConfig]:
    """Compose conf/config.yaml with overrides, as train.py does, with the store in the test's own folder."""
    return compose_below(tmp_path)
