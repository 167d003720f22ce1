"""Score a finished run again, from its folder alone, or compare two."""

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from lightning.pytorch import seed_everything
from omegaconf import DictConfig

from tutelage.core import build, overrides, precision, results
from tutelage.core.errors import ConfigError
from tutelage.core.run import ROOT, make_task, make_trainer
from tutelage.core.run_folder import EVALUATIONS, best_checkpoint, load_config, save_config, unwritable
from tutelage.core.task import Metrics, Task

CHANGEABLE = frozenset(
    {"store", "seed", "trainer.accelerator", "trainer.precision", "trainer.threads", "trainer.progress_bar"}
    | {"trainer.compile"}
)


def evaluate(
    folder: Path, *, changes: Sequence[str] = (), out: Path | None = None, trusted: Collection[str] = ()
) -> Metrics:
    """Score a finished run again, in this process. Nothing is trained, and no teacher or starting weights are needed.

    Args:
        folder: The run's.
        changes: Overrides of the run's config, such as ``data.root=/elsewhere`` or ``scoring.split=val``.
        out: Where the scores go. None: the run's folder where nothing changes the scores, else
            ``<folder>/evaluations/<changes>``.
        trusted: See :func:`tutelage.core.run_folder.load_config`.

    Returns:
        The flat metrics, which ``metrics.json`` holds.

    Raises:
        ConfigError: The folder holds no finished run, or a change that scoring cannot make.
    """
    before = results.read_metrics(folder)
    if before is None:
        raise ConfigError("run", f"{folder} holds no finished run", f"finish it with: python train.py run={folder}")
    cfg = load_config(folder, trusted=trusted)
    kind = task_class(cfg)
    kept = {name: build.parameters_of(part) for name, part in kind.shared.items()}
    cfg = overrides.apply(cfg, changes, changeable=CHANGEABLE | kind.rescoring, kept=kept)
    resets = fit_to_machine(cfg)
    for reset in resets:
        print(f"This machine cannot do what the run was trained with: scored with {reset}")
    name = overrides.folder_name([*changes, *resets])
    own = out is None and name is None
    if out is None:
        out = folder if name is None else folder / EVALUATIONS / name
    checkpoint = best_checkpoint(folder)
    task = make_task(cfg, folder=folder, out=out)
    task.check_scoring()
    if not own:
        save_config(cfg, out)
        if (folder / "curves.csv").is_file():
            shutil.copyfile(folder / "curves.csv", out / "curves.csv")  # the report draws them
    task.prepare_scoring()
    seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = task.datamodule()
    module = task.scoring_module(datamodule, checkpoint=checkpoint)
    scores = task.evaluate(make_trainer(task, callbacks=[], loggers=[]), module, datamodule)
    metrics = {**before, **scores} if own else scores
    try:
        if not own:
            told = {"run": str(folder), "changes": list(changes), **task.describe()}
            results.write_json(out / results.MANIFEST, {**results.environment(ROOT), **told})
        results.write_json(out / results.METRICS, metrics)
    except OSError as error:
        raise unwritable(out, error) from None
    task.report(metrics)
    return metrics


def fit_to_machine(cfg: DictConfig) -> list[str]:
    """Set what a config says of devices to one process of this machine.

    Returns:
        The overrides of what changes the scores, by rounding: a precision that this machine cannot do.
    """
    trainer = cfg.trainer
    trainer.devices = trainer.num_nodes = 1
    trainer.strategy, trainer.sync_batchnorm = "auto", False
    if trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        trainer.accelerator = "auto"
    try:
        precision.resolve(trainer.precision, accelerator=trainer.accelerator)
    except ConfigError:
        trainer.precision = "32-true"
        return ["trainer.precision=32-true"]
    return []


def compare(folder: Path, other: Path, *, trusted: Collection[str] = ()) -> None:
    """Print how two finished runs, or two evaluations of runs, differ on what both were tested on.

    Raises:
        ConfigError: One is not finished, or they are runs of different tasks.
        DataError: They share nothing that could be compared.
    """
    for key, run in (("run", folder), ("against", other)):
        if results.read_metrics(run) is None:
            raise ConfigError(key, f"{run} holds no finished run", f"finish it with: python train.py run={run}")
    kind, other_kind = (task_class(load_config(run, trusted=trusted)) for run in (folder, other))
    if kind is not other_kind:
        raise ConfigError("against", f"{other} is a run of another task", "compare runs of one task")
    kind.compare(folder, other)


def task_class(cfg: DictConfig) -> type[Task]:
    """Return the class that ``task._target_`` names."""
    kind = build.locate(cfg.task, where="task")
    assert isinstance(kind, type) and issubclass(kind, Task), f"{kind} is no task"
    return kind
