"""The methods of docs/add_a_method.md, made of the page as a reader would, and trained for a step."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from tutelage.core.run import open_task
from tutelage.multilabel.methods import features, maps
from tutelage.multilabel.module import Distillation
from tutelage.multilabel.networks.output import NetOutput

PAGE = Path(__file__).resolve().parents[3] / "docs" / "add_a_method.md"
FILES = dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", PAGE.read_text(), re.M | re.S))
NAMES = [Path(path).stem for path in FILES if path.startswith("src/")]


def test_both_ways_are_shown() -> None:
    assert NAMES == ["sure_cam", "embedding"] and len(FILES) == 4
    body = FILES["src/tutelage/multilabel/methods/maps/sure_cam.py"].split("class ")[1]
    assert len(body.strip().splitlines()) <= 10


@pytest.mark.parametrize("name", NAMES)
def test_it_trains(
    name: str, compose_config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = [path for path in FILES if path.endswith(f"/{name}.py")]
    (tmp_path / f"{name}.py").write_text(FILES[path])
    for package in (maps, features):
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    sizes = {"data.num_train": 8, "data.num_val": 4, "data.num_test": 4, "data.batch_size": 4, "teacher.batch_size": 4}
    cfg = compose_config(*(f"{key}={size}" for key, size in sizes.items()))
    own = yaml.safe_load(FILES[f"conf/method/{name}.yaml"])
    assert own.pop("defaults") == ["parts/term@_here_", "_self_"]
    OmegaConf.set_struct(cfg, False)
    cfg.method = {**own, "weight": cfg.method.weight, "force_softmax": False}
    task = open_task(cfg, folder=tmp_path)
    task.check()
    datamodule = task.datamodule()
    module = task.module(datamodule)
    assert isinstance(module, Distillation)
    datamodule.setup("fit")
    batch = datamodule.on_before_batch_transfer(next(iter(datamodule.train_dataloader())), 0)
    student: NetOutput = module.student(batch.images_BCHW, reads=module.student_reads)
    teacher = module.teachers["teacher"](batch, reads=module.teacher_reads["teacher"])
    teacher.logits_BK = teacher.logits_BK + 10  # an untrained teacher is sure of nothing
    loss, logged = module.terms[name](torch.tensor(1.0), student, teacher, batch, progress=0.0)
    loss.backward()
    assert logged[name] > 0
    gradient = next(module.student.backbone.parameters()).grad
    assert gradient is not None and torch.isfinite(gradient).all() and gradient.abs().sum() > 0
