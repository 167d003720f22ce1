"""Two processes that gather rows learn what one process learns from all of them."""

from pathlib import Path

import torch
import torch.multiprocessing
from torch import Tensor, distributed, nn

from tutelage.core.distributed import gather_rows

ROWS_BC = torch.arange(12.0).reshape(6, 2).sin()


def loss_of_all_pairs(layer: nn.Linear, rows_BC: Tensor) -> Tensor:
    embeddings_BC = gather_rows(layer(rows_BC))
    weight_BB = torch.arange(1.0, 1 + len(embeddings_BC) ** 2).reshape(len(embeddings_BC), -1)  # order matters
    return (weight_BB * (embeddings_BC @ embeddings_BC.T)).square().mean()


def process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    assert gather_rows(torch.tensor([rank, rank + 2])).tolist() == [0, 1, 2, 3]
    layer = nn.Linear(2, 3)
    layer.load_state_dict(torch.load(folder / "layer.pt"))
    loss = loss_of_all_pairs(layer, ROWS_BC[rank::2])  # as core.batches deals them out
    loss.backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        distributed.all_reduce(parameter.grad)
        parameter.grad /= 2
    if rank == 0:
        torch.save([loss.detach(), *(parameter.grad for parameter in layer.parameters())], folder / "two.pt")
    distributed.destroy_process_group()


def test_a_loss_over_the_batch_is_the_same_on_two_processes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(2, 3)
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    torch.multiprocessing.start_processes(process, args=(tmp_path,), nprocs=2, start_method="fork")
    loss = loss_of_all_pairs(layer, ROWS_BC)
    loss.backward()
    for found, expected in zip(
        torch.load(tmp_path / "two.pt"), [loss, *(parameter.grad for parameter in layer.parameters())], strict=True
    ):
        torch.testing.assert_close(found, expected.detach())
