"""What run.py asks of a task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from numpy.typing import NDArray
from omegaconf import DictConfig

from tutelage.core.errors import ConfigError
from tutelage.core.store import Store

Metrics = dict[str, float | int | str]
Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # names of the columns, rows


@dataclass(frozen=True, slots=True)
class Closing:
    """What a run ends with, as loggers that show more than numbers take it.

    Attributes:
        tables: By name; ``results`` is the closing table.
        pictures: By name, each with its caption: uint8 [H, W, 3].
    """

    tables: Mapping[str, Table]
    pictures: Mapping[str, Sequence[tuple[str, NDArray[np.uint8]]]] = field(default_factory=dict)


class Task(ABC):
    """One job of one kind: it owns its data, its module and its score."""

    monitor: ClassVar[str]  # the validation score that picks the checkpoint
    mode: ClassVar[Literal["max", "min"]]
    # nodes whose keys two objects share, and the second object; see build.split
    shared: ClassVar[Mapping[str, Callable[..., Any]]] = {}
    headline: ClassVar[tuple[str, ...]]  # the metrics that a table over many runs shows
    totals: ClassVar[Mapping[str, str]] = {}  # metrics that a sweep adds up, and how it says so: "… {total:.1f} s …"
    rescoring: ClassVar[frozenset[str]]  # keys that evaluate.py run=… may change, since training did not fix them

    def __init__(self, *, cfg: DictConfig, folder: Path, out: Path) -> None:
        """Keep what was composed, and touch nothing else.

        Args:
            cfg: The composed config.
            folder: The run's: checkpoints are here.
            out: Where scores, predictions and reports go. It is the run's folder, unless a finished run is scored
                with other settings.
        """
        self.cfg = cfg
        self.folder = folder
        self.out = out
        self.store = Store(Path(cfg.store))

    @abstractmethod
    def check(self) -> None:
        """Refuse what cannot work, before the long part.

        Raises:
            ConfigError, DataError: Where, what, and a hint.
        """

    @abstractmethod
    def prepare(self) -> None:
        """Make costly inputs, or find them in the store. Runs once, in the parent of a multi-process job too."""

    @abstractmethod
    def check_scoring(self) -> None:
        """Refuse settings with which the finished run cannot be scored. Stands for `check` in evaluate.py run=….

        Raises:
            ConfigError, DataError: Where, what, and a hint.
        """

    @abstractmethod
    def prepare_scoring(self) -> None:
        """Make what scoring the finished run needs. Stands for `prepare` in evaluate.py run=…, and trains nothing."""

    @abstractmethod
    def datamodule(self) -> LightningDataModule: ...

    @abstractmethod
    def module(self, datamodule: LightningDataModule) -> LightningModule: ...

    def describe(self) -> dict[str, Any]:
        """Return what the run's manifest should say of its inputs, such as data fingerprints. Asked after prepare."""
        return {}

    def load(self, module: LightningModule, checkpoint: Path) -> None:
        """Put a checkpoint's weights into the module."""
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        module.on_load_checkpoint(content)
        module.load_state_dict(content["state_dict"], strict=module.strict_loading)

    def scoring_module(self, datamodule: LightningDataModule, *, checkpoint: Path) -> LightningModule:
        """Return the trained module as `evaluate` needs it, without anything that training alone needs."""
        module = self.module(datamodule)
        self.load(module, checkpoint)
        return module

    def keeps_untrained(self) -> bool:
        """Whether the weights that training starts from are a candidate like any checkpoint, and may stay."""
        return False

    def callbacks(self) -> list[Callback]:
        """Return callbacks of the task's own."""
        return []

    @abstractmethod
    def evaluate(self, trainer: Trainer, module: LightningModule, datamodule: LightningDataModule) -> Metrics:
        """Score the chosen weights on data that selection never saw.

        Writes ``predictions.*`` and ``items.csv`` into `out`.

        Returns:
            Flat metrics, such as ``test/mAP``; the same on every rank.
        """

    @classmethod
    def score(cls, cfg: DictConfig, *, folder: Path) -> Metrics:
        """Score predictions that somebody else made (``evaluate.py predictions=…``).

        Raises:
            ConfigError: The task scores runs only.
        """
        raise ConfigError("predictions", f"{cls.__name__} scores runs only", "give the folder of a run: run=…")

    @classmethod
    @abstractmethod
    def compare(cls, folder: Path, other: Path) -> None:
        """Print how two finished runs differ on what both were tested on (``evaluate.py run=… against=…``).

        Raises:
            DataError: They cannot be compared.
        """

    @abstractmethod
    def report(self, metrics: Metrics) -> None:
        """Write ``report.html`` into `out` and print the closing table."""

    @abstractmethod
    def closing(self, metrics: Metrics) -> Closing:
        """Return the tables and pictures of the report, for loggers that can show them. Asked after `report`."""
