"""What a step takes, counted: activations against what autograd keeps, and the comments of configs against the sum."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, Qwen2Config

from tutelage.core.build import build
from tutelage.text2sql.model import attention
from tutelage.text2sql.model.adapters import Full, Lora
from tutelage.text2sql.model.language_model import LanguageModel
from tutelage.text2sql.model.memory import CONTEXT, estimate
from tutelage.text2sql.training.packing import Sample, pack

ROOT = Path(__file__).resolve().parents[3]
# The models' config.json files: hidden, intermediate, layers, heads, key-value heads, vocabulary, tied
QWEN: dict[str, tuple[int, int, int, int, int, int, bool]] = {
    "0_5b": (896, 4864, 24, 14, 2, 151936, True),
    "1_5b": (1536, 8960, 28, 12, 2, 151936, True),
    "3b": (2048, 11008, 36, 16, 2, 151936, True),
    "7b": (3584, 18944, 28, 28, 4, 152064, False),
    "14b": (5120, 13824, 48, 40, 8, 152064, False),
    "32b": (5120, 27648, 64, 40, 8, 152064, False),
}
PARAMETERS = {"0_5b": 0.49e9, "1_5b": 1.54e9, "3b": 3.09e9, "7b": 7.61e9, "14b": 14.7e9, "32b": 32.5e9}  # model cards


def qwen(size: str) -> Qwen2Config:
    hidden, inner, layers, heads, keys, vocabulary, tied = QWEN[size]
    return Qwen2Config(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=keys, tie_word_embeddings=tied,
    )  # fmt: skip


def shaped(
    hidden: int, inner: int, layers: int, heads: int, keys: int, vocabulary: int, *, tied: bool, head: int
) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=keys, tie_word_embeddings=tied, head_dim=head,
    )  # fmt: skip


OTHERS = {
    "qwen3_0_6b": (shaped(1024, 3072, 28, 16, 8, 151936, tied=True, head=128), 0.596e9),
    "qwen3_1_7b": (shaped(2048, 6144, 28, 16, 8, 151936, tied=True, head=128), 1.72e9),
    "qwen3_4b": (shaped(2560, 9728, 36, 32, 8, 151936, tied=True, head=128), 4.02e9),
    "qwen3_8b": (shaped(4096, 12288, 36, 32, 8, 151936, tied=False, head=128), 8.19e9),
    "llama3_2_1b": (shaped(2048, 8192, 16, 32, 8, 128256, tied=True, head=64), 1.24e9),
    "llama3_2_3b": (shaped(3072, 8192, 28, 24, 8, 128256, tied=True, head=128), 3.21e9),
    "smollm3_3b": (shaped(2048, 11008, 36, 16, 4, 128256, tied=True, head=128), 3.08e9),
}
# OmniSQL and XiYanSQL-QwenCoder are fine-tuned Qwen2.5-Coder.
CONFIGS = {
    **{f"qwen2_5_coder_{size}": qwen(size) for size in QWEN},
    **{f"omnisql_{size}": qwen(size) for size in ("7b", "14b", "32b")},
    **{f"xiyan_qwencoder_{size}": qwen(size) for size in ("3b", "7b", "14b", "32b")},
    **{name: config for name, (config, _) in OTHERS.items()},
}


@pytest.mark.parametrize("name", OTHERS)
def test_weights_of_other_models_are_those_of_their_cards(name: str) -> None:
    config, parameters = OTHERS[name]
    assert estimate(config, tokens=0, checkpointing=True).weights / 4 == pytest.approx(parameters, rel=0.015)


def kept_by_autograd(config: Qwen2Config, *, rank: int | None) -> tuple[int, int, int]:
    """Bytes that a forward pass keeps of activations and of copies of weights, and its tokens."""
    adapter: Any = Full() if rank is None else Lora(rank=rank, alpha=8)
    dtype = torch.float32 if rank is None else torch.bfloat16
    network = AutoModelForCausalLM.from_config(config, attn_implementation=attention.PACKED, dtype=dtype)
    model = LanguageModel(adapter.wrap(network, seed=1), None).train()  # type: ignore[arg-type]
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    shapes = {tuple(parameter.shape) for parameter in model.parameters() if parameter.ndim == 2}
    shapes |= {shape[::-1] for shape in shapes}
    kept: dict[int, Tensor] = {}
    copies: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            # Copies of weights in the autocast dtype are no activations.
            (copies if tuple(tensor.shape) in shapes else kept)[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    batch = pack([Sample(list(range(3, 63)) * 4, [5])], answers_in_step=1)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        model(batch)
    sizes = [sum(tensor.untyped_storage().nbytes() for tensor in those.values()) for those in (kept, copies)]
    return sizes[0], sizes[1], batch.num_tokens


@pytest.mark.parametrize("rank", [None, 8])
def test_activations_are_what_autograd_keeps(rank: int | None) -> None:
    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 4}
    found, copied, expected = [], [], []
    for layers in (1, 3):
        config = Qwen2Config(**sizes, num_key_value_heads=2, num_hidden_layers=layers)
        kept, copies, tokens = kept_by_autograd(config, rank=rank)
        found.append(kept / tokens)
        copied.append(copies)
        expected.append(estimate(config, tokens=1, checkpointing=False, rank=rank))
    of_two_layers = expected[1].activations - expected[0].activations
    assert found[1] - found[0] == pytest.approx(of_two_layers, rel=0.02)
    if rank is None:
        assert copied[1] - copied[0] == expected[1].copies - expected[0].copies > 0


@pytest.mark.parametrize("size", QWEN)
def test_weights_are_those_of_the_model_card(size: str) -> None:
    memory = estimate(qwen(size), tokens=0, checkpointing=True)
    assert memory.weights / 4 == pytest.approx(PARAMETERS[size], rel=0.015)
    assert memory.training == 3 * memory.weights


def test_the_update_takes_as_much_as_the_weights() -> None:
    """What AdamW's step makes for itself where torch takes its way of many tensors, as it does on CUDA."""
    parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in ((3, 5), (7,))]
    optimizer = torch.optim.AdamW(parameters, foreach=True)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()  # the moments are there now
    with NewTensors() as made:
        optimizer.step()
    assert made.bytes == sum(parameter.untyped_storage().nbytes() for parameter in parameters)
    memory = estimate(qwen("7b"), tokens=0, checkpointing=True)
    assert memory.update == memory.weights


