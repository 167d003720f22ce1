"""Train and evaluate, for any task.

A run is a folder. Training it twice continues it: a finished run answers with its metrics, a killed one goes on
from ``checkpoints/last.ckpt``.
"""

import logging
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from tutelage.core import build, launch, loggers, precision, results, startup
from tutelage.core.best_checkpoint import BestCheckpoint
from tutelage.core.callbacks import (
    BEST,
    CHECKPOINTS,
    LAST,
    UNTRAINED,
    LastCheckpoint,
    NanGuard,
    StepSeed,
    TrainTime,
    WeightAverage,
    WholeCheckpointIO,
)
from tutelage.core.errors import ConfigError, RunError, UserError
from tutelage.core.progress import ProgressLines
from tutelage.core.run_folder import best_checkpoint, check_checkpoint, exclusive, load_config, save_config
from tutelage.core.sync_batch_norm import SyncBatchNorm
from tutelage.core.task import Metrics, Task

ROOT = Path(__file__).resolve().parents[3]


def train(cfg: DictConfig, *, folder: Path) -> Metrics:
    """Train and test one run, or continue it.

    Args:
        cfg: The composed config.
        folder: The run's folder; made where it is missing.

    Returns:
        The flat metrics that ``metrics.json`` holds.

    Raises:
        ConfigError, DataError: Refused before the long part.
        RunError: Stopped half-way; what was done is kept.
    """
    finished = results.read_metrics(folder)
    if finished is not None:
        open_task(cfg, folder=folder).report(finished)
        return finished
    cfg.run = str(folder)  # inside a sweep each job has a folder of its own
    with exclusive(folder):
        if launch.first():
            save_config(cfg, folder)
        task = open_task(cfg, folder=folder)
        check_run(task)
        task.prepare()
        processes = cfg.trainer.devices
        if processes > 1 and not launch.inside():
            launch.launch(folder, processes=processes)
            metrics = results.read_metrics(folder)
            assert metrics is not None
            return metrics
        return fit(task)


def check_run(task: Task) -> None:
    """Refuse what training would meet after its long preparations: settings, a logger, a checkpoint to go on from.

    Raises:
        ConfigError: A value that Lightning does not take, or a logger that cannot be used.
        RunError: What lies in the run's folder is no checkpoint of this run.
    """
    loggers.make_loggers(task.cfg, task.folder)
    try:
        make_trainer(task, callbacks=[], loggers=[])
    except (MisconfigurationException, ValueError, TypeError) as error:
        what = " ".join(str(error).split())
        raise ConfigError(
            "trainer", what, "these are the arguments of Lightning's Trainer: correct the value"
        ) from None
    last = task.folder / CHECKPOINTS / LAST
    if last.exists():
        check_checkpoint(last, task=str(task.cfg.task._target_))


def prepare(cfg: DictConfig, *, folder: Path) -> None:
    """Make what training needs first, such as a teacher, or find it in the store, and train nothing else.

    The folder keeps no config of this, so that the same command can train there afterwards.
    """
    cfg.run = str(folder)
    with exclusive(folder):
        task = open_task(cfg, folder=folder)
        check_run(task)
        task.prepare()
    print(f"prepared: what this training needs first is in {cfg.store}")


def open_task(cfg: DictConfig, *, folder: Path) -> Task:
    """Check a whole config and make its task, ready to train; nothing costly happens."""
    task = make_task(cfg, folder=folder, out=folder)
    task.check()
    return task


def make_task(cfg: DictConfig, *, folder: Path, out: Path) -> Task:
    """Check a config's keys, types and devices, and make its task; see `Task` for the folders."""
    kind = build.locate(cfg.task, where="task")
    assert isinstance(kind, type) and issubclass(kind, Task), f"{kind} is no task"
    build.check(cfg, shared=kind.shared)
    check_devices(cfg)
    task: Task = build.build(cfg.task, where="task", cfg=cfg, folder=folder, out=out)
    return task


def fit(task: Task) -> Metrics:
    """Train a prepared task in this process, pick the best weights and test them once."""
    with loggers.open_loggers(task.cfg, task.folder) as opened:
        return _fit(task, opened)


