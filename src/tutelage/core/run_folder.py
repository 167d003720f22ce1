"""A run's folder: its config, its lock and its checkpoints."""

import functools
import inspect
import pickle
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tutelage.core import build, launch, results
from tutelage.core.callbacks import BEST, CHECKPOINTS
from tutelage.core.config import CONF, Config, TrainerConfig
from tutelage.core.errors import ConfigError, RunError
from tutelage.core.store import write_atomically

CONFIG = Path(".hydra") / "config.yaml"
EVALUATIONS = "evaluations"  # scores of a finished run that were taken with other settings than its own
LOCK = ".lock"
_TARGET = re.compile(r"_target_: *([\w.]+)")


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep a run's folder, made where it is missing, to this process. The lock goes with the process.

    Two processes that train in one folder would overwrite each other's checkpoints.

    Raises:
        RunError: Another process has it.
        ConfigError: The folder cannot be written.
    """
    if launch.inside():  # the parent has it
        yield
        return
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise RunError(
            "run", f"another process is training in {folder}", "wait for its end, or give another folder with run="
        ) from None
    except OSError as error:
        raise unwritable(folder, error) from None
    try:
        yield
    finally:
        lock.release()


def save_config(cfg: DictConfig, folder: Path) -> None:
    """Make the folder and keep the config there, with every interpolation resolved.

    Raises:
        ConfigError: The folder cannot be written.
    """
    path = folder / CONFIG
    resolved = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, OmegaConf.to_yaml(resolved))
        overrides = path.with_name("overrides.yaml")
        if not overrides.exists():
            write_atomically(overrides, "[]\n")
    except OSError as error:
        raise unwritable(folder, error) from None


def unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError("run", f"cannot write into {folder} ({error.strerror})", "give another folder")


def load_config(folder: Path, *, trusted: Collection[str] | None = ()) -> DictConfig:
    """Read a run's config.

    A folder may come from somebody else, and a ``_target_`` names code that will be called. So only what this
    project's own configs name, and classes of the project, are taken, unless the user trusts a package.

    Args:
        folder: The run's.
        trusted: Packages that targets may also name (``trust=my_package``). None takes every target: for ranks of a
            job whose config this user has just composed.

    Raises:
        ConfigError: No run, one of another version, or a target that is not trusted.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError("run", f"{folder} is not a run folder (it has no {CONFIG})", "give the folder of a run")
    try:
        saved = OmegaConf.load(path)
    except (OSError, YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError("run", f"{path} cannot be read ({_first_line(error)})", "give another run's folder") from None
    if not isinstance(saved, DictConfig) or "task" not in saved:
        raise ConfigError("run", f"{path} is not the config of a run", "give the folder that train.py named")
    gone = [str(key) for key in saved if key not in Config.__dataclass_fields__]
    if isinstance(saved.get("trainer"), DictConfig):
        gone += [f"trainer.{key}" for key in saved.trainer if key not in TrainerConfig.__dataclass_fields__]
    if gone:
        what = f"{folder} has keys that this version does not know: {', '.join(gone)}"
        raise ConfigError("run", what, _other_version(folder))
    if trusted is not None:
        _check_targets(saved, folder=folder, trusted=trusted)
    try:
        cfg = OmegaConf.merge(OmegaConf.structured(Config), saved)
    except OmegaConfBaseException as error:
        what = f"{path} does not fit this version ({_first_line(error)})"
        raise ConfigError("run", what, _other_version(folder)) from None
    assert isinstance(cfg, DictConfig)
    return cfg


def _check_targets(saved: DictConfig, *, folder: Path, trusted: Collection[str]) -> None:
    ours = _targets_of_conf()
    moved = []
    for where, target in _targets(OmegaConf.to_container(saved), ""):
        if target in ours:
            continue
        package = target.split(".")[0].split(":")[0]
        if package in trusted:
            continue
        if package != "tutelage":
            raise ConfigError(
                "run",
                f"{folder} names code of another package, {where}._target_={target}, which would be called",
                f"if you know this run and trust {package}, add trust={package}",
            )
        try:
            found = build.locate({"_target_": target}, where=where)
        except ConfigError:
            name = target.rsplit(".", 1)[-1]
            now = [known for known in sorted(ours) if known.rsplit(".", 1)[-1] == name]
            moved.append(f"{where}._target_={target} is {f'now {now[0]}' if now else 'gone'}")
            continue
        # A name may lead out of the package (tutelage.core.launch.os.system), and functions may write anywhere.
        if not inspect.isclass(found) or found.__module__.split(".")[0] != "tutelage":
            raise ConfigError(
                "run",
                f"{folder} names {where}._target_={target}, which is not a class of this project",
                "do not use this run",
            )
    if moved:
        raise ConfigError("run", f"{folder} was made by another version: {'; '.join(moved)}", _other_version(folder))


@functools.cache
def _targets_of_conf() -> frozenset[str]:
    """Return every target that the files of conf/ name. They are searched as text: parsing takes half a second."""
    found = (_TARGET.findall(path.read_text(encoding="utf-8")) for path in CONF.rglob("*.yaml"))
    return frozenset(target for targets in found for target in targets)


def _targets(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield where, str(value["_target_"])
        for key, child in value.items():
            yield from _targets(child, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _targets(child, f"{where}.{index}")


def _other_version(folder: Path) -> str:
    try:
        commit = results.read_json(folder / results.MANIFEST).get("git")
    except (OSError, ValueError):
        commit = None
    use = f"use the version that made it (git {commit})" if commit else "use the version that made it"
    return f"{use}, or correct {folder / CONFIG}"


def best_checkpoint(folder: Path) -> Path:
    """Return the checkpoint that validation picked.

    Raises:
        RunError: There is none.
    """
    path = folder / CHECKPOINTS / BEST
    if not path.exists():
        raise RunError(str(path), "no such checkpoint", f"train the run again: python train.py run={folder}")
    return path


def task_of(path: Path) -> str | None:
    """Return ``task._target_`` of the run in whose folder a file lies; None where it lies in none."""
    for folder in path.absolute().parents[:2]:
        config = folder / CONFIG
        if config.is_file():
            target = OmegaConf.select(OmegaConf.load(config), "task._target_")
            return None if target is None else str(target)
    return None


def check_checkpoint(path: Path, *, task: str) -> None:
    """Refuse a file that is no whole checkpoint of a task, before training is set up around it.

    Raises:
        RunError: The file is cut off, of another task, or something else.
    """
    hint = f"delete {path} to start over; {BEST} beside it, if there, is not touched"
    content = read_checkpoint(path, hint=hint)
    if not {"state_dict", "loops", "optimizer_states"} <= content.keys():
        raise RunError(str(path), "not a checkpoint of a run", hint)
    theirs = content.get("callbacks", {}).get("LastCheckpoint", {}).get("task", task)
    if theirs != task:
        raise RunError(str(path), f"a checkpoint of {theirs}, and this is a run of {task}", hint)


def read_checkpoint(path: Path, *, hint: str) -> dict[str, Any]:
    """Read a checkpoint of plain values and tensors; nothing in it is executed.

    Raises:
        RunError: It is cut off, or something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise RunError(str(path), f"not a whole checkpoint ({_first_line(error)})", hint) from None
    if not isinstance(content, dict) or "state_dict" not in content:
        raise RunError(str(path), "not a checkpoint of a run", hint)
    return content


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
