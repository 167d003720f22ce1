"""A causal language model with its tokenizer and its adapter: loaded, trained on, saved."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.model import attention
from tutelage.text2sql.model.adapters import Adapter, Full, Network
from tutelage.text2sql.model.gguf_file import check_gguf
from tutelage.text2sql.model.loss import answer_nll
from tutelage.text2sql.training.packing import IGNORED, TokenBatch

WAY_OUT = "point model.path at a hub name, a folder with config.json and weights, or a .gguf file"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Transforms of the logits after the head. The chunked loss calls the head alone, so it would leave them out.
LOGIT_TRANSFORMS = {"final_logit_softcapping": None, "logit_scale": 1.0, "logits_scaling": 1.0}


@dataclass(frozen=True)
class Pretrained:
    """Where a model comes from (``conf/model/*.yaml``).

    Attributes:
        path: A name on the Hugging Face hub, a local folder, or a GGUF file.
        dtype: Of the weights in memory. Adapters are kept in fp32 whatever this is.
        gradient_checkpointing: Recompute activations in the backward pass: about 40 % less memory, 20 % slower.
    """

    path: str
    dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False

    def source(self) -> tuple[str, str | None]:
        """Return what transformers calls the path, and the GGUF file in it, if any.

        Raises:
            ConfigError: Nothing there, or nothing that is a model.
            DataError: A GGUF file that is cut off.
        """
        local = Path(self.path).expanduser()
        if not local.exists():
            if self.path.count("/") == 1 and not self.path.startswith((".", "/", "~")) and local.suffix != ".gguf":
                return self.path, None
            raise ConfigError("model.path", f"nothing at {self.path}", WAY_OUT)
        if local.is_dir() and not (local / "config.json").is_file():
            found = sorted(local.glob("*.gguf"))
            if len(found) != 1:
                what = f"{len(found)} GGUF files" if found else "neither config.json nor a .gguf file"
                raise ConfigError("model.path", f"{what} in {local}", WAY_OUT)
            local = found[0]
        if local.is_file():
            check_gguf(local)
            return str(local.parent), local.name
        return str(local), None

    def config(self) -> PreTrainedConfig:
        """Read the model's config; small, so this is asked before the long part.

        Raises:
            ConfigError: No model, or one whose logits or attention the packed, chunked training would get wrong.
        """
        path, gguf = self.source()
        try:
            config: PreTrainedConfig = AutoConfig.from_pretrained(path, gguf_file=gguf)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError("model.path", f"{self.path} is no model ({_first_line(error)})", WAY_OUT) from None
        values = config.to_dict()
        for key, neutral in LOGIT_TRANSFORMS.items():
            if values.get(key, neutral) not in (None, neutral):
                raise ConfigError("model.path", f"{self.path} has {key}, which is not supported", "take another model")
        if set(values.get("layer_types") or ["full_attention"]) != {"full_attention"}:
            raise ConfigError(
                "model.path",
                f"{self.path} has layers without full attention, which cannot be packed",
                "take another model",
            )
        return config

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer.

        Raises:
            ConfigError: There is none.
        """
        path, gguf = self.source()
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, gguf_file=gguf)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError("model.path", f"no tokenizer at {self.path} ({_first_line(error)})", WAY_OUT) from None
        assert isinstance(tokenizer, PreTrainedTokenizerBase)
        # Where there are no files, transformers makes an empty tokenizer and says nothing.
        probe = "SELECT 1"
        if probe not in tokenizer.decode(tokenizer.encode(probe, add_special_tokens=False)):
            raise ConfigError("model.path", f"no tokenizer at {self.path}, or one that cannot write SQL", WAY_OUT)
        return tokenizer

    def network(self, adapter: Adapter) -> PreTrainedModel:
        """Load the weights, onto the CPU (a 4-bit model goes to the current CUDA device).

        Raises:
            ConfigError: A GGUF file under a 4-bit adapter.
            DataError: Weights that are cut off, or not this model's.
        """
        path, gguf = self.source()
        if gguf and adapter.quantization:
            raise ConfigError(
                "adapter", "qlora cannot quantise a GGUF file again", "take adapter=lora, or the unquantised model"
            )
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path,
                gguf_file=gguf,
                dtype=DTYPES[self.dtype],
                quantization_config=adapter.quantization,
                attn_implementation=attention.PACKED,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise DataError(
                "model.path", f"the weights at {self.path} do not load ({_first_line(error)})", WAY_OUT
            ) from None
        model, loading = loaded
        if missing := sorted(loading["missing_keys"]):
            raise DataError("model.path", f"{self.path} has no weights for {', '.join(missing[:3])}", WAY_OUT)
        assert isinstance(model, PreTrainedModel)
        return model


class LanguageModel(nn.Module):
    """A network that answers questions, and what reads and writes its tokens."""

    def __init__(self, network: Network, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer

    @property
    def adapted(self) -> bool:
        """Whether an adapter is trained, and not the network itself."""
        return isinstance(self.network, PeftModel)

    @property
    def causal(self) -> PreTrainedModel:
        """The network with its adapter's layers in place, but without peft's shell."""
        base = self.network.get_base_model() if isinstance(self.network, PeftModel) else self.network
        assert isinstance(base, PreTrainedModel)
        return base

    def forward(self, batch: TokenBatch) -> Tensor:
        """Sum the negative log-likelihoods of the batch's answers (fp32, in nats)."""
        packed: dict[str, Any] = {}
        if batch.lengths_S:
            packed = {"lengths": batch.lengths_S, "attention_mask": attention.no_mask(batch.input_ids_BT.device)}
        hidden_BTH = self.causal.base_model(
            input_ids=batch.input_ids_BT, position_ids=batch.position_ids_BT, use_cache=False, **packed
        ).last_hidden_state
        answers_BT = batch.target_BT != IGNORED
        head = self.causal.get_output_embeddings()  # type: ignore[no-untyped-call]
        assert isinstance(head, nn.Module)
        return answer_nll(hidden_BTH[answers_BT], batch.target_BT[answers_BT], head=head)

    def generate(
        self,
        input_ids_BT: Tensor,
        *,
        attention_mask_BT: Tensor,
        config: GenerationConfig,
        logits_processor: LogitsProcessorList | None = None,
    ) -> Tensor:
        """Continue prompts that are padded on the left.

        Returns:
            Prompts and continuations [B × sequences asked for, T + new tokens].
        """
        # Sharded layers are gathered by all processes together, so none may stop before the others.
        sharded = torch.distributed.is_initialized() and isinstance(self, FSDPModule)
        continued: Tensor = self.causal.generate(  # type: ignore[operator]
            input_ids=input_ids_BT,
            attention_mask=attention_mask_BT,
            generation_config=config,
            logits_processor=logits_processor,
            synced_gpus=sharded,
        )
        return continued

    def save(self, folder: Path) -> None:
        """Write what transformers (or, with an adapter, peft) loads, and the tokenizer."""
        self.network.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))


def load(spec: Pretrained, *, adapter: Adapter, seed: int) -> LanguageModel:
    """Load a model and set what of it is trained."""
    config, tokenizer = spec.config(), spec.tokenizer()
    vocabulary: int = config.get_text_config().vocab_size
    if len(tokenizer) > vocabulary:
        raise DataError(
            "model.path",
            f"the tokenizer knows {len(tokenizer)} tokens, the model {vocabulary}",
            "give both of one model",
        )
    network = spec.network(adapter)
    if spec.gradient_checkpointing:
        # The reentrant kind runs DDP's hooks twice.
        network.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
    return LanguageModel(adapter.wrap(network, seed=seed), tokenizer)


def merge(spec: Pretrained, *, adapter_folder: Path, into: Path) -> None:
    """Write a model with a trained adapter's updates added to its weights, as a Hugging Face folder.

    The weights are loaded anew and unquantised, so this also merges what was trained on a 4-bit model.
    """
    merged = PeftModel.from_pretrained(spec.network(Full()), str(adapter_folder)).merge_and_unload()
    merged.save_pretrained(str(into))
    AutoTokenizer.from_pretrained(str(adapter_folder)).save_pretrained(str(into))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
