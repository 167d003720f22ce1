"""cam_kd: hand-worked values, what counts, and what is refused."""

# B batch, K labels, C channels, H W map

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.maps.cam_kd import CamKd
from tutelage.multilabel.methods.method import DataInfo
from tutelage.multilabel.networks.network import Network, NetworkSpec, build_network
from tutelage.multilabel.networks.output import NetOutput

DEFAULT: dict[str, Any] = {
    "divergence": "mse",
    "logit_weight": 1.0,
    "spatial_weight": 1.0,
    "support": "all",
    "top_k": 3,
    "threshold": 0.5,
}


def make(**changes: Any) -> CamKd:
    return CamKd(**(DEFAULT | changes))


def shown(cams: Tensor) -> NetOutput:
    return NetOutput(logits_BK=cams.flatten(2).mean(-1), cams_BKHW=cams)


def cams(seed: int) -> Tensor:
    return torch.randn(4, 5, 6, 6, generator=torch.Generator().manual_seed(seed)) * 3


def target() -> Tensor:
    return torch.randint(-1, 2, (4, 5), generator=torch.Generator().manual_seed(9), dtype=torch.int8)


def loss(method: CamKd, student: Tensor, teacher: Tensor, target_BK: Tensor) -> Tensor:
    size = len(target_BK)
    batch = Batch(torch.zeros(size, 3, 1, 1), target_BK, torch.arange(size), torch.zeros(size))
    return method(shown(student), shown(teacher), batch, 0.0)["cam"]


def test_the_default_is_the_mean_square_of_all_maps_by_hand() -> None:
    student = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    teacher = torch.tensor([[[[1.0, 0.0], [3.0, 2.0]], [[1.0, -1.0], [0.0, 0.0]]]])
    absent = torch.zeros(1, 2)
    # label 0: (0, 2, 0, 2)² → mean 2; label 1: (−1, 1, 0, 0)² → mean 0.5
    assert loss(make(), student, teacher, absent).item() == pytest.approx((2 + 0.5) / 2)
    # label 0: mean difference 1 → 1, variance 1; label 1: mean 0 → 0, variance 0.5
    assert loss(make(spatial_weight=0.0), student, teacher, absent).item() == pytest.approx((1 + 0) / 2)
    assert loss(make(logit_weight=0.0), student, teacher, absent).item() == pytest.approx((1 + 0.5) / 2)
    assert loss(make(logit_weight=3.0), student, teacher, absent).item() == pytest.approx((3 + 1 + 0.5) / 2)


@pytest.mark.parametrize("support", ["positives", "teacher_top", "teacher_above", "teacher_probability"])
def test_supports_against_a_loop(support: str) -> None:
    student, teacher, target_BK = cams(1), cams(2), target()
    logits_BK = shown(teacher).logits_BK
    weighted, weights = 0.0, 0.0
    for i, k in itertools.product(range(4), range(5)):
        weight = {
            "positives": float(target_BK[i, k] == 1),
            "teacher_top": float(k in logits_BK[i].topk(2).indices),
            "teacher_above": float(torch.sigmoid(logits_BK[i, k]) > 0.6),
            "teacher_probability": torch.sigmoid(logits_BK[i, k]).item(),
        }[support] * float(target_BK[i, k] >= 0)
        weighted += weight * (student[i, k] - teacher[i, k]).square().mean().item()
        weights += weight
    found = loss(make(support=support, top_k=2, threshold=0.6), student, teacher, target_BK)
    assert found.item() == pytest.approx(weighted / weights, rel=1e-5)


def test_no_pair_that_counts_costs_nothing_and_has_a_gradient() -> None:
    student = cams(1).requires_grad_()
    found = loss(make(support="positives"), student, cams(2), torch.zeros(4, 5))
    found.backward()
    assert found.item() == 0 and student.grad is not None and not student.grad.any()


def network(head: str, **settings: float) -> Network:
    return build_network(
        NetworkSpec(name="resnet10t", weights="none"),
        num_labels=64,
        head={"_target_": f"tutelage.multilabel.networks.heads.{head}", **settings},
        resolution=32,
        where="model.student",
    )


def info(max_positives: int = 3) -> DataInfo:
    return DataInfo(
        num_samples=100,
        label_names=tuple(map(str, range(64))),
        positives_K=torch.ones(64, dtype=torch.int64),
        max_positives=max_positives,
        batch_size=8,
    )


def test_what_has_no_meaning_is_refused() -> None:
    with pytest.raises(ConfigError, match="only the MSE splits"):
        make(divergence="l1", logit_weight=0.5)
    with pytest.raises(ConfigError, match=r"method\.top_k"):
        make(top_k=0)
    with pytest.raises(ConfigError, match=r"method\.threshold: 1\.5"):
        make(threshold=1.5)  # nothing would count
    linear, gmp = network("Linear"), network("Gmp")
    make().setup(linear, gmp, info())
    make(spatial_weight=0.0).setup(linear, linear, info())
    with pytest.raises(ConfigError, match="the mean of the teacher's maps is not its logits: head=gmp"):
        make(spatial_weight=0.0).setup(linear, gmp, info())
    with pytest.raises(ConfigError, match="student's maps"):
        make(logit_weight=2.0).setup(network("Lse", sharpness=5.0), linear, info())
    with pytest.raises(ConfigError, match="student's maps"):
        make(logit_weight=2.0).setup(network("Mlp", hidden=4), linear, info())


def test_labels_are_chosen_before_maps_are_made_where_there_are_many() -> None:
    linear = network("Linear")
    method = make(support="positives")
    method.setup(linear, linear, info())
    assert method.student_reads == {"label_cams"} and method.teacher_reads == {"label_cams", "logits_BK"}
    few = make(support="positives")
    few.setup(linear, linear, info(max_positives=40))
    assert few.student_reads == {"cams_BKHW"}
    whole = make()
    whole.setup(linear, linear, info())
    assert whole.student_reads == {"cams_BKHW"}
    # the same loss, through real networks
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    target_BK = torch.zeros(2, 64, dtype=torch.int8)
    target_BK[0, [3, 60]], target_BK[1, 7] = 1, 1
    batch = Batch(images, target_BK, torch.arange(2), torch.zeros(2))
    teacher = network("Linear").eval()
    losses = [
        each(linear.eval()(images, reads=each.student_reads), teacher(images, reads=each.teacher_reads), batch, 0.0)[
            "cam"
        ]
        for each in (method, few)
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-7)
