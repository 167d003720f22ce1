"""The gradient of two processes, averaged, is the gradient of one, however what counts is spread."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, distributed

from tutelage.core.distributed import global_mean
from tutelage.multilabel.losses import Bce

# Of the first three rows, which one process has, hardly a label is known.
TARGET_BK = torch.tensor([[1, -1, -1], [-1, -1, -1], [-1, 0, -1], [0, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.int8)
REDUCTIONS = ("mean", "sum")


def gradient(reduction: str, rows: slice) -> Tensor:
    # One weight a label, as a network would share it between rows.
    weight_K = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    inputs_BK = torch.arange(18.0).reshape(6, 3) / 10
    Bce(reduction=reduction)((inputs_BK * weight_K)[rows], TARGET_BK[rows]).backward()  # type: ignore[arg-type]
    assert weight_K.grad is not None
    return weight_K.grad


def process(rank: int, out: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=2)
    averaged = {}
    for reduction in REDUCTIONS:
        averaged[reduction] = gradient(reduction, slice(3 * rank, 3 * rank + 3))
        distributed.all_reduce(averaged[reduction])
        averaged[reduction] /= 2
    if rank == 0:
        torch.save(averaged, out / "averaged.pt")
    distributed.destroy_process_group()


def test_two_processes_learn_from_labels_as_one_does(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(process, args=(tmp_path,), nprocs=2, start_method="fork")
    averaged = torch.load(tmp_path / "averaged.pt")
    for reduction in REDUCTIONS:
        torch.testing.assert_close(averaged[reduction], gradient(reduction, slice(None)))


def test_mean_of_what_counts() -> None:
    assert global_mean(torch.ones(2, 2), torch.zeros(2, 2)).item() == 0
    assert global_mean(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0])).item() == 1
    assert global_mean(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 0.5])).item() == pytest.approx(2)
    assert global_mean(torch.tensor([2.0, torch.inf]), torch.tensor([True, False])).item() == 2
