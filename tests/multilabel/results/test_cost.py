"""What a step costs, as a run's metrics have it."""

from types import SimpleNamespace
from typing import Any, cast

import torch

from tutelage.multilabel.results.cost import StepCost, read_peak, reset_peak


def test_steps_are_counted_over_the_parts_of_a_resumed_run() -> None:
    trainer, module = cast(Any, SimpleNamespace()), cast(Any, None)
    cost = StepCost()
    assert cost.metrics() == {}
    cost.load_state_dict({"cpu_seconds": 100.0})
    cost.on_train_start(trainer, module)
    for _ in range(3):
        cost.on_train_batch_start(trainer, module, None, 0)
        sum(range(10000))
        cost.on_train_batch_end(trainer, module, None, None, 0)
    cost.on_train_end(trainer, module)
    found = cost.metrics()
    assert set(found) == {"time/step_ms", "time/train_cpu_s", "memory/peak_mb"}
    assert found["time/step_ms"] > 0
    assert cost.state_dict()["cpu_seconds"] > 100
    assert found["memory/peak_mb"] > 10


def test_a_peak_is_that_of_its_own_run() -> None:
    before = read_peak()
    large = torch.ones(64 * 2**20)  # 256 MiB
    peak = read_peak()
    assert peak >= before
    assert peak >= large.nbytes
    del large
    reset_peak()
    assert read_peak() <= peak
