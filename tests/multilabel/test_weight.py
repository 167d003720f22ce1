"""λ: calibrated over the first steps, then fixed."""

import pytest
import torch
from torch import Tensor

from tutelage.multilabel.weight import Weight, Weighting


def weights(weighting: Weighting, losses: list[tuple[float, float]]) -> list[float]:
    module = Weight(weighting)
    return [module(torch.tensor(task), torch.tensor(method)).item() for task, method in losses]


def test_calibration_is_the_ratio_of_sums_and_then_stands() -> None:
    losses = [(1.0, 4.0), (3.0, 4.0), (100.0, 1.0), (5.0, 5.0)]
    assert weights(Weighting(calibration_steps=2), losses) == [0.25, 0.5, 0.5, 0.5]


def test_a_weight_that_is_given_is_kept() -> None:
    assert weights(Weighting(value=7.0), [(1.0, 4.0)] * 3) == [7.0] * 3


def test_the_ramp_rises_to_the_weight() -> None:
    assert weights(Weighting(value=8.0, ramp_steps=4), [(1.0, 1.0)] * 6) == [2.0, 4.0, 6.0, 8.0, 8.0, 8.0]


def test_identical_networks_have_no_ratio() -> None:
    assert weights(Weighting(), [(1.0, 0.0)]) == [1.0]


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_its_state_resumes(stop: int) -> None:
    losses: list[tuple[Tensor, Tensor]] = [(torch.rand(()), torch.rand(())) for _ in range(8)]
    whole = Weight(Weighting(calibration_steps=4, ramp_steps=6))
    expected = [whole(*pair) for pair in losses]
    first, second = (Weight(Weighting(calibration_steps=4, ramp_steps=6)) for _ in range(2))
    seen = [first(*pair) for pair in losses[:stop]]
    second.load_state_dict(first.state_dict())
    assert seen + [second(*pair) for pair in losses[stop:]] == expected