def _fit(task: Task, opened: list[Logger]) -> Metrics:
    cfg, folder = task.cfg, task.folder
    if cfg.trainer.threads is not None:
        torch.set_num_threads(cfg.trainer.threads)
    elif not launch.inside():  # torch counts the machine's cores, also where a container may use few of them
        torch.set_num_threads(min(torch.get_num_threads(), startup.cores()))
    seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = task.datamodule()
    module = task.module(datamodule)
    train_time = TrainTime()
    best = BestCheckpoint(
        folder / CHECKPOINTS,
        filename=Path(BEST).stem,
        monitor=task.monitor,
        mode=task.mode,
        # Lightning leaves the averages out of a checkpoint of weights only, and would keep what was not validated.
        save_weights_only=cfg.trainer.ema_decay is None,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    callbacks: list[Callback] = [
        StepSeed(cfg.seed),
        NanGuard(folder),
        train_time,
        best,
        LastCheckpoint(folder, every_n_steps=cfg.trainer.checkpoint_every_n_steps, task=str(cfg.task._target_)),
        *task.callbacks(),
    ]
    if cfg.trainer.ema_decay is not None:
        callbacks.append(WeightAverage(decay=cfg.trainer.ema_decay))
    if not (cfg.trainer.progress_bar and sys.stdout.isatty()):
        callbacks.append(ProgressLines(batch_size=cfg.data.batch_size))
    trainer = make_trainer(task, callbacks=callbacks, loggers=opened)
    for logger in opened:
        loggers.log_settings(logger, cfg)
    last = folder / CHECKPOINTS / LAST
    untrained = untrained_score(trainer, module, datamodule, task) if task.keeps_untrained() else None
    trainer.fit(module, datamodule=datamodule, ckpt_path=last if last.exists() else None, weights_only=True)
    steps = trainer.global_step
    if trainer.interrupted:
        raise RunError("train", "interrupted", f"continue with: python train.py run={folder}")
    if best.best_model_score is None:  # max_steps ended the run before its first validation
        trainer.validate(module, datamodule=datamodule, verbose=False)
        trainer.save_checkpoint(folder / CHECKPOINTS / BEST, weights_only=True)
    chosen = best.best_model_score if best.best_model_score is not None else trainer.callback_metrics[task.monitor]
    kept = best_checkpoint(folder)
    before: Metrics = {}
    if untrained is not None:
        below = float(chosen) < untrained if task.mode == "max" else float(chosen) > untrained
        before = {"val/untrained": untrained, "untrained_kept": int(below)}
        if below:
            kept = folder / CHECKPOINTS / UNTRAINED
            if trainer.is_global_zero:
                results.print_warning(
                    f"{task.monitor} is {float(chosen):.2f} at best, and {untrained:.2f} without training: the "
                    "untrained model is kept as this run's answer"
                )
    task.load(module, kept)
    started = time.monotonic()
    metrics: Metrics = {
        "val/best": float(chosen),
        **before,
        **task.evaluate(trainer, module, datamodule),
        "time/train_s": round(train_time.before, 2),
        "time/test_s": round(time.monotonic() - started, 2),
    }
    if trainer.is_global_zero:
        shown = {"headline": list(task.headline), "totals": dict(task.totals)}
        manifest = {**results.environment(ROOT), **shown, **task.describe()}
        results.write_json(folder / results.MANIFEST, manifest)
        # A folder with metrics.json is a finished run: the same command draws its report again.
        results.write_json(folder / results.METRICS, metrics)
        task.report(metrics)
        for logger in opened[1:]:
            loggers.log_closing(logger, cfg, metrics, task.closing(metrics), step=steps)
    return metrics


def untrained_score(trainer: Trainer, module: LightningModule, datamodule: LightningDataModule, task: Task) -> float:
    """Score the weights that training starts from, and keep them: once, however often a run is continued."""
    path = task.folder / CHECKPOINTS / UNTRAINED
    note = path.with_suffix(".json")
    if not (note.exists() and path.exists()):
        trainer.validate(module, datamodule=datamodule, verbose=False)
        trainer.save_checkpoint(path, weights_only=True)
        if trainer.is_global_zero:
            results.write_json(note, {task.monitor: float(trainer.callback_metrics[task.monitor])})
        trainer.strategy.barrier()
    return float(results.read_json(note)[task.monitor])


def make_trainer(task: Task, *, callbacks: list[Callback], loggers: Sequence[Logger]) -> Trainer:
    """Make Lightning's trainer from ``cfg.trainer``."""
    quiet()
    options = task.cfg.trainer
    if options.progress_bar and sys.stdout.isatty():
        callbacks = [*callbacks, RichProgressBar(leave=False)]
    on_gpu = options.accelerator != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.set_float32_matmul_precision("high")  # TF32 in what stays fp32: three digits, several times the speed
    strategy: Any = options.strategy
    if OmegaConf.is_config(strategy):
        strategy = build.build(strategy, where="trainer.strategy")
    return Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=strategy,
        precision=precision.resolve(options.precision, accelerator=options.accelerator),  # type: ignore[arg-type]
        max_epochs=options.max_epochs,
        max_steps=options.max_steps,
        accumulate_grad_batches=options.accumulate_grad_batches,
        gradient_clip_val=options.gradient_clip_val,
        val_check_interval=options.val_check_interval,
        check_val_every_n_epoch=options.check_val_every_n_epoch,
        log_every_n_steps=options.log_every_n_steps,
        benchmark=on_gpu,  # pictures of one size: cuDNN measures once which convolution is fastest
        use_distributed_sampler=False,  # core.batches shards, and counts each sample once
        num_sanity_val_steps=0,
        deterministic="warn" if options.accelerator == "cpu" else None,
        enable_progress_bar=options.progress_bar and sys.stdout.isatty(),
        enable_model_summary=False,
        logger=list(loggers) or False,
        callbacks=callbacks,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        plugins=[WholeCheckpointIO(), *([SyncBatchNorm()] if options.sync_batchnorm else [])],
        default_root_dir=task.folder,
    )


