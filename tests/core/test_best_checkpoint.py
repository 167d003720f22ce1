"""Which checkpoint is kept: the best score; of equal ones the least loss, then the latest."""

from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from tutelage.core.best_checkpoint import BestCheckpoint


class Scripted(LightningModule):
    """Has one weight, the number of the epoch, and scores that are given."""

    def __init__(self, scores: list[tuple[float, float | None]]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.scores = scores

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def on_train_epoch_start(self) -> None:
        self.weight.data.fill_(self.current_epoch)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        score, loss = self.scores[self.current_epoch]
        self.log("val/ex", score)
        if loss is not None:
            self.log("val/loss", loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def kept(scores: list[tuple[float, float | None]], folder: Path, *, stop: int | None = None) -> int:
    """Train through the scores, in two parts where ``stop`` is given; return the epoch that is kept."""
    for end in [stop, len(scores)] if stop else [len(scores)]:
        best = BestCheckpoint(
            folder, filename="best", monitor="val/ex", mode="max", save_on_train_epoch_end=False,
            enable_version_counter=False,
        )  # fmt: skip
        last = folder / "last.ckpt"
        trainer = Trainer(
            accelerator="cpu", max_epochs=end, callbacks=[best], logger=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        loader = DataLoader(torch.zeros(1), batch_size=1)  # type: ignore[arg-type]
        trainer.fit(Scripted(scores), loader, loader, ckpt_path=last if last.exists() else None)
        trainer.save_checkpoint(last)
    return int(torch.load(folder / "best.ckpt", weights_only=True)["state_dict"]["weight"])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([(0.0, 3.0), (0.0, 2.0), (0.0, 1.0)], 2),  # nothing is right yet: the earliest would be the least trained
        ([(0.0, 3.0), (5.0, 2.0), (5.0, 2.5)], 1),
        ([(5.0, 3.0), (4.0, 1.0)], 0),  # the score comes first
        ([(5.0, 2.0), (5.0, 2.0)], 1),
        ([(5.0, None), (5.0, None)], 1),
    ],
)
def test_ties(scores: list[tuple[float, float | None]], expected: int, tmp_path: Path) -> None:
    assert kept(scores, tmp_path) == expected


def test_the_loss_of_the_kept_one_survives_a_restart(tmp_path: Path) -> None:
    assert kept([(5.0, 1.0), (5.0, 2.0), (5.0, 1.5)], tmp_path, stop=2) == 0
