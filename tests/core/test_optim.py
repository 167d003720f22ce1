"""Optimisers, their parameter groups and schedules."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from tutelage.core.errors import ConfigError
from tutelage.core.optim import Optim


def optim(**changes: Any) -> Optim:
    values = {"name": "adamw", "lr": 0.1, "weight_decay": 0.5, "schedule": "constant", "warmup": 0.0}
    return Optim(**(values | changes))


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def rates(configured: dict[str, Any], *, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(configured["optimizer"].param_groups[0]["lr"])
        configured["optimizer"].step()
        configured["lr_scheduler"]["scheduler"].step()
    return found


def test_groups_decay_weights_only_and_speed_up_the_head() -> None:
    model = network()
    configured = optim(head_lr_factor=10.0).configure(
        model.named_parameters(), total_steps=10, head=["2.weight", "2.bias"]
    )
    conv, norm, linear = model
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in configured["optimizer"].param_groups
        for parameter in group["params"]
    }
    assert found == {
        id(conv.weight): (0.1, 0.5),
        id(conv.bias): (0.1, 0.0),
        id(norm.weight): (0.1, 0.0),
        id(norm.bias): (0.1, 0.0),
        id(linear.weight): (1.0, 0.5),
        id(linear.bias): (1.0, 0.0),
    }


def test_what_is_exempted_is_not_decayed() -> None:
    model = network()
    configured = optim().configure(model.named_parameters(), total_steps=10, undecayed=["0.weight"])
    decayed = {
        id(parameter)
        for group in configured["optimizer"].param_groups
        for parameter in group["params"]
        if group["weight_decay"]
    }
    assert decayed == {id(model[2].weight)}


def test_frozen_parameters_are_left_out() -> None:
    model = network()
    model[0].requires_grad_(False)
    configured = optim().configure(model.named_parameters(), total_steps=10)
    held = {id(p) for group in configured["optimizer"].param_groups for p in group["params"]}
    assert held == {id(p) for p in model[1:].parameters()}


def test_cosine_with_warmup() -> None:
    configured = optim(schedule="cosine", warmup=0.2).configure(network().named_parameters(), total_steps=10)
    # Two steps of rise, 1/3 and 2/3, then half a cosine over eight: its middle is half the rate.
    found = rates(configured, steps=10)
    assert found[:3] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1])
    assert found[6] == pytest.approx(0.05)
    assert found[9] == pytest.approx(0.1 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * 7 / 8)).item()))


def test_constant_with_warmup() -> None:
    configured = optim(warmup=0.2).configure(network().named_parameters(), total_steps=10)
    assert rates(configured, steps=4) == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, 0.1])


def test_onecycle_is_torchs() -> None:
    configured = optim(name="adam", schedule="onecycle", warmup=0.2).configure(
        network().named_parameters(), total_steps=20
    )
    reference = torch.optim.Adam(network().parameters(), lr=0.1)
    schedule = OneCycleLR(reference, max_lr=0.1, total_steps=20, pct_start=0.2)
    expected = rates({"optimizer": reference, "lr_scheduler": {"scheduler": schedule}}, steps=20)
    assert rates(configured, steps=20) == pytest.approx(expected)
    assert max(expected) == pytest.approx(0.1)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "constant"])
def test_runs_of_few_steps(schedule: str, steps: int) -> None:
    configured = optim(schedule=schedule, warmup=0.2).configure(network().named_parameters(), total_steps=steps)
    assert all(0 <= rate <= 0.1 for rate in rates(configured, steps=steps))


def test_stretch_stops_before_the_schedule_ends() -> None:
    whole = optim(schedule="cosine").configure(network().named_parameters(), total_steps=20)
    half = optim(schedule="cosine", stretch=2.0).configure(network().named_parameters(), total_steps=10)
    assert rates(half, steps=10) == pytest.approx(rates(whole, steps=20)[:10])


def test_schedules_are_saved_as_plain_containers(tmp_path: Any) -> None:
    for schedule in ("onecycle", "cosine", "constant"):
        configured = optim(schedule=schedule).configure(network().named_parameters(), total_steps=10)
        rates(configured, steps=3)
        torch.save(configured["lr_scheduler"]["scheduler"].state_dict(), tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        again = optim(schedule=schedule).configure(network().named_parameters(), total_steps=10)
        again["lr_scheduler"]["scheduler"].load_state_dict(state)
        assert again["lr_scheduler"]["scheduler"].last_epoch == 3


def test_sgd_steps_by_hand() -> None:
    parameter = nn.Parameter(torch.tensor([[2.0]]))
    configured = optim(name="sgd", momentum=0.9).configure([("weight", parameter)], total_steps=10)
    for _ in range(2):
        configured["optimizer"].zero_grad()
        parameter.sum().backward()
        configured["optimizer"].step()
    # v1 = 1 + .5·2 = 2, w1 = 1.8; v2 = .9·2 + 1 + .5·1.8 = 3.7, w2 = 1.43
    assert parameter.item() == pytest.approx(1.43)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr", 0.0),
        ("weight_decay", -1.0),
        ("warmup", 1.0),
        ("momentum", 1.0),
        ("head_lr_factor", 0.0),
        ("stretch", 0.5),
    ],
)
def test_impossible_values_are_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"optim.{key}"):
        optim(**{key: value})


def test_nothing_to_train_is_refused() -> None:
    model = network().requires_grad_(False)
    with pytest.raises(ConfigError, match="no parameter to train"):
        optim().configure(model.named_parameters(), total_steps=10)


def test_a_head_factor_without_a_head_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim\.head_lr_factor"):
        optim(head_lr_factor=2.0).configure(network().named_parameters(), total_steps=10)
