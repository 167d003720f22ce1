"""What a step takes, counted: activations against what autograd keeps, and the comments of configs against the sum."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen2Config

from tutelage.text2sql.model import attention
from tutelage.text2sql.model.adapters import Full, Lora
from tutelage.text2sql.model.language_model import LanguageModel
from tutelage.text2sql.model.memory import estimate
from tutelage.text2sql.training.packing import Sample, pack

ROOT = Path(__file__).resolve().parents[3]
# Qwen2.5-Coder's config.json files: hidden, intermediate, layers, heads, key-value heads, vocabulary, tied
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


def kept_by_autograd(config: Qwen2Config, *, rank: int | None) -> tuple[int, int]:
    """Bytes that a forward pass keeps of activations, and its tokens."""
    adapter: Any = Full() if rank is None else Lora(rank=rank, alpha=8)
    dtype = torch.float32 if rank is None else torch.bfloat16
    network = AutoModelForCausalLM.from_config(config, attn_implementation=attention.PACKED, dtype=dtype)
    model = LanguageModel(adapter.wrap(network, seed=1), None).train()  # type: ignore[arg-type]
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    shapes = {tuple(parameter.shape) for parameter in model.parameters() if parameter.ndim == 2}
    shapes |= {shape[::-1] for shape in shapes}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Copies of weights in the autocast dtype are no activations.
        if tensor.untyped_storage().data_ptr() not in weights and tuple(tensor.shape) not in shapes:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    batch = pack([Sample(list(range(3, 63)) * 4, [5])], answers_in_step=1)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        model(batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), batch.num_tokens


@pytest.mark.parametrize("rank", [None, 8])
def test_activations_are_what_autograd_keeps(rank: int | None) -> None:
    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 4}
    found, expected = [], []
    for layers in (1, 3):
        config = Qwen2Config(**sizes, num_key_value_heads=2, num_hidden_layers=layers)
        kept, tokens = kept_by_autograd(config, rank=rank)
        found.append(kept / tokens)
        expected.append(estimate(config, tokens=1, checkpointing=False, rank=rank).activations)
    assert found[1] - found[0] == pytest.approx(expected[1] - expected[0], rel=0.02)  # of two layers


@pytest.mark.parametrize("size", QWEN)
def test_weights_are_those_of_the_model_card(size: str) -> None:
    memory = estimate(qwen(size), tokens=0, checkpointing=True)
    assert memory.weights / 4 == pytest.approx(PARAMETERS[size], rel=0.015)
    assert memory.training == 3 * memory.weights


def claims() -> list[tuple[str, float, dict[str, Any]]]:
    """What the comments of conf/model say: "LoRA: 9 GB", "QLoRA: 7 GB", of a row of 8192 tokens."""
    found = []
    for size in QWEN:
        text = (ROOT / f"conf/model/qwen2_5_coder_{size}.yaml").read_text()
        for name, gigabytes in re.findall(r"(QLoRA|LoRA|full): (\d+) GB", text):
            how: dict[str, Any] = {"full": {}, "LoRA": {"rank": 64}, "QLoRA": {"rank": 64, "four_bits": True}}[name]
            found.append((size, float(gigabytes), how))
    return found


@pytest.mark.parametrize(("size", "gigabytes", "how"), claims())
def test_a_comment_says_what_a_step_takes(size: str, gigabytes: float, how: dict[str, Any]) -> None:
    total = estimate(qwen(size), tokens=8192, checkpointing=True, **how).total
    assert total / 1e9 == pytest.approx(gigabytes, abs=0.51)


def test_every_size_says_what_it_takes() -> None:
    assert {size for size, _, _ in claims()} == set(QWEN)
    assert len(claims()) == 3 * len(QWEN)
