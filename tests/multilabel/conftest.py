"""Fixtures of the multilabel task."""

import json
from pathlib import Path

import pytest
import torch

from tutelage.multilabel.networks.network import NetworkSpec, build_network

HEAD = {"_target_": "tutelage.multilabel.networks.heads.Linear"}


@pytest.fixture
def student_run(tmp_path: Path) -> Path:
    """A finished run, as training leaves it, whose data are gone."""
    network = build_network(
        NetworkSpec(name="resnet10t", weights="none"), num_labels=3, head=HEAD, resolution=32, where="model.student"
    )
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    spec = {"_target_": "tutelage.multilabel.networks.network.NetworkSpec", "name": "resnet10t", "weights": "imagenet"}
    config = {
        "task": {"_target_": "tutelage.multilabel.task.MultilabelTask"},
        "data": {"root": "/gone", "resolution": 32},
        "head": HEAD,
        "model": {"_target_": "tutelage.multilabel.networks.network.Pair", "teacher": spec, "student": spec},
    }
    (folder / ".hydra" / "config.yaml").write_text(json.dumps(config))
    (folder / "metrics.json").write_text("{}")
    (folder / "manifest.json").write_text(json.dumps({"labels": ["zero", "one", "two/three"]}))
    state = {f"student.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state | {"weight.value": torch.ones(())}}, folder / "checkpoints" / "best.ckpt")
    return folder
