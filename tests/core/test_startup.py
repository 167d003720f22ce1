"""What a program settles before torch is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from tutelage.core import batches, startup

SRC = Path(startup.__file__).parents[2]


def python(code: str, *, path: Path | None = None) -> str:
    """Run code in a new interpreter, with another folder first on its path, and return what it prints."""
    folders = [str(folder) for folder in (path, SRC) if folder is not None]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow  # a process that imports all of torch, torchmetrics and wandb
def test_what_a_run_does_not_use_is_loaded_when_it_is_asked_for() -> None:
    unused = ("transformers", "scipy", "sklearn", "torchmetrics.functional", "torchmetrics.image", "wandb.sdk")
    said = python(
        f"""
import sys
from tutelage.core import startup
startup.prepare()
import tutelage.core.run, tutelage.multilabel.task, tutelage.multilabel.data.digits
print([name for name in {unused} if name in sys.modules])
import torch, torchmetrics, lightning.pytorch, wandb
assert issubclass(lightning.pytorch.LightningModule, torch.nn.Module)
print(torchmetrics.functional.accuracy(torch.tensor([0, 1]), torch.tensor([0, 0]), task="binary").item())
print(torchmetrics.Accuracy.__module__, callable(wandb.init))
"""
    )
    assert said.splitlines() == ["[]", "0.5", "torchmetrics.classification.accuracy True"]


def test_another_torchmetrics_is_imported_whole(tmp_path: Path) -> None:
    (tmp_path / "torchmetrics").mkdir()
    (tmp_path / "torchmetrics" / "__init__.py").write_text("Metric = 'of another release'\n")
    said = python(
        "import sys; from tutelage.core import startup; startup.defer_torchmetrics()\n"
        "print('torchmetrics' in sys.modules); from torchmetrics import Metric; print(Metric)",
        path=tmp_path,
    )
    assert said.splitlines() == ["False", "of another release"]


def test_a_deferred_package_runs_before_its_modules_and_for_its_names(tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "__init__.py").write_text("print('package'); value = 7\n")
    (tmp_path / "wandb" / "part.py").write_text("print('part')\n")
    start = "from tutelage.core import startup; startup.defer('wandb'); import wandb; print('imported')\n"
    assert python(f"{start}print(wandb.value)", path=tmp_path).split() == ["imported", "package", "7"]
    assert python(f"{start}import wandb.part", path=tmp_path).split() == ["imported", "package", "part"]
    assert python("from tutelage.core import startup; startup.defer('no_such_package')") == ""


@pytest.mark.parametrize(
    ("file", "content", "quota"),
    [
        ("cpu.max", "150000 100000\n", 1.5),
        ("cpu.max", "max 100000\n", None),
        ("cpu/cpu.cfs_quota_us", "50000\n", 0.5),
        ("cpu/cpu.cfs_quota_us", "-1\n", None),
        ("other", "", None),
    ],
)
def test_cores_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: str, quota: float | None
) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / file).write_text(content)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert startup._cgroup_quota(tmp_path) == quota
    monkeypatch.setattr(startup, "_cgroup_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert startup.cores() == {1.5: 2, 0.5: 1, None: 8}[quota]


@pytest.mark.parametrize(
    ("file", "content", "limit"),
    [("memory.max", "1000000\n", 10**6), ("memory.max", "max\n", None), ("memory/memory.limit_in_bytes", "5\n", 5)],
)
def test_memory_of_a_container(tmp_path: Path, file: str, content: str, limit: int | None) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / file).write_text(content)
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert startup.memory(root=tmp_path) == (whole if limit is None else limit)


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: tuple[int, int]) -> int:
        return key[0]


def test_there_are_never_more_loader_processes_than_cores(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(startup, "cores", lambda: 4)
    assert [startup.loader_processes(asked) for asked in (0, 3, 64)] == [0, 3, 4]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert startup.loader_processes(64) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert startup.loader_processes(64) == 1
    monkeypatch.undo()
    loader = batches.make_loader(Numbers(), batches=[[(0, 0), (1, 0)]], collate=torch.tensor, workers=1000)
    assert loader.num_workers == startup.cores() and not recwarn.list  # torch warns of too many workers
