"""The same values as torchdistill has, where it has the method; where they differ, the reason."""

# B batch, K labels, C channels, H W map

from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.logits.functional import pearson_distance, softmax_kl, standardised
from tutelage.multilabel.methods.maps.at import At
from tutelage.multilabel.networks.output import NetOutput

theirs = pytest.importorskip(
    "torchdistill.losses.mid_level", reason="torchdistill is a development extra: pip install -e .[dev]"
)
PLACES: tuple[str, ...] = ("logits", "output", "logits", "output")


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


def shown(value: Tensor) -> dict[str, dict[str, Tensor]]:
    return {"logits": {"output": value}}


STUDENT_BK, TEACHER_BK = random(1, 6, 9), random(2, 6, 9)
EVERYTHING = torch.ones(6, 9, dtype=torch.bool)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd(temperature: float) -> None:
    """Without targets its loss lacks T², which it multiplies in beside the cross-entropy."""
    expected = theirs.KDLoss(*PLACES, temperature=temperature, beta=1)(shown(STUDENT_BK), shown(TEACHER_BK))
    found = softmax_kl(STUDENT_BK, TEACHER_BK, counted_BK=EVERYTHING, temperature=temperature).mean()
    torch.testing.assert_close(found, temperature**2 * expected)


def test_logit_std() -> None:
    """T² as above."""
    expected = theirs.LogitStdKDLoss(*PLACES, temperature=2.0, beta=1)(shown(STUDENT_BK), shown(TEACHER_BK))
    student_BK, teacher_BK = (standardised(logits, counted_BK=EVERYTHING) for logits in (STUDENT_BK, TEACHER_BK))
    found = softmax_kl(student_BK, teacher_BK, counted_BK=EVERYTHING, temperature=2.0).mean()
    torch.testing.assert_close(found, 4 * expected)


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_dist(tau: float) -> None:
    """On softmaxes, as it has them; `method=dist` differs in taking sigmoids."""
    loss = theirs.DISTLoss(*PLACES, beta=2.0, gamma=0.5, tau=tau)
    student_BK, teacher_BK = ((logits / tau).softmax(1) for logits in (STUDENT_BK, TEACHER_BK))
    parts = [
        weight * pearson_distance(student_BK, teacher_BK, counted=EVERYTHING, dim=dim)[0].mean()
        for weight, dim in ((2.0, 1), (0.5, 0))
    ]
    torch.testing.assert_close(tau**2 * (parts[0] + parts[1]), loss(shown(STUDENT_BK), shown(TEACHER_BK)))


def test_at() -> None:
    """Its mode "code", stage by stage, each of weight 1."""
    stages = {"a": (4, 8), "b": (6, 4)}
    student, teacher = (
        {
            name: {"output": random(seed + channels, 3, channels, side, side)}
            for name, (channels, side) in stages.items()
        }
        for seed in (1, 2)
    )
    pairs: dict[str, Any] = {
        name: {"student": {"path": name, "io": "output"}, "teacher": {"path": name, "io": "output"}} for name in stages
    }
    expected = theirs.ATLoss(pairs, mode="code")(student, teacher)
    outputs = [
        NetOutput(torch.zeros(3, 1), stages=tuple(shown["output"] for shown in each.values()))
        for each in (student, teacher)
    ]
    batch = Batch(torch.zeros(3, 3, 1, 1), torch.zeros(3, 1), torch.arange(3), torch.zeros(3))
    torch.testing.assert_close(At(stages=2)(*outputs, batch, 0.0)["at"], expected)
