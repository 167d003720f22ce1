"""How fast training goes: tokens a second, share of the device's peak, memory."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from tutelage.text2sql.model.language_model import LanguageModel
from tutelage.text2sql.training.packing import IGNORED, TokenBatch

# Dense bf16 multiply-adds, in FLOP/s, from the makers' data sheets (without sparsity).
PEAK_FLOPS = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A6000": 155e12, "A10": 125e12,
    "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip


class Throughput(Callback):
    """Logs tokens a second, MFU and peak memory on a GPU.

    ``train/tokens_per_s`` counts tokens that are computed, ``train/seen_tokens_per_s`` those of the samples by
    themselves (a shared prefix once for each sample), ``train/answer_tokens_per_s`` those that carry loss.

    The first steps of a run, which warm caches up, count for the first log only.
    """

    def __init__(self, *, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps
        self.tokens = self.seen = self.steps = 0
        self.answers: Tensor | int = 0
        self.started = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()  # answering is not training

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: TokenBatch, batch_idx: int
    ) -> None:
        self.tokens += batch.num_tokens
        self.seen += batch.num_seen
        self.answers = self.answers + (batch.target_BT != IGNORED).sum()
        self.steps += 1
        if self.steps < self.every_n_steps:
            return
        answers = int(self.answers)  # waits for the device, so the clock is read after it
        seconds = time.monotonic() - self.started
        model = pl_module.get_submodule("model")
        assert isinstance(model, LanguageModel)
        # Other ranks have as many rows; their exact count is not worth a synchronisation.
        found = {
            "train/tokens_per_s": self.tokens * trainer.world_size / seconds,
            "train/seen_tokens_per_s": self.seen * trainer.world_size / seconds,
            "train/answer_tokens_per_s": answers * trainer.world_size / seconds,
        }
        if batch.input_ids_BT.is_cuda:
            peak = peak_flops(torch.cuda.get_device_name())
            if peak is not None:
                found["train/mfu"] = 100 * self.tokens / seconds * flops_per_token(model) / peak
            found["train/peak_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        pl_module.log_dict(found, prog_bar=True, batch_size=1)
        self._reset()

    def _reset(self) -> None:
        self.tokens = self.seen = self.steps = 0
        self.answers = 0
        self.started = time.monotonic()


def flops_per_token(model: LanguageModel) -> float:
    """Floating-point operations of a training step per token, without those of attention scores and recomputation.

    Two for each weight in the forward pass, two for the gradient of its input, two for its own if it is trained; an
    embedding is looked up and costs nothing, unless it is the output layer, too (which works on answers only, and
    is counted as if it did on all).
    """
    head = model.causal.get_output_embeddings()  # type: ignore[no-untyped-call]
    embedding = model.causal.get_input_embeddings()
    looked_up = {id(p) for p in embedding.parameters()} - {id(p) for p in head.parameters()}
    return float(
        sum(
            (6 if parameter.requires_grad else 4) * parameter.numel()
            for parameter in model.parameters()
            if parameter.ndim > 1 and id(parameter) not in looked_up
        )
    )


def peak_flops(device: str) -> float | None:
    """Look up a device's dense bf16 rate by its name; None where it is not known."""
    return next((flops for name, flops in PEAK_FLOPS.items() if name in device), None)
