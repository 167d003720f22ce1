"""Supervised fine-tuning as a Lightning module: it only wires."""

from collections.abc import Callable, Mapping
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
from tutelage.text2sql.model.sharding import spread
from tutelage.text2sql.training.datamodule import ValBatch
from tutelage.text2sql.training.packing import IGNORED, TokenBatch
from tutelage.text2sql.training.self_check import check_packing

OUT_OF_MEMORY = (
    "lower data.micro_batch_tokens (to data.max_length at least; the step stays the same), set "
    "model.gradient_checkpointing=true, use adapter=lora or adapter=qlora, or lower data.max_length, which leaves "
    "columns out of long schemas"
)


class Validation(Protocol):
    """Answers validation questions."""

    def __call__(self, model: LanguageModel, indices: list[int]) -> list[bool]:
        """Say of each question whether the model's query gives the gold query's result."""
        ...


class Text2SqlModule(LightningModule):
    """Trains a language model on answers; its validation score is execution accuracy."""

    def __init__(
        self,
        model: LanguageModel,
        *,
        optim: Optim,
        validation: Validation,
        weights: Callable[[], LanguageModel] | None = None,
    ) -> None:
        """Take the model.

        Args:
            model: With its weights; or, for a strategy that spreads them, on the meta device.
            optim: The optimiser and its schedule.
            validation: Scores the model's answers.
            weights: Loads the weights of a model that is on the meta device. Called in the first process alone.
        """
        super().__init__()
        self.model, self.optim, self.validation = model.train(), optim, validation  # transformers loads in eval mode
        self.weights = weights
        self.strict_loading = False  # a checkpoint holds what is trained; on_load_checkpoint checks that it holds all
        self.step_loss: Tensor | float = 0.0
        self.checked = False  # whether packing changes nothing; asked at the first step of each start
        self.correct = self.asked = 0
        self.nll: Tensor | float = 0.0
        self.answer_tokens: Tensor | int = 0

    def configure_model(self) -> None:
        """Spread the weights where the strategy wants that; asked before fit, and again before each test."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ModelParallelStrategy) and not self.model.sharded:
            spread(
                self.model,
                strategy.device_mesh,
                compute_dtype=torch.bfloat16 if self.trainer.precision == "bf16-mixed" else None,
                weights=self.weights,
                device=strategy.root_device,
            )

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        if not self.checked:
            self.checked = True
            if batch.trees:
                check_packing(self.model, batch)
        nll: Tensor = self.model(batch)
        # Ranks' gradients are averaged and accumulated losses divided; here each token weighs 1 / answers_in_step.
        loss: Tensor = nll * (self.trainer.world_size * self.trainer.accumulate_grad_batches / batch.answers_in_step)
        # Over all passes and ranks of a step, the mean of its answer tokens.
        self.step_loss = self.step_loss + nll.detach() * (self.trainer.world_size / batch.answers_in_step)
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0 or self.trainer.is_last_batch:
            mean = self.step_loss
            self.log("train/loss", mean, on_step=True, on_epoch=False, prog_bar=True, sync_dist=True, batch_size=1)
            self.step_loss = 0.0
        return loss

    def validation_step(self, batch: ValBatch, batch_idx: int) -> None:
        # Filler is answered too, since ranks may have to gather weights together, but does not count.
        found = self.validation(self.model, [max(index, 0) for index in batch.indices])
        real = [right for index, right in zip(batch.indices, found, strict=True) if index != PADDING]
        self.correct, self.asked = self.correct + sum(real), self.asked + len(real)
        for gold in batch.golds:
            self.nll = self.nll + self.model(gold)
            self.answer_tokens = self.answer_tokens + (gold.target_BT != IGNORED).sum()

    def on_validation_epoch_end(self) -> None:
        counts = torch.tensor([self.correct, self.asked, self.nll, self.answer_tokens], device=self.device)
        self.correct = self.asked = self.answer_tokens = 0
        self.nll = 0.0
        correct, asked, nll, answer_tokens = self.trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        self.log("val/ex", 100 * correct / max(asked, 1), prog_bar=True, rank_zero_only=False)
        # Of checkpoints with equal scores, the one with the least loss is kept.
        self.log("val/loss", nll / max(answer_tokens, 1), prog_bar=True, rank_zero_only=False)

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
