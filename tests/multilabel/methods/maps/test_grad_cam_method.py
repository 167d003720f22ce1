"""grad_cam: where gradients are derived and where the classifier's weight will do; hand-worked values."""

# B batch, K labels, H W map

import math
from typing import Any

import pytest
import torch

from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.maps.grad_cam import GradCam
from tutelage.multilabel.methods.method import DataInfo
from tutelage.multilabel.networks.network import Network, NetworkSpec, build_network
from tutelage.multilabel.networks.output import NetOutput

INFO = DataInfo(
    num_samples=9,
    label_names=("a", "b", "c", "d"),
    positives_K=torch.ones(4, dtype=torch.int64),
    max_positives=2,
    batch_size=3,
)


def network(name: str = "resnet10t", head: str = "Linear", resolution: int = 64, **settings: Any) -> Network:
    return build_network(
        NetworkSpec(name=name, weights="none"),
        num_labels=4,
        head={"_target_": f"tutelage.multilabel.networks.heads.{head}", **settings},
        resolution=resolution,
        where="model.student",
    )


def test_by_hand() -> None:
    student = torch.tensor([[[[3.0, 4.0], [-5.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]])
    teacher = torch.tensor([[[[4.0, 3.0], [-1.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]]])
    batch = Batch(torch.zeros(1, 3, 1, 1), torch.tensor([[1, 0]]), torch.tensor([0]), torch.tensor([0]))
    for divergence, expected in (("cosine", 1 - 24 / 25), ("l1", 2 / 5)):
        method = GradCam(divergence=divergence)  # type: ignore[arg-type]
        method.most = 1
        outputs = [
            NetOutput(torch.zeros(1, 2), grad_cams=lambda labels_BL, maps=maps: maps[:, labels_BL[0]])  # type: ignore[misc]
            for maps in (student, teacher)
        ]
        assert method(*outputs, batch, 0.0)["grad_cam"].item() == pytest.approx(expected, abs=1e-6)
    absent = batch._replace(target_BK=torch.zeros(1, 2))
    assert method(*outputs, absent, 0.0)["grad_cam"].item() == 0 and math.isfinite(expected)


def test_gradients_are_derived_only_where_the_weight_will_not_do() -> None:
    method = GradCam(divergence="cosine")
    method.setup(network(), network(head="Mlp", hidden=8), INFO)
    assert method.student_reads == {"label_cams"} and method.teacher_reads == {"grad_cams", "logits_BK"}
    assert method.most == 2


def test_both_ways_give_the_same_loss_and_gradient() -> None:
    images = torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    target_BK = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, -1, 0]], dtype=torch.int8)
    torch.manual_seed(0)
    student, teacher = network().eval(), network("mobilenetv2_035").eval()
    found = []
    for view in ("label_cams", "grad_cams"):
        method = GradCam(divergence="cosine")
        method.setup(student, teacher, INFO)
        method._look_at(student=view, teacher=view)  # type: ignore[arg-type]
        student.zero_grad()
        loss = method(
            student(images, reads=method.student_reads),
            teacher(images, reads=method.teacher_reads).detached(),
            Batch(images, target_BK, torch.arange(3), torch.zeros(3)),
            0.0,
        )["grad_cam"]
        loss.backward()
        gradient = next(student.backbone.parameters()).grad
        assert gradient is not None
        found.append((loss.detach(), gradient.clone(), student.head.classifier.weight.grad.clone()))  # type: ignore[union-attr]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
        assert one.abs().sum() > 0


def test_a_network_that_classifies_by_a_token_is_refused() -> None:
    vit = network("vit_tiny_patch16_224")
    with pytest.raises(ConfigError, match="classifies by a token of its own"):
        GradCam(divergence="cosine").setup(network(), vit, INFO)
