"""Two processes learn from every method what one process learns from the whole batch."""

# B batch

from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from pairs import batch, permuted, set_up, total, with_padding
from test_features_and_relations import METHODS, SETTINGS
from torch import Tensor, distributed

# Six samples and two rows of padding: each process has some of both.
BATCH = with_padding(with_padding(batch()))
STEPS = 2  # memories and queues are read in the second


def learned(name: str, rows: Tensor, world_size: int) -> dict[str, Tensor]:
    """Return the gradients of the last step, averaged over processes, and what the method keeps."""
    method, student, teacher = set_up(name, "cnn_from_cnn", **SETTINGS.get(name, {}))
    for _ in range(STEPS):
        student.zero_grad()
        method.zero_grad()
        total(method, student, teacher, permuted(BATCH, rows)).backward()
    found = {}
    for owner, module in (("student", student.backbone), ("method", method)):
        for key, parameter in module.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            if world_size > 1:
                distributed.all_reduce(gradient)
                gradient = gradient / world_size
            found[f"{owner}.{key}"] = gradient
    return found | {f"kept.{key}": value for key, value in method.named_buffers()}


def process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows = torch.arange(rank, len(BATCH.index_B), 2)  # as core.batches deals them out
    found = {name: learned(name, rows, 2) for name in METHODS}
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.start_processes(process, args=(folder,), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_learn_what_one_does(name: str, of_two: list[dict[str, dict[str, Tensor]]]) -> None:
    expected = learned(name, torch.arange(len(BATCH.index_B)), 1)
    assert any(value.float().abs().sum() > 0 for key, value in expected.items() if key.startswith("student."))
    for found in of_two:
        assert found[name].keys() == expected.keys()
        for key, value in expected.items():
            scale = value.float().abs().max().item()
            torch.testing.assert_close(
                found[name][key], value, rtol=1e-3, atol=1e-4 * scale + 1e-8, msg=lambda m, key=key: f"{key}: {m}"
            )