class NewTensors(TorchDispatchMode):
    """Counts the bytes of the tensors of more than one number that operations return and do not write in place."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {tensor.untyped_storage().data_ptr() for tensor in tree_leaves(args) if isinstance(tensor, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if not isinstance(tensor, Tensor) or tensor.numel() == 1:
                continue
            if tensor.untyped_storage().data_ptr() not in given:
                self.bytes += tensor.untyped_storage().nbytes()
        return out


WAYS = {"full": "full", "LoRA": "lora", "QLoRA": "qlora"}  # as comments name them, and the adapter


def gigabytes(model: str, adapter: str, compose_config: Callable[..., DictConfig], *overrides: str) -> float:
    """What a step of a config takes by the calculation, as it is composed."""
    cfg = compose_config("task=text2sql", f"model={model}", f"adapter={adapter}", *overrides)
    built = build(cfg.adapter, where="adapter")
    memory = estimate(
        CONFIGS[model],
        tokens=cfg.data.micro_batch_tokens,
        checkpointing=cfg.model.gradient_checkpointing,
        rank=None if built.trains_all else cfg.adapter.rank,
        four_bits=built.quantization is not None,
    )
    return memory.total / 1e9


def comment(model: str) -> str:
    return (ROOT / f"conf/model/{model}.yaml").read_text()


@pytest.mark.parametrize("model", CONFIGS)
def test_a_comment_says_what_a_step_takes(model: str, compose_config: Callable[..., DictConfig]) -> None:
    """ "LoRA: 23 GB, QLoRA: 13 GB, full: 153 GB" is what the composed config takes, to the next whole number."""
    said = dict(re.findall(r"(QLoRA|LoRA|full): (\d+) GB", comment(model)))
    assert said == {name: f"{gigabytes(model, adapter, compose_config):.0f}" for name, adapter in WAYS.items()}
    (tokens,) = re.findall(r"data.micro_batch_tokens=(\d+)", comment(model))
    assert compose_config("task=text2sql", f"model={model}").data.micro_batch_tokens == int(tokens)


@pytest.mark.parametrize(
    ("size", "adapter", "card"), [("1_5b", "lora", 12), ("3b", "lora", 16), ("14b", "lora", 48), ("32b", "qlora", 48)]
)
def test_a_model_fits_the_gpu_that_its_comment_names(
    size: str, adapter: str, card: int, compose_config: Callable[..., DictConfig]
) -> None:
    model = f"qwen2_5_coder_{size}"
    assert f"{card} GB" in comment(model).splitlines()[1]
    assert gigabytes(model, adapter, compose_config) < card


def test_four_gpus_hold_what_trains_all_weights(compose_config: Callable[..., DictConfig]) -> None:
    for name in ("spider_omnisql", "bird_omnisql"):
        assert "4 × 80 GB hold it" in (ROOT / f"conf/experiment/{name}.yaml").read_text()
        cfg = compose_config(f"experiment={name}")
        assert (cfg.model.path, cfg.data.micro_batch_tokens) == ("Qwen/Qwen2.5-Coder-7B-Instruct", 8192)
    memory = estimate(qwen("7b"), tokens=8192, checkpointing=True)
    gathered = 2 * PARAMETERS["7b"]  # at most, in bf16
    spread = (memory.weights + memory.training + memory.update) / 4
    assert spread + memory.activations + memory.copies + memory.loss + gathered + CONTEXT < 80e9


def test_the_table_of_the_docs_says_the_same(compose_config: Callable[..., DictConfig]) -> None:
    page = (ROOT / "docs/fine_tune.md").read_text()
    for size in QWEN:
        expected = " | ".join(
            f"{gigabytes(f'qwen2_5_coder_{size}', adapter, compose_config):.0f}" for adapter in WAYS.values()
        )
        assert f"| {size.replace('_', '.').upper()} | {expected} |" in page
    (said,) = re.findall(r"LoRA of 7B then\s+takes (\d+) GB", page)
    whole = gigabytes("qwen2_5_coder_7b", "lora", compose_config, "model.gradient_checkpointing=false")
    assert said == f"{whole:.0f}"


def test_every_model_that_needs_a_gpu_says_what_it_takes() -> None:
    """Every model with long rows, which are those that a GPU is needed for."""
    told = {path.stem for path in (ROOT / "conf/model").glob("*.yaml") if "parts/long_rows" in path.read_text()}
    assert told == set(CONFIGS)
