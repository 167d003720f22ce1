"""What of a language model is trained: everything, or a low-rank adapter on a frozen (or 4-bit) model."""

import importlib.util
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import BitsAndBytesConfig, PreTrainedModel

from tutelage.core.errors import ConfigError
from tutelage.core.randomness import seed_of

Network = PreTrainedModel | PeftModel


class Adapter(ABC):
    """One way to train a model.

    Attributes:
        trains_all: Whether the model's own weights are trained.
        quantization: How frozen weights are kept; None for as they are.
    """

    trains_all: ClassVar[bool] = False
    quantization: ClassVar[BitsAndBytesConfig | None] = None

    def check(self) -> None:  # noqa: B027 (most have nothing to refuse)
        """Refuse what this machine cannot do.

        Raises:
            ConfigError: A package or a device is missing.
        """

    @abstractmethod
    def wrap(self, model: PreTrainedModel, *, seed: int) -> Network:
        """Set what is trained; new weights are a function of the seed."""


class Full(Adapter):
    """All weights are trained."""

    trains_all = True

    def wrap(self, model: PreTrainedModel, *, seed: int) -> Network:
        model.requires_grad_(True)
        return model


class Lora(Adapter):
    """Low-rank updates of linear layers (LoRA, arXiv 2106.09685); the model's own weights stay as they are."""

    def __init__(
        self,
        *,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        targets: Literal["all-linear"] | list[str] = "all-linear",
    ) -> None:
        """Choose the adapter's size.

        Args:
            rank: Rank of each update.
            alpha: Updates are scaled by alpha / rank.
            dropout: On the adapters' inputs, in training.
            targets: The layers' names (such as ``q_proj``), or all linear layers except the output layer.
        """
        self.rank, self.alpha, self.dropout, self.targets = rank, alpha, dropout, targets

    def wrap(self, model: PreTrainedModel, *, seed: int) -> Network:
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft divides it, so a float does
            lora_dropout=self.dropout,
            target_modules=self.targets,
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed_of(seed, "adapter"))
            try:
                return get_peft_model(model, config)
            except ValueError as error:  # a target that is no layer of this model
                raise ConfigError(
                    "adapter.targets", f"{self.targets}: {error}", "give names of layers that the model has"
                ) from None


class QLora(Lora):
    """LoRA on a model whose own weights are kept in 4 bits (QLoRA, arXiv 2305.14314). CUDA only."""

    quantization = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )

    def check(self) -> None:
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ConfigError(
                "adapter",
                "qlora needs bitsandbytes, which is not installed",
                "pip install -e '.[qlora]', or use adapter=lora",
            )
        if not torch.cuda.is_available():
            raise ConfigError("adapter", "qlora needs a CUDA device", "use adapter=lora")

    def wrap(self, model: PreTrainedModel, *, seed: int) -> Network:
        # Norms alone go to fp32, as in the paper's code. peft's own preparation casts embeddings and the output layer,
        # too, which are most of what is not quantised, and with them the residual stream of every layer.
        for module in model.modules():
            if "norm" in type(module).__name__.lower():
                module.to(torch.float32)
        return super().wrap(model, seed=seed)
