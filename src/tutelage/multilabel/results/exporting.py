"""A finished run's student, taken out of its run: what ``export.py`` does."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tutelage.core import results
from tutelage.core.build import build
from tutelage.core.callbacks import BEST, CHECKPOINTS
from tutelage.core.errors import ConfigError
from tutelage.core.run import load_config
from tutelage.multilabel.networks.export import export
from tutelage.multilabel.networks.network import Network, Pair, build_network

USAGE = "python export.py run=runs/…"
KEYS = ("run", "out", "onnx")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command line.

    Attributes:
        run: The folder of a finished run.
        out: Where the files go.
        onnx: Write ONNX beside timm's state dict.
    """

    run: Path
    out: Path
    onnx: bool


def parse(arguments: Sequence[str]) -> Wanted:
    """Read ``key=value``.

    Raises:
        ConfigError: No run, an unknown key, or ``onnx`` neither true nor false.
    """
    values: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in KEYS:
            raise ConfigError(key, "export.py has no such key", f"use {', '.join(KEYS)}: {USAGE}")
        values[key] = value
    if "run" not in values:
        raise ConfigError("run", "no run was given", USAGE)
    onnx = values.get("onnx", "true")
    if onnx not in ("true", "false"):
        raise ConfigError("onnx", f"{onnx} is neither true nor false", "onnx=false writes timm's state dict alone")
    run = Path(values["run"])
    return Wanted(run=run, out=Path(values.get("out", run / "export")), onnx=onnx == "true")


def export_run(wanted: Wanted) -> None:
    """Write the best student of a run; its data need not be there.

    Raises:
        ConfigError: No finished run of this task, or no ONNX exporter.
    """
    if results.read_metrics(wanted.run) is None:
        raise ConfigError(
            "run", f"{wanted.run} holds no finished run", f"finish it with: python train.py run={wanted.run}"
        )
    cfg = load_config(wanted.run)
    if not str(cfg.task._target_).startswith("tutelage.multilabel."):
        raise ConfigError("run", f"{wanted.run} is no run of task=multilabel", "export an image classifier's run")
    label_names = tuple(results.read_json(wanted.run / results.MANIFEST)["labels"])
    network = best_student(cfg, num_labels=len(label_names), checkpoint=wanted.run / CHECKPOINTS / BEST)
    export(network, wanted.out, label_names=label_names, onnx=wanted.onnx)
    for path in sorted(wanted.out.iterdir()):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


def best_student(cfg: DictConfig, *, num_labels: int, checkpoint: Path) -> Network:
    """Build the student of a run from its config and its best checkpoint, in eval mode."""
    pair: Pair = build(cfg.model, where="model")
    head: Any = OmegaConf.to_container(cfg.head, resolve=True)
    return build_network(
        replace(pair.student, checkpoint=str(checkpoint)),
        num_labels=num_labels,
        head=head,
        resolution=cfg.data.resolution,
        where="model.student",
    ).eval()