def quiet() -> None:
    """Keep off the screen what Lightning says of every run of ours; what it says of a fault stays."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # not: GPU available: True, used: True, and the like
    for message in (
        r"The number of training batches \(\d+\) is smaller than the logging interval",  # steps count over epochs
        r"`isinstance\(treespec",  # Lightning's own call of an old name of torch's
        r"The '\w+' does not have many workers",  # names no key of ours; progress says how long data were waited for
        r"Checkpoint directory .* exists and is not empty",  # a run that goes on
        r"It is recommended to use `self.log\(.*sync_dist=True",  # our scores are gathered before they are logged
        r"Found \d+ module\(s\) in eval mode at the start of training",  # frozen parts
    ):
        warnings.filterwarnings("ignore", message=message)


def check_devices(cfg: DictConfig) -> None:
    """Refuse devices that this machine lacks, and what they cannot do.

    Raises:
        ConfigError: No GPU, fewer than asked for, or a precision that they lack.
    """
    found = torch.cuda.device_count()
    if cfg.trainer.accelerator in ("gpu", "cuda") and found < cfg.trainer.devices:
        raise ConfigError(
            "trainer.devices",
            f"{cfg.trainer.devices} asked for, {found} GPUs found",
            "use trainer=auto or fewer devices",
        )
    precision.resolve(cfg.trainer.precision, accelerator=cfg.trainer.accelerator)
    on_cpu = cfg.trainer.accelerator == "cpu" or not torch.cuda.is_available()
    if cfg.trainer.sync_batchnorm and on_cpu and cfg.trainer.devices * cfg.trainer.num_nodes > 1:
        raise ConfigError(
            "trainer.sync_batchnorm", "torch synchronises batch norms on GPUs only", "set trainer.sync_batchnorm=false"
        )


def main(folder: Path) -> None:
    """Be one rank of a job that launch.py started."""
    try:
        task = open_task(load_config(folder, trusted=None), folder=folder)
        task.prepare()  # finds what the parent made
        fit(task)
    except UserError as error:
        (folder / launch.RANK_ERROR).write_text(f"{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
