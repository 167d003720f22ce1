"""Loggers that a run may have beside its curves.csv: what they are told at its start, and at its end."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from tutelage.core import launch
from tutelage.core.build import build
from tutelage.core.curves import CurvesLogger
from tutelage.core.errors import ConfigError
from tutelage.core.results import markdown_table
from tutelage.core.task import Closing, Metrics

RUN_ID = Path("wandb") / "run_id"


def wandb_logger(*, folder: Path, project: str, offline: bool) -> WandbLogger:
    """Log to Weights & Biases; a resumed run goes on in the same page.

    Raises:
        ConfigError: It has to be logged in for that, and nobody is.
    """
    import wandb

    if not offline and os.environ.get("WANDB_MODE") not in ("offline", "dryrun", "disabled"):
        try:
            wandb.login()  # asks for the key where there is a terminal
        except wandb.errors.Error as error:
            raise ConfigError(
                "logger",
                f"W&B: {error}",
                "type wandb login, set WANDB_API_KEY, or keep the page on this machine with logger.offline=true",
            ) from None
    return WandbLogger(
        project=project,
        offline=offline,
        save_dir=folder,
        name=f"{folder.parent.name}/{folder.name}",
        group=folder.parent.name,  # the jobs of a sweep, the runs of one method
        id=_run_id(folder) if launch.first() else None,  # the other processes write nothing
        resume="allow",
    )


def _run_id(folder: Path) -> str:
    """Return the page's id, kept with the run: a new run in a folder of the same name gets a page of its own."""
    path = folder / RUN_ID
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(8))
    return path.read_text()


def tensorboard_logger(*, folder: Path) -> TensorBoardLogger:
    """Log to ``<folder>/tensorboard``."""
    return TensorBoardLogger(save_dir=folder, name="tensorboard", version="", default_hp_metric=False)


def make_loggers(cfg: DictConfig, folder: Path) -> list[Logger]:
    """Make the loggers of a run; nothing is logged yet.

    Raises:
        ConfigError: One cannot be used.
    """
    loggers: list[Logger] = [CurvesLogger(folder)]
    if cfg.logger is not None and "_target_" in cfg.logger:
        loggers.append(build(cfg.logger, where="logger", folder=folder))
    return loggers


@contextmanager
def open_loggers(cfg: DictConfig, folder: Path) -> Iterator[list[Logger]]:
    """Make the loggers of a run, and close them at its end, however it ends.

    A W&B page that stays open would get the numbers of a sweep's next job, too.
    """
    loggers = make_loggers(cfg, folder)
    status = "failed"
    try:
        yield loggers
        status = "success"
    finally:
        for logger in loggers:
            logger.finalize(status)
            if isinstance(logger, WandbLogger) and launch.first() and logger._experiment is not None:
                logger.experiment.finish(exit_code=int(status != "success"))


def log_settings(logger: Logger, cfg: DictConfig) -> None:
    """Tell a logger every setting of a run, before it begins."""
    logger.log_hyperparams(_settings(cfg))
    if isinstance(logger, TensorBoardLogger):  # which shows hyper-parameters beside final metrics only
        logger.experiment.add_text("config", f"```\n{OmegaConf.to_yaml(cfg, resolve=True)}```")


def log_closing(logger: Logger, cfg: DictConfig, metrics: Metrics, closing: Closing, *, step: int) -> None:
    """Tell a logger how a run ended: its metrics, and where it can show them, the report's tables and pictures."""
    numbers = {name: value for name, value in metrics.items() if not isinstance(value, str)}
    if isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(_settings(cfg), numbers, step)
        for name, (columns, rows) in closing.tables.items():
            logger.experiment.add_text(name, markdown_table(columns, rows), step)
        for name, pictures in closing.pictures.items():
            for caption, image_HW3 in pictures:
                logger.experiment.add_image(f"{name}/{caption}", image_HW3, step, dataformats="HWC")
        return
    logger.log_metrics(numbers, step)
    if isinstance(logger, WandbLogger):
        for name, (columns, rows) in closing.tables.items():
            logger.log_table(name, columns=list(columns), data=[list(row) for row in rows], step=step)
        for name, pictures in closing.pictures.items():
            captions, images = [caption for caption, _ in pictures], [image for _, image in pictures]
            logger.log_image(name, images, step=step, caption=captions)


def _settings(cfg: DictConfig) -> dict[str, Any]:
    return _flat(OmegaConf.to_container(cfg, resolve=True))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Write nested settings as loggers show them: ``optim.lr``."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, child in value.items() for k, v in _flat(child, f"{prefix}.{key}" if prefix else key).items()}
