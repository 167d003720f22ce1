"""Shared prefixes change nothing: loss and gradients are those of the samples one by one, in fp64."""

from types import MethodType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config, Qwen3NextConfig, SmolLM3Config
from transformers.models.auto import AutoModelForCausalLM

from tutelage.core.errors import RunError
from tutelage.text2sql.model import attention, language_model
from tutelage.text2sql.model.adapters import Adapter, Full, Lora
from tutelage.text2sql.model.language_model import LanguageModel
from tutelage.text2sql.training.packing import Sample, TokenBatch, Tree, excerpt, pack, pad
from tutelage.text2sql.training.self_check import check_packing

VOCABULARY = 200
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
# Llama 3.2's scaling, with a context that the test's samples go beyond.
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
CONFIGS: dict[str, PreTrainedConfig] = {
    "qwen2": Qwen2Config(vocab_size=VOCABULARY, intermediate_size=48, tie_word_embeddings=True, **SIZES),  # GQA, tied
    "qwen3": Qwen3Config(vocab_size=VOCABULARY, intermediate_size=48, head_dim=16, **SIZES),  # norms on queries, keys
    "llama": LlamaConfig(vocab_size=VOCABULARY, intermediate_size=48, **SIZES),
    "llama3": LlamaConfig(vocab_size=VOCABULARY, intermediate_size=48, rope_parameters=LLAMA3, **SIZES),
    "smollm3": SmolLM3Config(  # the second layer knows no positions
        vocab_size=VOCABULARY, intermediate_size=48, no_rope_layers=[1, 0], pad_token_id=0, **SIZES
    ),
}


def norm_in_fp64(self: Any, hidden: Tensor) -> Tensor:
    """transformers' RMSNorm, without its detour over fp32, which alone would bound the comparison at 1e-7."""
    return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


def exact_log_probs(hidden_NH: Tensor, target_N: Tensor, *, head: nn.Module) -> Tensor:
    """What the loss computes, in fp64 throughout."""
    return -F.cross_entropy(head(hidden_NH), target_N, reduction="none")


def network(config: PreTrainedConfig, adapter: Adapter, *, fp64_norms: bool = True) -> LanguageModel:
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config, attn_implementation=attention.PACKED).double()
    for module in made.modules():
        if fp64_norms and type(module).__name__.endswith("RMSNorm"):
            module.forward = MethodType(norm_in_fp64, module)
    wrapped = adapter.wrap(made, seed=1).double()
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:  # zeros would hide mistakes
            nn.init.normal_(parameter, std=0.05)
    return LanguageModel(wrapped, None).train()  # type: ignore[arg-type]


def tokens(count: int, seed: int) -> list[int]:
    return torch.randint(3, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def tree(prefix: int, *branches: tuple[int, int], seed: int) -> Tree:
    """Branches of so many prompt and answer tokens."""
    samples = (Sample(tokens(p, seed + n), tokens(a, seed + 50 + n)) for n, (p, a) in enumerate(branches, 1))
    return Tree(tokens(prefix, seed), tuple(samples))


TREES = [
    tree(30, (4, 6), (1, 3), (9, 1), (2, 2), seed=0),  # branches of unequal length
    tree(12, (3, 4), seed=100),  # one branch
    tree(0, (7, 5), seed=200),  # a sample by itself
    tree(1, (2, 3), (2, 3), seed=300),  # a prefix of one token
    tree(5, (1, 1), (1, 1), (1, 1), seed=400),  # nothing but the last token of the prompt
]


def samples_of(trees: list[Tree]) -> list[Sample]:
    return [Sample([*t.prefix_ids, *b.prompt_ids], b.answer_ids) for t in trees for b in t.branches]


def loss_and_gradients(model: LanguageModel, batches: list[TokenBatch]) -> tuple[float, dict[str, Tensor]]:
    loss = sum((model(batch) for batch in batches), torch.zeros((), dtype=torch.float64))
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, [p for _, p in named])
    return float(loss), dict(zip((name for name, _ in named), gradients, strict=True))


