"""Models that packing is right for agree with transformers' own forward pass; the others are refused by name."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    FalconH1Config,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from tutelage.core.errors import ConfigError
from tutelage.text2sql.model import attention
from tutelage.text2sql.model.language_model import LanguageModel
from tutelage.text2sql.model.support import check_support
from tutelage.text2sql.training.packing import IGNORED, Sample, pack

SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
# Llama 3.2's scaling, of a context that fits the test's positions.
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
# Grouped queries in all of them; Qwen3 normalises queries and keys, Qwen2 has biases.
SUPPORTED = [
    LlamaConfig(**SIZES),
    Qwen2Config(**SIZES),
    Qwen3Config(**SIZES, head_dim=8),
    MistralConfig(**SIZES, sliding_window=None),
    MistralConfig(**SIZES, sliding_window=16),  # no sample is longer
    SmolLM3Config(**SIZES, no_rope_layers=[1, 0]),  # a layer without positions
    LlamaConfig(**SIZES, rope_parameters=LLAMA3),
    LlamaConfig(**SIZES, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),  # 16 < 128
]
MAMBA = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 97, "state_size": 4}
REFUSED = [
    (FalconH1Config(**SIZES, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8), r"FalconH1|hybrid"),
    (MambaConfig(**MAMBA), r"linear_attention|Mamba"),
    (Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=8, max_window_layers=1), r"last 8 only"),
    (MistralConfig(**SIZES, sliding_window=8), r"last 8 only"),
    (Phi3Config(**SIZES, sliding_window=8), r"last 8 only"),
    (GptOssConfig(**SIZES, head_dim=8, sliding_window=64, num_local_experts=2), r"attention sinks"),
    (
        AutoConfig.for_model("bloom", vocab_size=97, hidden_size=32, n_layer=1, n_head=4),
        r"an attention of its own \(BloomAttention\)",
    ),
    (AutoConfig.for_model("cohere", **SIZES), r"logit_scale"),
    (
        LlamaConfig(
            **{**SIZES, "max_position_embeddings": 8},
            rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
        ),
        r"16 tokens, but the rotary embedding of some/model \(dynamic\) changes .* beyond 8",
    ),
]


def name(config: PreTrainedConfig) -> str:
    return f"{config.model_type}-{getattr(config, 'sliding_window', None)}"


@pytest.mark.parametrize("config", SUPPORTED, ids=name)
def test_packed_equals_transformers_own_forward(config: PreTrainedConfig) -> None:
    check_support(config, path="m", longest=16)
    torch.manual_seed(0)
    packed = AutoModelForCausalLM.from_config(config, attn_implementation=attention.PACKED).eval()
    own = AutoModelForCausalLM.from_config(deepcopy(config), attn_implementation="eager").eval()
    own.load_state_dict(packed.state_dict())
    rng = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 9, (5, 2), generator=rng).tolist()
    samples = [Sample(*(torch.randint(3, 97, (n,), generator=rng).tolist() for n in size)) for size in sizes]
    expected = torch.zeros(())
    for sample in samples:
        batch = pack([sample], answers_in_step=1)
        logits = own(input_ids=batch.input_ids_BT).logits[0]
        expected = expected + F.cross_entropy(logits, batch.target_BT[0], ignore_index=IGNORED, reduction="sum")
    found = LanguageModel(packed, None)(pack(samples, answers_in_step=1))  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, packed.model.layers[0].self_attn.k_proj.weight),
        torch.autograd.grad(expected, own.model.layers[0].self_attn.k_proj.weight),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize(("config", "says"), REFUSED, ids=[name(config) for config, _ in REFUSED])
def test_other_models_are_refused_by_name(config: PreTrainedConfig, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        check_support(config, path="some/model", longest=16)
    assert "some/model" in caught.value.what


def test_a_window_is_known_from_a_file_too(tmp_path: Path) -> None:
    """Mistral's config has no list of layers, and its dictionary is read back from a file."""
    MistralConfig(**SIZES, sliding_window=8).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.max_length: 16 tokens, but m attends to the last 8 only"):
        check_support(AutoConfig.from_pretrained(tmp_path), path="m", longest=16)
