"""One method a family under the real compiler: the same losses and gradients as without."""

import shutil

import pytest
import torch
from torch import Tensor

from tutelage.core.build import build
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.losses import Bce
from tutelage.multilabel.methods.catalog import own_settings
from tutelage.multilabel.methods.method import DataInfo
from tutelage.multilabel.module import Distillation
from tutelage.multilabel.networks.network import Network, NetworkSpec, build_network
from tutelage.multilabel.teacher import Teacher
from tutelage.multilabel.terms import TermSpec


def network(name: str) -> Network:
    return build_network(
        NetworkSpec(name=name, weights="none"),
        num_labels=4,
        head={"_target_": "tutelage.multilabel.networks.heads.Linear"},
        resolution=64,
        where="model.student",
    )


def step(name: str, *, compile: bool) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    info = DataInfo(
        num_samples=8,
        label_names=("a", "b", "c", "d"),
        positives_K=torch.full((4,), 2),
        max_positives=2,
        batch_size=4,
    )
    module = Distillation(
        network("test_efficientnet"),
        task_loss=Bce(reduction="mean"),
        terms={name: TermSpec(method=build(own_settings(name), where="method"))},
        teachers={"teacher": Teacher(network("test_resnet"), compile=compile)},
        data=info,
        optim=None,  # type: ignore[arg-type]
        compile=compile,
    )
    images = torch.randint(0, 256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    batch = Batch(images, torch.eye(4, dtype=torch.int8), torch.arange(4), torch.zeros(4, dtype=torch.int64))
    teacher = module.teachers["teacher"](batch, reads=module.teacher_reads["teacher"])
    student = module.student(batch.images_BCHW, reads=module.student_reads)
    loss, _ = module.terms[name](torch.tensor(1.0), student, teacher, batch, progress=0.5)
    loss.backward()
    gradient = next(parameter for parameter in module.student.backbone.parameters() if parameter.ndim == 4).grad
    assert gradient is not None
    return loss.detach(), gradient


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler for CPUs needs g++")
@pytest.mark.parametrize("name", ["mld", "cam_kd", "fitnet", "sp"])
def test_compiled_networks_teach_the_same(name: str) -> None:
    plain, compiled = step(name, compile=False), step(name, compile=True)
    torch.testing.assert_close(compiled[0], plain[0], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(compiled[1], plain[1], rtol=1e-2, atol=1e-4)
    assert plain[1].abs().sum() > 0
