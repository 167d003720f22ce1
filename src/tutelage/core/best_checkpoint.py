"""The checkpoint that validation picks."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoint; of equal ones the one with the least validation loss, and of those the latest.

    A score that counts a few questions is often equal, and 0 at first: the earliest would be the least trained.
    """

    def __init__(self, *args: Any, loss: str = "val/loss", **kwargs: Any) -> None:
        """See Lightning's ``ModelCheckpoint``; ``loss`` names the metric that breaks ties, where it is logged."""
        super().__init__(*args, **kwargs)
        self.loss = loss
        self.best_loss = float("inf")

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        better = super().check_monitor_top_k(trainer, current)
        loss = float(trainer.callback_metrics.get(self.loss, 0.0))
        kept = self.best_k_models.get(self.kth_best_model_path)
        if not better and current is not None and kept is not None:
            better = bool(current == kept) and loss <= self.best_loss
        if better:
            self.best_loss = loss
        return better

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.best_loss = state_dict["best_loss"]
