"""A causal language model with its tokenizer and its adapter: loaded, trained on, saved."""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    Cache,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.model import attention
from tutelage.text2sql.model.adapters import Adapter, Network
from tutelage.text2sql.model.loss import answer_log_probs
from tutelage.text2sql.model.weight_files import check_gguf, check_safetensors
from tutelage.text2sql.training.packing import IGNORED, TokenBatch

HINT = "point model.path at a hub name, a folder with config.json and weights, or a .gguf file"
FETCHED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Pretrained:
    """Where a model comes from (``conf/model/*.yaml``).

    Attributes:
        path: A name on the Hugging Face hub, a local folder, or a GGUF file.
        dtype: Of weights that are not trained; and of all, once training is over, to answer with and to be saved. What
            is trained is kept in fp32 meanwhile: an update at a fine-tuning rate is smaller than the distance between
            two numbers of bf16, and most of them would be lost.
        gradient_checkpointing: Recompute activations in the backward pass, which takes time and saves memory
            (docs/fine_tune.md counts how much).
        revision: A branch, tag or commit on the hub, so that a run can be repeated when the repository changes; None
            for its newest.
    """

    path: str
    dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    revision: str | None = None

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
            raise ConfigError("model.path", f"nothing at {self.path}", HINT)
        if local.is_dir() and not (local / "config.json").is_file():
            found = sorted(local.glob("*.gguf"))
            if len(found) != 1:
                what = f"{len(found)} GGUF files" if found else "neither config.json nor a .gguf file"
                raise ConfigError("model.path", f"{what} in {local}", HINT)
            local = found[0]
        if local.is_file():
            check_gguf(local)
            return str(local.parent), local.name
        return str(local), None

    def config(self) -> PreTrainedConfig:
        """Read the model's config; small, so this is asked before the long part.

        Raises:
            ConfigError: No model.
        """
        path, gguf = self.source()
        try:
            config: PreTrainedConfig = AutoConfig.from_pretrained(path, gguf_file=gguf, revision=self.revision)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError("model.path", f"{self.path} is not a model ({_first_line(error)})", HINT) from None
        return config

    def fetch(self) -> None:
        """Have the weights here, whole, before anything long begins; those of the hub are downloaded.

        Raises:
            DataError: They cannot be had, or are cut off.
        """
        path, gguf = self.source()
        if gguf:  # source() has looked at it
            return
        if not Path(path).exists():
            try:
                path = snapshot_download(path, revision=self.revision, allow_patterns=FETCHED)
            except (OSError, ValueError, HfHubHTTPError) as error:
                raise DataError(
                    "model.path", f"{self.path} cannot be downloaded ({_first_line(error)})", HINT
                ) from None
        check_safetensors(Path(path))

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer.

        Raises:
            ConfigError: There is none.
        """
        path, gguf = self.source()
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, gguf_file=gguf, revision=self.revision)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError("model.path", f"no tokenizer at {self.path} ({_first_line(error)})", HINT) from None
        assert isinstance(tokenizer, PreTrainedTokenizerBase)
        # Where there are no files, transformers makes an empty tokenizer and says nothing.
        probe = "SELECT 1"
        if probe not in tokenizer.decode(tokenizer.encode(probe, add_special_tokens=False)):
            raise ConfigError("model.path", f"no tokenizer at {self.path}, or one that cannot write SQL", HINT)
        return tokenizer

    def network(
        self, *, dtype: torch.dtype | None = None, quantization: BitsAndBytesConfig | None = None
    ) -> PreTrainedModel:
        """Load the weights, onto the CPU (quantised ones onto this process's CUDA device).

        Args:
            dtype: Of the weights; None for ``self.dtype``.
            quantization: How they are kept; None for as they are.

        Raises:
            ConfigError: A GGUF file that is to be quantised.
            DataError: Weights that are cut off, or not this model's.
        """
        path, gguf = self.source()
        if gguf and quantization:
            raise ConfigError(
                "adapter", "qlora cannot quantise a GGUF file again", "use adapter=lora, or give the unquantised model"
            )
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path,
                gguf_file=gguf,
                revision=self.revision,
                dtype=DTYPES[self.dtype] if dtype is None else dtype,
                quantization_config=quantization,
                # Every rank of a job would take the first device.
                device_map={"": int(os.environ.get("LOCAL_RANK", 0))} if quantization else None,
                attn_implementation=attention.PACKED,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise DataError(
                "model.path", f"the weights at {self.path} do not load ({_first_line(error)})", HINT
            ) from None
        model, loading = loaded
        if missing := sorted(loading["missing_keys"]):
            raise DataError("model.path", f"{self.path} has no weights for {', '.join(missing[:3])}", HINT)
        assert isinstance(model, PreTrainedModel)
        quantizer: Any = vars(model).get("hf_quantizer")
        if gguf and quantizer is not None:
            # The weights are in full precision now: what is remembered of the file would only forbid to save them.
            quantizer.remove_quantization_config(model)
        return model

    def empty_network(self, *, dtype: torch.dtype) -> PreTrainedModel:
        """Build the network on the meta device: all its shapes, and no memory."""
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                self.config(), dtype=dtype, attn_implementation=attention.PACKED
            )
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
    def sharded(self) -> bool:
        """Whether its weights are spread over processes, which then have to answer in step."""
        return isinstance(self, FSDPModule)

    @property
    def causal(self) -> PreTrainedModel:
        """The network with its adapter's layers in place, but without peft's shell."""
        base = self.network.get_base_model() if isinstance(self.network, PeftModel) else self.network
        assert isinstance(base, PreTrainedModel)
        return base

    def forward(self, batch: TokenBatch) -> Tensor:
        """Sum the negative log-likelihoods of the batch's answers (fp32, in nats)."""
        return -self.log_probs(batch).sum()

    def log_probs(self, batch: TokenBatch) -> Tensor:
        """Log-probability of each answer token of a batch, in its order (fp32 [N], in nats), for any objective."""
        ids_BT, positions_BT = batch.input_ids_BT, batch.position_ids_BT
        packed: dict[str, Any] = {"attention_mask": attention.no_mask(ids_BT.device)}
        if batch.trees:
            layout = attention.lay_out(batch.trees, device=ids_BT.device)
            ids_BT, positions_BT = (F.pad(tensor, (0, layout.padding)) for tensor in (ids_BT, positions_BT))
            packed["layout"] = layout
        hidden_BTH = self.causal.base_model(
            input_ids=ids_BT, position_ids=positions_BT, use_cache=False, **packed
        ).last_hidden_state[:, : batch.target_BT.shape[1]]
        answers_BT = batch.target_BT != IGNORED
        head = self.causal.get_output_embeddings()  # type: ignore[no-untyped-call]
        assert isinstance(head, nn.Module)
        return answer_log_probs(hidden_BTH[answers_BT], batch.target_BT[answers_BT], head=head)

    def generate(
        self,
        input_ids_BT: Tensor,
        *,
        attention_mask_BT: Tensor,
        config: GenerationConfig,
        logits_processor: LogitsProcessorList | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Continue prompts that are padded on the left.

        Args:
            input_ids_BT: The prompts.
            attention_mask_BT: 0 where there is padding.
            config: How they are continued.
            logits_processor: Changes logits before a token is chosen.
            cache: Keys and values of the prompts' first tokens, a row for each beam of each prompt.

        Returns:
            Prompts and continuations [B × sequences asked for, T + new tokens].
        """
        # Sharded layers are gathered by all processes together, so none may stop before the others.
        continued: Tensor = self.causal.generate(  # type: ignore[operator]
            input_ids=input_ids_BT,
            attention_mask=attention_mask_BT,
            generation_config=config,
            past_key_values=cache,
            logits_processor=logits_processor,
            synced_gpus=self.sharded,
        )
        return continued

    def prefill(self, input_ids_BT: Tensor, *, cache: Cache | None = None) -> Cache:
        """Compute keys and values of prompts' first tokens, padded on the right; ``cache`` holds those before them."""
        with torch.no_grad():
            cache = self.causal.base_model(
                input_ids=input_ids_BT, use_cache=True, past_key_values=cache
            ).past_key_values
        assert isinstance(cache, Cache)
        return cache

    def save(self, folder: Path) -> None:
        """Write what transformers (or, with an adapter, peft) loads, and the tokenizer."""
        self.network.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))

    def save_gathered(self, folder: Path, state: Mapping[str, Tensor], *, dtype: torch.dtype) -> None:
        """Do the same for a sharded model.

        Args:
            folder: Made where it is missing.
            state: The whole weights of what is trained; see ``sharding.gather_trained``.
            dtype: What a model that is trained whole is written in.
        """
        weights = {name.removeprefix("network."): tensor for name, tensor in state.items()}
        if self.adapted:
            self.network.save_pretrained(str(folder), state_dict=weights)
        else:
            with torch.device("meta"):
                whole = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                    self.causal.config, dtype=dtype
                )
            whole.load_state_dict({name: tensor.to(dtype) for name, tensor in weights.items()}, assign=True)
            whole.tie_weights()
            whole.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))


