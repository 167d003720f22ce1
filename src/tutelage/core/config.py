"""The typed root of every config. Imports no torch, so that ``--help`` answers at once."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from tutelage.core.errors import ConfigError

CONF = Path(__file__).resolve().parents[3] / "conf"


@dataclass
class TrainerConfig:
    """How long and on what to train; ``conf/trainer/*.yaml`` choose, data sets bring their recipe."""

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: Any = "auto"  # a name that Lightning knows, or a node that builds one
    precision: str = "32-true"  # a name of Lightning's, or auto: bf16-mixed where the device has bf16, else 32-true
    max_epochs: int = MISSING
    max_steps: int = -1  # stops earlier than max_epochs where it is not -1
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    val_check_interval: float = 1.0  # share of an epoch between two validations
    check_val_every_n_epoch: int = 1
    checkpoint_every_n_steps: int = 500  # what a kill can cost at most
    ema_decay: float | None = None  # averages the weights; validated, tested and exported are the averages
    sync_batchnorm: bool = False
    compile: bool = False
    threads: int | None = None  # CPU threads of one process
    log_every_n_steps: int = 10
    progress_bar: bool = True


@dataclass
class Config:
    """What ``train.py`` composes. A group that a task has no use for stays null."""

    task: Any = MISSING
    data: Any = MISSING
    model: Any = MISSING
    method: Any = MISSING
    optim: Any = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    # multilabel
    augment: Any = None
    loss: Any = None
    head: Any = None
    scoring: Any = None  # which split is scored, and how; evaluate.py run=… may change it
    teacher: Any = None  # the recipe that a teacher is trained by
    teachers: Any = None  # several of them
    # text2sql
    adapter: Any = None
    prompt: Any = None
    inference: Any = None
    explore: Any = None
    # every task
    logger: Any = None
    report: Any = None
    seed: int = 1
    prepare_only: bool = False  # make what training needs first, such as a teacher, and stop
    run: str = MISSING  # the run's folder
    store: str = MISSING  # where costly results are kept


@dataclass
class EvaluateConfig(Config):
    """What ``evaluate.py`` composes: predictions that somebody made, or a model as it is."""

    # It is composed after the rest: a default here would undo what a task, a model or the data chose.
    trainer: TrainerConfig = MISSING
    augment: Any = MISSING
    loss: Any = MISSING
    head: Any = MISSING
    scoring: Any = MISSING
    adapter: Any = MISSING
    prompt: Any = MISSING
    inference: Any = MISSING
    explore: Any = MISSING
    logger: Any = MISSING
    report: Any = MISSING
    seed: int = MISSING
    predictions: Any = None  # a file, or two to compare
    mode: str = "official"
    on_missing: str = "error"
    split: str = "dev"
    metrics: Any = None
    keep_distinct: bool = False
    out: str | None = None
    workers: int = 2
    limits: Any = None


def register() -> None:
    """Make the schemas known to Hydra."""
    ConfigStore.instance().store("schema", Config)
    ConfigStore.instance().store("evaluate_schema", EvaluateConfig)


def register_combinations(overrides: Iterable[str]) -> None:
    """Make ``group=a+b`` a choice for each such value on a command line: both files, each under its own name.

    Raises:
        ConfigError: One name twice.
    """
    for override in overrides:
        group, _, value = override.partition("=")
        for combination in re.findall(r"\w+(?:\+\w+)+", value):
            names = combination.split("+")
            for name in names:
                if names.count(name) > 1:
                    raise ConfigError(group, f"{combination} has two terms named {name}", "give each name once")
            defaults = ["_self_", *(f"{name}@{name}" for name in names)]
            ConfigStore.instance().store(name=combination, group=group.lstrip("+"), node={"defaults": defaults})


def check_given(cfg: DictConfig) -> None:
    """Refuse a config in which a value that the user must give is missing.

    Raises:
        ConfigError: Names the first one.
    """
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(key, "no value given", f"give it on the command line: {key}=…")
