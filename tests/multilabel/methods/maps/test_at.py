"""at: against a loop, stages that are paired from the deepest, and what is refused."""

# B batch, C channels, H W map

import pytest
import torch
from torch import Tensor

from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.maps.at import At
from tutelage.multilabel.methods.method import DataInfo
from tutelage.multilabel.networks.network import NetworkSpec, build_network
from tutelage.multilabel.networks.output import NetOutput


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_against_a_loop_with_the_deepest_stages_paired() -> None:
    student = (features(1, 2, 9, 8, 8), features(2, 2, 3, 4, 4), features(3, 2, 5, 2, 2))
    teacher = (features(4, 2, 4, 4, 4), features(5, 2, 6, 2, 2))
    batch = Batch(torch.zeros(2, 3, 1, 1), torch.zeros(2, 1), torch.arange(2), torch.zeros(2))
    expected = 0.0
    for s, t in zip(student[1:], teacher, strict=True):
        for i in range(2):
            a, b = (sum(channel**2 for channel in x[i]) / x.shape[1] for x in (s, t))
            a, b = a.flatten() / a.norm(), b.flatten() / b.norm()  # type: ignore[union-attr]
            expected += sum((p - q) ** 2 for p, q in zip(a.tolist(), b.tolist(), strict=True)) / a.numel() / 2
    found = At(stages=2)(
        NetOutput(torch.zeros(2, 1), stages=student), NetOutput(torch.zeros(2, 1), stages=teacher), batch, 0
    )
    assert found["at"].item() == pytest.approx(expected, rel=1e-5)


def test_more_stages_than_there_are_is_refused() -> None:
    head = {"_target_": "tutelage.multilabel.networks.heads.Linear"}
    network = build_network(
        NetworkSpec(name="resnet10t", weights="none"), num_labels=2, head=head, resolution=32, where="model.student"
    )
    info = DataInfo(num_samples=2, label_names=("a", "b"), positives_K=torch.ones(2), max_positives=1, batch_size=2)
    found = len(network.shape.stage_channels)
    At(stages=found).setup(network, network, info)
    with pytest.raises(ConfigError, match=f"method.stages: 9, but the student, resnet10t, shows {found}"):
        At(stages=9).setup(network, network, info)