def load(spec: Pretrained, *, adapter: Adapter, seed: int, empty: bool = False) -> LanguageModel:
    """Load a model as it starts into training.

    Args:
        spec: Where it is.
        adapter: What of it is trained.
        seed: Of the adapter's new weights.
        empty: Whether to build it on the meta device instead, for weights that another process has.
    """
    tokenizer = spec.tokenizer()
    vocabulary: int = spec.config().get_text_config().vocab_size
    if len(tokenizer) > vocabulary:
        raise DataError(
            "model.path",
            f"the tokenizer knows {len(tokenizer)} tokens, the model {vocabulary}",
            "give both of one model",
        )
    dtype = torch.float32 if adapter.trains_all else DTYPES[spec.dtype]
    if empty:
        network = spec.empty_network(dtype=dtype)
    else:
        network = spec.network(dtype=dtype, quantization=adapter.quantization)
    if spec.gradient_checkpointing:
        _checkpoint_activations(network)
    with torch.device("meta") if empty else nullcontext():
        return LanguageModel(adapter.wrap(network, seed=seed), tokenizer)


def _checkpoint_activations(network: PreTrainedModel) -> None:
    # The reentrant kind runs DDP's hooks twice.
    options = {"use_reentrant": False}
    if "activation_checkpointing_enable" in dir(PreTrainedModel):
        network.activation_checkpointing_enable(options)
    else:  # its name in older releases of transformers
        network.gradient_checkpointing_enable(options)  # type: ignore[no-untyped-call]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
