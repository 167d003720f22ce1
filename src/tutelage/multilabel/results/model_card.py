"""The model card of an exported network: what it is, how it was scored, how it is loaded, where it fails."""

# K labels

import csv
from pathlib import Path
from typing import Any

import jinja2
import yaml
from omegaconf import DictConfig

from tutelage.core import results
from tutelage.multilabel.networks.export import DESCRIPTION, ONNX, STATE
from tutelage.multilabel.networks.network import Network

CARD = "README.md"
CLASSES = "classes.csv"  # of a run's folder: each label's positives and AP
NUM_HARDEST = 8
FEW = 5  # positives; below, an AP says little
SCORES = ("mAP", "CF1", "OF1", "CF1@3", "OF1@3")


def write(cfg: DictConfig, network: Network, *, run: Path, out: Path) -> str:
    """Write the card from what the run left; what an older run did not keep is left out.

    Args:
        cfg: The run's config.
        network: The student.
        run: The run's folder.
        out: Where the exported files already are.
    """
    metrics = results.read_metrics(run) or {}
    manifest = results.read_json(run / results.MANIFEST)
    description = results.read_json(out / DESCRIPTION)
    classes = _read_classes(run / CLASSES)
    split = str(cfg.scoring.split) if cfg.get("scoring") is not None else "test"
    counted = [row for row in classes if row["student_AP"]]
    sure = [row for row in counted if int(row["positives"]) >= FEW]
    header: dict[str, Any] = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["multi-label"],
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tutelage.multilabel.results", "."),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("model_card.md.jinja").render(
        header=yaml.safe_dump(header, sort_keys=False).strip(),
        name=network.spec.name,
        teacher=str(cfg.model.teacher.name),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        description=description,
        state=STATE if (out / STATE).is_file() else None,
        onnx=ONNX if (out / ONNX).is_file() else None,
        data=str(cfg.data.get("_target_", "its data")).rsplit(".", 1)[-1],
        method=_method(cfg),
        manifest=manifest,
        notes=manifest.get("data", {}),
        split=split,
        metrics=metrics,
        scores=[(name, metrics[f"{split}/{name}"]) for name in SCORES if f"{split}/{name}" in metrics],
        protocols=manifest.get("protocols", {}),
        hardest=sorted(sure, key=lambda row: float(row["student_AP"]))[:NUM_HARDEST],
        few=[row["label"] for row in counted if int(row["positives"]) < FEW],
        unseen=[row["label"] for row in classes if not row["student_AP"]],
    )


def _method(cfg: DictConfig) -> str:
    method = cfg.get("method")
    if method is None:
        return "supervised"
    return "+".join(map(str, method)) if "_target_" not in method else str(method._target_).rsplit(".", 2)[-2]


def _read_classes(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
