"""Supervised fine-tuning as a Lightning module: it only wires."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from lightning import LightningModule
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from tutelage.core.batches import PADDING
from tutelage.core.errors import RunError
from tutelage.core.optim import Optim
from tutelage.text2sql.model.language_model import LanguageModel
from tutelage.text2sql.model.sharding import shard
from tutelage.text2sql.training.packing import TokenBatch

OUT_OF_MEMORY = (
    "lower data.batch_size (and raise trainer.accumulate_grad_batches as much), set model.gradient_checkpointing=true, "
    "lower data.max_length, or take adapter=lora or adapter=qlora"
)


class Validation(Protocol):
    """Answers validation questions."""

    def __call__(self, model: LanguageModel, indices: list[int]) -> list[bool]:
        """Say of each question whether the model's query gives the gold query's result."""
        ...


class Text2SqlModule(LightningModule):
    """Trains a language model on answers; its validation score is execution accuracy."""

    def __init__(self, model: LanguageModel, *, optim: Optim, validation: Validation) -> None:
        super().__init__()
        self.model, self.optim, self.validation = model.train(), optim, validation  # transformers loads in eval mode
        self.strict_loading = False  # a checkpoint holds what is trained; on_load_checkpoint checks that it holds all
        self.correct = self.asked = 0
        self.sharded = False

    def configure_model(self) -> None:
        """Shard the weights where the strategy wants that; asked before fit, and again before each test."""
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and not self.sharded:
            shard(self.model, self.trainer.strategy.device_mesh)
            self.sharded = True

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        nll: Tensor = self.model(batch)
        # Ranks' gradients are averaged and accumulated losses divided; here each token weighs 1 / answers_in_step.
        loss: Tensor = nll * (self.trainer.world_size * self.trainer.accumulate_grad_batches / batch.answers_in_step)
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=False, prog_bar=True, sync_dist=True, batch_size=1)
        return loss

    def validation_step(self, batch: list[int], batch_idx: int) -> None:
        # Filler is answered too, since ranks may have to gather weights together, but does not count.
        found = self.validation(self.model, [max(index, 0) for index in batch])
        real = [right for index, right in zip(batch, found, strict=True) if index != PADDING]
        self.correct, self.asked = self.correct + sum(real), self.asked + len(real)

    def on_validation_epoch_end(self) -> None:
        counts = torch.tensor([self.correct, self.asked], device=self.device)
        self.correct = self.asked = 0
        correct, asked = self.trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        self.log("val/ex", 100 * correct / max(asked, 1), prog_bar=True, rank_zero_only=False)

    def configure_optimizers(self) -> Any:
        steps = int(self.trainer.estimated_stepping_batches)
        return self.optim.configure(self.model.named_parameters(), total_steps=steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained: of an adapted model the adapter, and nothing of the frozen weights."""
        trained = self._trained()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        missing = self._trained() - checkpoint["state_dict"].keys()
        if missing:
            raise RunError(
                "checkpoint", f"it has no {min(missing)}", "give the model and adapter that it was trained with"
            )

    def _trained(self) -> set[str]:
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad}


class OutOfMemory(Callback):
    """Where a device's memory is not enough, says what to lower."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, torch.OutOfMemoryError):
            what = f"out of memory ({str(exception).splitlines()[0]})"
            raise RunError("train", what, OUT_OF_MEMORY) from exception
