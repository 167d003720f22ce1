"""The command line: Hydra, with errors that say which key, and what would have been right.

Everything is composed once before Hydra's own run begins, so that a slip is answered in one line, before a folder
is made. ``HYDRA_FULL_ERROR=1`` shows tracebacks.
"""

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tutelage.core import config, launch
from tutelage.core.arguments import split_names
from tutelage.core.config import CONF
from tutelage.core.errors import ConfigError, RunError, UserError
from tutelage.core.overrides import parse

Job = Callable[[DictConfig, Path], Any]
# These answer a question about the config, and run nothing.
QUESTIONS = {
    "--help",
    "-h",
    "--hydra-help",
    "--version",
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--resolve",
    "--package",
    "-p",
    "--shell-completion",
    "-sc",
}


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """The command line of a program that was given ``run=<folder of a run>``.

    Attributes:
        folder: The run's.
        trusted: Packages whose code its config may name (``trust=my_package``).
        overrides: What else was typed.
    """

    folder: Path
    trusted: tuple[str, ...]
    overrides: tuple[str, ...]


def main(
    config_name: str,
    job: Job,
    *,
    of_run: Callable[[FinishedRun], Any] | None = None,
    of_two: Callable[[FinishedRun, Path], Any] | None = None,
    groups: Mapping[str, str | None] | None = None,
) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and hand it to a job.

    Args:
        config_name: The primary config.
        job: Takes the config and the run's folder. Its value is what a sweep optimises.
        of_run: What ``run=<folder of a run>`` does instead.
        of_two: What ``run=… against=<folder of another run>`` does.
        groups: What ``--help`` lists, where the program has no use for every choice; see `help_text`.
    """
    arguments = sys.argv[1:]
    if {"--help", "-h"} & set(arguments):
        print(help_text(groups))
        return
    config.register()
    flags = {argument.split("=")[0] for argument in arguments if argument.startswith("-")}
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    sweep = bool(flags & {"-m", "--multirun"})
    try:
        config.register_combinations(overrides)
        overrides = [_expand_glob(override, overrides) for override in overrides]
        sys.argv[1:] = [*(argument for argument in arguments if argument.startswith("-")), *overrides]
        if not flags & QUESTIONS:
            if of_two is not None and any(override.startswith("against=") for override in overrides):
                of_two(*_two_runs(overrides))
                return
            if of_run is not None and not sweep and (finished := _finished_run(overrides)):
                of_run(finished)
                return
            _check(config_name, overrides, sweep=sweep)
            if not launch.first() or _prepares(overrides):
                sys.argv.append("hydra.output_subdir=null")  # the run's config is written by who trains, once
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        _die(error)
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(_guarded(job))()


def help_text(groups: Mapping[str, str | None] | None) -> str:
    """List what can be chosen, with the first line of each file, which says when to choose it.

    Args:
        groups: The groups to list, each with the task whose choices alone are of use (None: those of all tasks). None
            lists all groups, and how to sweep over them.
    """
    program = Path(sys.argv[0]).name
    described = sys.modules["__main__"].__doc__
    lines = [
        (described or "").strip(),
        "",
        f"  python {program} group=choice … key=value …        the command line wins over every file",
        *([f"  python {program} -m key=1,2,3 …                    a sweep"] if groups is None else []),
        f"  python {program} --cfg job group=choice …          show every key and its value, and stop",
    ]
    for folder in sorted(path for path in CONF.iterdir() if path.is_dir() and (groups is None or path.name in groups)):
        task = None if groups is None else groups[folder.name]
        choices = sorted(path for path in folder.glob("*.yaml") if task is None or path.stem in _fitting(folder, task))
        if choices:
            lines += ["", folder.name]
            lines += [f"  {path.stem:<28} {_when_to_choose(path)}".rstrip() for path in choices]
    return "\n".join(lines)


def _when_to_choose(path: Path) -> str:
    comments = (line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#"))
    return next((comment for comment in comments if not comment.startswith("@package")), "")


def _guarded(job: Job) -> Callable[[DictConfig], Any]:
    def run(cfg: DictConfig) -> Any:
        hydra_config = HydraConfig.get()
        folder = Path(hydra_config.runtime.output_dir)
        if hydra_config.mode == RunMode.MULTIRUN:
            print(f"\n── job {hydra_config.job.num}: {hydra_config.job.override_dirname or 'defaults'}")
        try:
            return job(cfg, folder)
        except UserError as error:
            if hydra_config.mode != RunMode.MULTIRUN:
                _die(error)
            _keep_failure(folder, str(error))
        except Exception as error:
            if hydra_config.mode != RunMode.MULTIRUN or "HYDRA_FULL_ERROR" in os.environ:
                raise  # a bug of ours: its traceback is what the report needs
            _keep_failure(folder, f"{type(error).__name__}: {error}")
        return None  # the sweep goes on; its table says why this one has no numbers

    return run


def _die(error: UserError) -> None:
    if "HYDRA_FULL_ERROR" in os.environ:
        raise error
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1 if isinstance(error, RunError) else 2)


def _keep_failure(folder: Path, error: str) -> None:
    from tutelage.core.results import FAILURE, write_json

    print(f"error in {folder}: {error}", file=sys.stderr)
    write_json(folder / FAILURE, {"error": error})


def _finished_run(overrides: list[str]) -> FinishedRun | None:
    """Recognise ``run=<folder of a run>``; a folder that is no run yet is one to be made."""
    given, rest = _take(overrides, "run", "trust")
    if "run" not in given or not _is_run(Path(given["run"])) or _prepares(overrides):
        return None
    if rest and not launch.first():
        return None  # rank 0 of the same command may be writing the folder at this moment
    return FinishedRun(Path(given["run"]), split_names(given.get("trust", "")), tuple(rest))


def _prepares(overrides: list[str]) -> bool:
    return any(override.lower() == "prepare_only=true" for override in overrides)


def _take(overrides: list[str], *keys: str) -> tuple[Mapping[str, str], list[str]]:
    """Split ``key=value`` arguments into those of some keys, and the rest."""
    given = dict(text.split("=", 1) for text in overrides if text.split("=", 1)[0] in keys and "=" in text)
    return given, [text for text in overrides if text.split("=", 1)[0] not in keys]


def _is_run(folder: Path) -> bool:
    return (folder / ".hydra" / "config.yaml").is_file()


def _two_runs(overrides: list[str]) -> tuple[FinishedRun, Path]:
    given, rest = _take(overrides, "run", "against", "trust")
    if rest or not {"run", "against"} <= given.keys():
        raise ConfigError(
            "against", "two finished runs are compared as they are", "give run=… and against=…, and nothing else"
        )
    for key in ("run", "against"):
        if not _is_run(Path(given[key])):
            raise ConfigError(key, f"{given[key]} is not a run folder", "give the folder of a run")
    finished = _finished_run([text for text in overrides if not text.startswith("against=")])
    assert finished is not None
    return finished, Path(given["against"])


def refuse_other_settings(run: FinishedRun) -> None:
    """Refuse overrides that a run was not started with: a continued run must be the same run.

    Raises:
        ConfigError: There are some.
    """
    path = run.folder / ".hydra" / "overrides.yaml"
    before = [str(override) for override in OmegaConf.load(path)] if path.exists() else []
    new = [override for override in run.overrides if override not in before]
    if launch.inside() and run.overrides and not new:
        # The other ranks compose what is typed: with less than the whole command they would train something else.
        _, whole = _take(before, "run", "trust")
        if left_out := [override for override in whole if override not in run.overrides]:
            raise ConfigError(
                "run",
                f"the command leaves out {' '.join(left_out)}",
                f"give the whole command, or run={run.folder} alone",
            )
    if new:
        raise ConfigError(
            "run",
            f"{run.folder} was started without {' '.join(new)}",
            f"continue it as it was (run={run.folder} alone), or give another folder",
        )


def _check(config_name: str, overrides: list[str], *, sweep: bool) -> None:
    """Compose what will be composed, every value of a sweep too, and explain what fails."""
    parsed = parse(overrides)
    several = [override.key_or_group for override in parsed if override.is_sweep_override()]
    if several and not sweep:
        raise ConfigError(several[0], "several values for one run", "add -m for a sweep, or quote a value with commas")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for variant in _variants(parsed):
            try:
                cfg = compose(config_name, overrides=variant, return_hydra_config=True)
                _check_task(cfg)
                if not sweep:
                    HydraConfig.instance().set_config(cfg)  # the folder's name tells the choices
                    if config_name == "config":
                        # Before torch is imported, which takes ten seconds; Hydra fills in its own keys later.
                        config.check_given(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
                    _check_folder(cfg)
            except (HydraException, OmegaConfBaseException, ValueError) as error:
                raise _explain(config_name, variant, error) from None
    GlobalHydra.instance().clear()


def _variants(overrides: list[Override]) -> Iterator[list[str]]:
    """The command line once for each value of each swept key, the other swept keys at their first value."""
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for override in overrides
    ]
    first = [values[0] for values in choices]
    yield first
    for index, values in enumerate(choices):
        for value in values[1:]:
            yield [*first[:index], value, *first[index + 1 :]]


def _check_folder(cfg: DictConfig) -> None:
    """Refuse an output folder that cannot be made, before Hydra tries to."""
    folder = Path(cfg.hydra.run.dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("run", f"cannot make the folder {folder} ({error.strerror})", "give another: run=…") from None


def _check_task(cfg: DictConfig) -> None:
    """Refuse a choice that belongs to another task, and list those that fit."""
    task = str(cfg.hydra.runtime.choices.get("task", ""))
    if not task:
        return
    for group, choice in cfg.hydra.runtime.choices.items():
        folder = CONF / group
        if choice is None or not folder.is_dir():
            continue
        tasks = {path.stem: tasks_of(path) for path in sorted(folder.glob("*.yaml"))}
        for name in str(choice).split("+"):
            if tasks.get(name) and task not in tasks[name]:
                hint = f"choose from: {', '.join(_fitting(folder, task))}; or use task={'|'.join(sorted(tasks[name]))}"
                raise ConfigError(group, f"{name} is not for task={task}", hint)


def _fitting(folder: Path, task: str) -> list[str]:
    """The choices of a group that a task can use."""
    tasks = {path.stem: tasks_of(path) for path in sorted(folder.glob("*.yaml"))}
    return [name for name, its_tasks in tasks.items() if not its_tasks or task in its_tasks]


def _expand_glob(override: str, overrides: list[str]) -> str:
    """Write ``group=glob(…)`` as the choices that it matches, without those that are made for another task."""
    group, _, value = override.partition("=")
    if not value.startswith("glob(") or not (CONF / group).is_dir():
        return override
    (parsed,) = OverridesParser.create().parse_overrides([override])
    pattern: Any = parsed.value()
    if not isinstance(pattern, Glob):
        return override
    task = next((other.partition("=")[2] for other in overrides if other.startswith("task=")), "multilabel")
    return f"{group}={','.join(pattern.filter(_fitting(CONF / group, task)))}"


def tasks_of(path: Path) -> set[str]:
    """Return the tasks that a choice is made for, by the packages its targets name; empty where any task can use it."""
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(content, dict)
    packages = {target.split(".")[1] for target in _targets(content) if target.startswith("tutelage.")}
    found = {name for name in packages if (CONF / "task" / f"{name}.yaml").exists()}
    for entry in content.get("defaults", ()):
        # - parts/files@data, or - /group: choice
        if isinstance(entry, str) and entry.startswith("parts/"):
            found |= tasks_of(path.parent / f"{entry.split('@')[0]}.yaml")
    return found


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, child in value.items():
            if key == "_target_":
                yield str(child)
            else:
                yield from _targets(child)


def _explain(config_name: str, overrides: list[str], error: Exception) -> ConfigError:
    """Find the override that breaks the composition, and what it should have been."""
    good: list[str] = []
    # Group choices come first: which keys there are depends on them.
    groups = [o for o in overrides if (CONF / o.split("=")[0].lstrip("+~")).is_dir()]
    for override in [*groups, *(o for o in overrides if o not in groups)]:
        try:
            compose(config_name, overrides=[*good, override])
            good.append(override)
        except (HydraException, OmegaConfBaseException, ValueError) as cause:
            return _explain_one(config_name, good, override, cause)
    return ConfigError("config", _first_line(error), "check the files under conf/")


def _explain_one(config_name: str, good: list[str], override: str, cause: Exception) -> ConfigError:
    key, _, value = override.partition("=")
    name = key.lstrip("+~").split("@")[0]
    if (CONF / name).is_dir():
        choices = sorted(path.stem for path in (CONF / name).glob("*.yaml"))
        if value in choices:
            return ConfigError(name, f"{value} cannot be chosen here ({_first_line(cause)})", f"choose another {name}")
        return ConfigError(
            name, f"no choice {value!r}", f"{_did_you_mean(value, choices)}choose from: {', '.join(choices)}"
        )
    keys = list(_keys(compose(config_name, overrides=good)))
    if name not in keys:
        return ConfigError(name, "no such key", _did_you_mean(name, keys) or f"keys there: {_siblings(name, keys)}")
    return ConfigError(
        name, f"{value!r} does not fit ({_first_line(cause.__cause__ or cause)})", "give a value of that type"
    )


def _did_you_mean(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not near:  # the right last part under another parent: epochs → trainer.max_epochs
        by_depth = sorted(known, key=lambda key: -key.count("."))  # of two with one last part, the shallower stays
        lasts = {key.rsplit(".", 1)[-1]: key for key in by_depth}
        near = [lasts[last] for last in difflib.get_close_matches(word.rsplit(".", 1)[-1], lasts, n=1, cutoff=0.7)]
    return f"did you mean {near[0]}? " if near else ""


def _siblings(name: str, keys: list[str]) -> str:
    parent = name.rpartition(".")[0]
    beside = [key for key in keys if key.rpartition(".")[0] == parent]
    return ", ".join(beside or (key for key in keys if "." not in key))


def _keys(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in cfg:
        name = str(key)
        yield prefix + name
        child = None if OmegaConf.is_missing(cfg, name) or OmegaConf.is_interpolation(cfg, name) else cfg[name]
        if isinstance(child, DictConfig):
            yield from _keys(child, f"{prefix}{name}.")


def _first_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error).strip().splitlines()[0]) if str(error).strip() else type(error).__name__
