"""The model card of an exported network: what it is, how it was scored, how it is loaded, where it fails."""

# K labels

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tutelage.core import results
from tutelage.core.templates import render_card
from tutelage.multilabel.networks.export import DESCRIPTION, ONNX, STATE
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.results.report import CLASSES, data_name, method_name, read_classes, teachers

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
    classes = read_classes(run) if (run / CLASSES).is_file() else []
    split = str(cfg.scoring.split) if cfg.get("scoring") is not None else "test"
    counted = [row for row in classes if row["student_AP"]]
    sure = [row for row in counted if int(row["positives"]) >= FEW]
    header: dict[str, Any] = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["multi-label"],
    }
    values = {
        "name": network.spec.name,
        "teachers": ", ".join(name for _, name in teachers(cfg).values()),
        "scored_teachers": [
            (role, name, prefix) for role, (prefix, name) in teachers(cfg).items() if f"{prefix}{split}/mAP" in metrics
        ],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "description": description,
        "state": STATE if (out / STATE).is_file() else None,
        "onnx": ONNX if (out / ONNX).is_file() else None,
        "data": data_name(cfg) if "_target_" in cfg.data else "its data",
        "method": "supervised" if cfg.get("method") is None else method_name(cfg),
        "manifest": manifest,
        "notes": manifest.get("data", {}),
        "split": split,
        "metrics": metrics,
        "scores": [(name, metrics[f"{split}/{name}"]) for name in SCORES if f"{split}/{name}" in metrics],
        "protocols": manifest.get("protocols", {}),
        "hardest": sorted(sure, key=lambda row: float(row["student_AP"]))[:NUM_HARDEST],
        "few": [row["label"] for row in counted if int(row["positives"]) < FEW],
        "unseen": [row["label"] for row in classes if not row["student_AP"]],
    }
    return render_card("tutelage.multilabel.results", "model_card.md.jinja", header=header, values=values)
