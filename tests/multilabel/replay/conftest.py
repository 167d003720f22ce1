"""A teacher that need not be trained, and training without the scoring and the report that follow it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from few_scenes import SMALL
from lightning.pytorch import seed_everything
from omegaconf import DictConfig

from tutelage.core.callbacks import StepSeed
from tutelage.core.run import make_trainer, open_task
from tutelage.multilabel.networks.network import NetworkSpec, build_network
from tutelage.multilabel.teacher import Teacher

Fit = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture(scope="session")
def teacher_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the embedded pair's teacher, at random but not near 0."""
    torch.manual_seed(0)
    network = build_network(
        NetworkSpec(name="test_resnet", weights="none", output_stride=8), num_labels=10,
        head={"_target_": "tutelage.multilabel.networks.heads.Linear"}, resolution=48, where="model.teacher",
    )  # fmt: skip
    with torch.no_grad():
        network.head.classifier.weight.normal_()  # type: ignore[union-attr, operator]
    path = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def fit(compose_config: Callable[..., DictConfig], teacher_weights: Path, tmp_path: Path) -> Fit:
    """Train a student with these settings, and return its state."""

    def trained(*overrides: str, trains_teacher: bool = False) -> dict[str, torch.Tensor]:
        teacher = [] if trains_teacher else [f"model.teacher.checkpoint={teacher_weights}"]
        task = open_task(compose_config(*SMALL, *teacher, *overrides), folder=tmp_path / "run")
        task.prepare()
        seed_everything(task.cfg.seed, verbose=False)
        datamodule = task.datamodule()
        module = task.module(datamodule)
        callbacks = [StepSeed(task.cfg.seed), *task.callbacks()]
        trainer = make_trainer(task, callbacks=callbacks, loggers=[])
        trainer.fit(module, datamodule=datamodule)
        return {name: value.clone() for name, value in module.state_dict().items()}

    return trained


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples live teachers were asked for, a number each time."""
    calls: list[int] = []
    answer = Teacher.__call__

    def counted(teacher: Teacher, batch: Any, **options: Any) -> Any:
        calls.append(len(batch.images_BCHW))
        return answer(teacher, batch, **options)

    monkeypatch.setattr(Teacher, "__call__", counted)
    return calls