def worst(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference relative to the largest gradient of the same weight."""
    assert found.keys() == expected.keys()
    return max(float((found[n] - expected[n]).abs().max() / expected[n].abs().max()) for n in expected)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("adapter", [Full(), Lora(rank=4, alpha=8)], ids=["full", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_trees_equal_samples_one_by_one(
    kind: str, adapter: Adapter, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_model, "answer_log_probs", exact_log_probs)
    model = network(CONFIGS[kind], adapter)
    if checkpointing:
        model.causal.gradient_checkpointing_enable({"use_reentrant": False})
    # transformers' own attention and position ids, a sample at a time.
    alone = [pad([sample], answers_in_step=1) for sample in samples_of(TREES)]
    expected, expected_gradients = loss_and_gradients(model, alone)
    assert expected > 10
    rows = [pack(TREES, answers_in_step=1)]
    passes = [pack(TREES[:2], answers_in_step=1), pack(TREES[2:], answers_in_step=1)]  # a step of two passes
    padded = [pad(samples_of(TREES), answers_in_step=1)]
    for batches in (rows, passes, padded):
        found, gradients = loss_and_gradients(model, batches)
        assert found == pytest.approx(expected, rel=1e-12)
        assert worst(gradients, expected_gradients) < 1e-9


@pytest.mark.parametrize("kind", CONFIGS)
def test_with_the_models_own_fp32_norms(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums in another order round to other fp32 numbers in the norms; that is all that differs."""
    monkeypatch.setattr(language_model, "answer_log_probs", exact_log_probs)
    model = network(CONFIGS[kind], Lora(rank=4, alpha=8), fp64_norms=False)
    expected = loss_and_gradients(model, [pad([sample], answers_in_step=1) for sample in samples_of(TREES)])
    found = loss_and_gradients(model, [pack(TREES, answers_in_step=1)])
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert worst(found[1], expected[1]) < 1e-5


def dense_mask(trees: tuple[tuple[int, ...], ...]) -> Tensor:
    """Which token sees which, written out pair by pair."""
    length = sum(map(sum, trees))
    sees = torch.zeros(length, length, dtype=torch.bool)
    at = 0
    for prefix, *branches in trees:
        root, at = at, at + prefix
        for token in range(root, at):
            sees[token, root : token + 1] = True
        for own in branches:
            for token in range(at, at + own):
                sees[token, root : root + prefix] = True
                sees[token, at : token + 1] = True
            at += own
    return sees


WIDE = ((5, 3, 7, 1), (0, 9), (1, 2, 2), (4, 6), (130, 100, 3, 40), (520, 5, 5), (0, 400), (3, 128), (0, 4, 4))


def states(length: int, heads: int) -> Tensor:
    torch.manual_seed(heads)
    return torch.randn(1, heads, length, 8, dtype=torch.float64, requires_grad=True)


def test_branches_attend_as_a_dense_mask_says() -> None:
    length = sum(map(sum, WIDE))
    query, key, value = states(length, 4), states(length, 2), states(length, 2)
    layout = attention.lay_out(WIDE, device=torch.device("cpu"))
    assert layout.block_mask is None and layout.padding == 0
    found, _ = attention.packed_attention(nn.Identity(), query, key, value, None, scaling=0.3, layout=layout)
    expected = F.scaled_dot_product_attention(
        query, key, value, attn_mask=dense_mask(WIDE), scale=0.3, enable_gqa=True
    ).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    above = torch.randn_like(found)
    gradients = (torch.autograd.grad(out, (query, key, value), above) for out in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_blocks_of_flex_attention() -> None:
    """The table says of each block whether none, some or all of its pairs count; the rule says which pairs."""
    mask = attention.block_mask(WIDE, device=torch.device("cpu"))
    length = sum(map(sum, WIDE))
    whole = -(-length // 128) * 128
    sees = torch.eye(whole, dtype=torch.bool)  # filler sees itself
    sees[:length, :length] = dense_mask(WIDE)
    places = torch.arange(whole)
    assert torch.equal(mask.mask_mod(0, 0, places[:, None], places[None]), sees)

    def table(counts: Tensor, indices: Tensor) -> Tensor:
        found = torch.zeros(whole // 128, whole // 128, dtype=torch.bool)
        for row, count in enumerate(counts[0, 0].tolist()):
            found[row, indices[0, 0, row, :count].long()] = True
        return found

    blocks = sees.view(whole // 128, 128, whole // 128, 128)
    some, every = blocks.any(3).any(1), blocks.all(3).all(1)
    assert every.sum() >= 3
    assert torch.equal(table(mask.full_kv_num_blocks, mask.full_kv_indices), every)
    assert torch.equal(table(mask.kv_num_blocks, mask.kv_indices), some & ~every)


def test_flex_attention_equals_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its compiler, flex_attention computes on a CPU; its gradients it computes on a GPU only."""
    import torch.nn.attention.flex_attention as flex

    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(attention, "flex_runs_on", lambda device: True)
    monkeypatch.setattr(attention, "_compiled_flex", lambda: flex.flex_attention)
    model = network(CONFIGS["qwen2"], Full()).eval()
    batch = pack(TREES, answers_in_step=1)
    layout = attention.lay_out(batch.trees, device=torch.device("cpu"))
    assert layout.padding == -batch.num_tokens % 128
    with torch.no_grad():
        through_flex = float(model(batch))
        monkeypatch.setattr(attention, "flex_runs_on", lambda device: False)
        assert through_flex == pytest.approx(float(model(batch)), rel=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_flex_attention_on_a_gpu() -> None:
    """Values and gradients equal the CPU's; two more rows of other lengths compile nothing anew."""
    from torch._dynamo.utils import counters

    for number, trees in enumerate((WIDE, WIDE[:6], WIDE[2:])):
        length = sum(map(sum, trees))
        inputs = [states(length, heads).detach().float() for heads in (4, 2, 2)]
        found = []
        for device in ("cpu", "cuda"):
            layout = attention.lay_out(trees, device=torch.device(device))
            q, k, v = (F.pad(x, (0, 0, 0, layout.padding)).to(device).requires_grad_() for x in inputs)
            out, _ = attention.packed_attention(nn.Identity(), q, k, v, None, scaling=0.3, layout=layout)
            gradients = torch.autograd.grad(out[:, :length].pow(2).sum(), (q, k, v))
            found.append([out[:, :length].cpu(), *(g[:, :, :length].cpu() for g in gradients)])
        torch.testing.assert_close(found[1], found[0], rtol=2e-3, atol=2e-3)
        if number == 0:
            compiled = counters["stats"]["unique_graphs"]
    assert counters["stats"]["unique_graphs"] <= compiled + 1  # the first other length may make it dynamic


def test_the_first_step_compares_two_samples_of_the_smallest_tree() -> None:
    packed, alone = excerpt(pack(TREES, answers_in_step=1))
    assert packed.trees == ((1, 5, 5),)
    assert alone.input_ids_BT.tolist() == [[*s.prompt_ids, *s.answer_ids] for s in samples_of([TREES[3]])]
    # Without a prefix, the first two of the row.
    singles = [tree(0, (7, 5), seed=1), tree(0, (2, 1), seed=2), tree(0, (3, 3), seed=3)]
    packed, alone = excerpt(pack(singles, answers_in_step=1))
    assert packed.trees == ((0, 12), (0, 3))
    assert (alone.target_BT != -100).sum() == 6


def test_models_that_keep_to_their_samples_pass_the_check() -> None:
    for config in CONFIGS.values():
        model = network(config, Full()).float()
        for module in model.modules():
            module.__dict__.pop("forward", None)
        check_packing(model, pack(TREES, answers_in_step=1))
        assert model.training


def test_a_recurrent_layer_is_named() -> None:
    config = Qwen3NextConfig(
        vocab_size=VOCABULARY,
        intermediate_size=48,
        head_dim=16,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        layer_types=["linear_attention", "full_attention"],
        **SIZES,
    )
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config, attn_implementation=attention.PACKED)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)  # far enough from uniform for the leak to show
    with pytest.raises(RunError, match=r"layer 0 \(Qwen3NextDecoderLayer\) does not keep to its sample"):
        check_packing(LanguageModel(made, None), pack(TREES[:1], answers_in_step=1))  # type: ignore[arg-type]
