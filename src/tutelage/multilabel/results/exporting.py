"""A finished run's student, taken out of its run: what ``export.py`` does."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from tutelage.core import results
from tutelage.core.arguments import split_names
from tutelage.core.build import build
from tutelage.core.callbacks import BEST, CHECKPOINTS
from tutelage.core.errors import ConfigError
from tutelage.core.run_folder import load_config
from tutelage.core.store import write_atomically
from tutelage.core.templates import CARD
from tutelage.multilabel.methods.method import DataInfo
from tutelage.multilabel.networks.backbone import pretrained_cfg
from tutelage.multilabel.networks.export import export
from tutelage.multilabel.networks.network import Network, NetworkSpec, Pair, build_network
from tutelage.multilabel.networks.weights import load_checkpoint
from tutelage.multilabel.results import model_card
from tutelage.multilabel.results.thresholds import read_thresholds
from tutelage.multilabel.terms import build_terms

USAGE = "python export.py run=runs/…"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """The command line.

    Attributes:
        run: The folder of a finished run.
        out: Where the files go; ``export`` in the run's folder where it is null.
        onnx: Write ONNX beside timm's state dict.
        trust: Packages, with commas between them, whose classes the run's config may name.
    """

    run: Path
    out: Path | None = None
    onnx: bool = True
    trust: str = ""


def export_run(settings: ExportSettings) -> None:
    """Write the best student of a run, and its model card; its data need not be there.

    Raises:
        ConfigError: No finished run of this task, or no ONNX exporter.
    """
    trusted = split_names(settings.trust)
    network, label_names = open_student(settings.run, trusted=trusted)
    cfg = load_config(settings.run, trusted=trusted)
    out = settings.run / "export" if settings.out is None else settings.out
    thresholds_K = read_thresholds(settings.run, labels=label_names)
    export(network, out, label_names=label_names, thresholds_K=thresholds_K.tolist(), onnx=settings.onnx)
    write_atomically(out / CARD, model_card.write(cfg, network, run=settings.run, out=out))
    for path in sorted(out.iterdir()):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


def open_student(run: Path, *, trusted: Collection[str] = ()) -> tuple[Network, tuple[str, ...]]:
    """Load the best student of a run and the names of its labels, from the run's folder alone.

    Args:
        run: The folder.
        trusted: Packages, beside this one, whose classes the run's config may name.

    Raises:
        ConfigError: No finished run of task=multilabel.
    """
    if results.read_metrics(run) is None:
        raise ConfigError("run", f"{run} holds no finished run", f"finish it with: python train.py run={run}")
    cfg = load_config(run, trusted=trusted)
    if not str(cfg.task._target_).startswith("tutelage.multilabel."):
        raise ConfigError("run", f"{run} is not a run of task=multilabel", "give the run of an image classifier")
    label_names = tuple(results.read_json(run / results.MANIFEST)["labels"])
    return best_student(cfg, label_names=label_names, checkpoint=run / CHECKPOINTS / BEST), label_names


def best_student(cfg: DictConfig, *, label_names: tuple[str, ...], checkpoint: Path) -> Network:
    """Build the student of a run from its config and its best checkpoint, in eval mode.

    Where the run's method gave the student another head (SimKD), the teacher is built too, without its weights: what
    of them the student has is in its checkpoint.
    """
    pair: Pair = build(cfg.model, where="model")

    def untrained(spec: NetworkSpec, role: str, head_node: DictConfig) -> Network:
        head: Any = OmegaConf.to_container(head_node, resolve=True)
        return build_network(
            replace(spec, weights="none", checkpoint=None),
            num_labels=len(label_names),
            head=head,
            resolution=cfg.data.resolution,
            where=f"model.{role}",
        )

    student = untrained(pair.student, "student", cfg.head)
    terms = build_terms(cfg.method) if "method" in cfg else {}
    if any(term.method.replaces_head for term in terms.values()):
        teacher = untrained(pair.teacher, "teacher", cfg.teacher.head)
        no_data = DataInfo(
            num_samples=0,
            label_names=label_names,
            positives_K=torch.zeros(len(label_names), dtype=torch.int64),
            max_positives=0,
            batch_size=0,
        )
        for term in terms.values():
            if term.method.replaces_head:
                student = term.method.setup(student, teacher, no_data) or student
    classifier = pretrained_cfg(pair.student.name, where="model.student").classifier
    load_checkpoint(student, str(checkpoint), classifier=classifier, where="model.student")
    return student.eval()
