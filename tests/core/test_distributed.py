"""What processes find of a share each comes together again, in order, on each."""

from pathlib import Path

import torch
import torch.multiprocessing
from torch import distributed

from tutelage.core.distributed import gather

LENGTHS = (0, 1, 2, 5)


def process(rank: int, out: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=2)
    found = [gather([f"item {i}" for i in range(length)][rank::2], 2) for length in LENGTHS]
    torch.save(found, out / f"{rank}.pt")
    distributed.destroy_process_group()


def test_shares_of_two_processes_come_together(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(process, args=(tmp_path,), nprocs=2, start_method="fork")
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found == [[f"item {i}" for i in range(length)] for length in LENGTHS]
    assert gather([7, 8], 1) == [7, 8]
