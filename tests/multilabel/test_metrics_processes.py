"""Two processes give the scores of one."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing
from torch import distributed

from tutelage.core.batches import EvalBatches
from tutelage.multilabel.data.source import Boxes
from tutelage.multilabel.metrics import MultilabelScores, scores
from tutelage.multilabel.results.localisation import Localisation

SAMPLES, LABELS = 13, 4


def case() -> tuple[np.ndarray, np.ndarray, torch.Tensor, list[Boxes]]:
    random = np.random.default_rng(0)
    logits_NK = random.normal(size=(SAMPLES, LABELS)).astype(np.float32)
    targets_NK = random.integers(-1, 2, size=(SAMPLES, LABELS)).astype(np.int8)
    cams = torch.from_numpy(random.normal(size=(SAMPLES, LABELS, 4, 4)).astype(np.float32))
    boxes = [
        Boxes(np.array([i % LABELS]), np.array([[0.1, 0.2, 0.3 + 0.05 * i, 0.9]], dtype=np.float32))
        for i in range(SAMPLES)
    ]
    return logits_NK, targets_NK, cams, boxes


def measure(rank: int, world_size: int, out: Path) -> None:
    logits_NK, targets_NK, cams, boxes = case()
    classes, places = MultilabelScores(num_labels=LABELS), Localisation(num_labels=LABELS)
    for batch in EvalBatches(SAMPLES, batch_size=4, rank=rank, world_size=world_size):
        index_B = torch.tensor([key.sample for key in batch])
        rows = index_B.clamp(min=0)
        classes.update(torch.from_numpy(logits_NK)[rows], torch.from_numpy(targets_NK)[rows], index_B)
        places.update(cams[rows], [boxes[i] for i in rows], index_B)
    found = classes.compute() | places.compute()
    np.savez(out / f"{rank}of{world_size}.npz", logits_NK=classes.prediction().logits_NK, **found)


def process(rank: int, world_size: int, out: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=world_size)
    measure(rank, world_size, out)
    distributed.destroy_process_group()


def test_two_processes_score_as_one(tmp_path: Path) -> None:
    # Forked children have everything imported; there is no CUDA in them to mind.
    torch.multiprocessing.start_processes(process, args=(2, tmp_path), nprocs=2, start_method="fork")
    measure(0, 1, tmp_path)
    logits_NK, targets_NK, *_ = case()
    one = np.load(tmp_path / "0of1.npz")
    assert float(one["mAP"]) == pytest.approx(scores(logits_NK, targets_NK)["mAP"])
    for rank in (0, 1):
        two = np.load(tmp_path / f"{rank}of2.npz")
        assert np.array_equal(two["logits_NK"], logits_NK)
        assert sorted(two.files) == sorted(one.files)
        for name in one.files:
            np.testing.assert_allclose(two[name], one[name], rtol=1e-6)
