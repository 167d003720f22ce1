"""Packing changes nothing, adapters come back, and what is not a model is refused by name."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.store import Store
from tutelage.text2sql.model.adapters import Adapter, Full, Lora, QLora
from tutelage.text2sql.model.language_model import LanguageModel, Pretrained, load
from tutelage.text2sql.model.saved import load_trained, load_untrained, merge
from tutelage.text2sql.model.tiny import Tiny
from tutelage.text2sql.training.packing import IGNORED, Sample, pack, pad

TEXTS = ["How many flights left JFK late?", "SELECT count(*) FROM flights WHERE origin = 'JFK' AND dep_delay > 0"] * 3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = Tiny(vocabulary=320, hidden_size=32, layers=2, heads=2, context=128)
    return spec.folder(Store(tmp_path_factory.mktemp("store")), texts=TEXTS, seed=1)


def language_model(folder: Path, adapter: Adapter | None = None, *, checkpointing: bool = False) -> LanguageModel:
    spec = Pretrained(str(folder), gradient_checkpointing=checkpointing)
    return load(spec, adapter=adapter or Full(), seed=1)


def awaken(model: LanguageModel) -> LanguageModel:
    """Give LoRA's second matrices values; as zeros they would hide mistakes."""
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def samples(count: int = 6) -> list[Sample]:
    rng = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 20, (count, 2), generator=rng).tolist()
    return [
        Sample(torch.randint(3, 300, (p,), generator=rng).tolist(), torch.randint(3, 300, (a,), generator=rng).tolist())
        for p, a in sizes
    ]


def loss_and_gradients(model: LanguageModel, losses: Tensor) -> tuple[Tensor, list[Tensor]]:
    trained = [p for p in model.parameters() if p.requires_grad]
    return losses.detach(), list(torch.autograd.grad(losses, trained))


@pytest.mark.parametrize("adapter", [Full(), Lora(rank=4, alpha=8)], ids=["full", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_equals_one_by_one_equals_padded(tiny: Path, adapter: Adapter, checkpointing: bool) -> None:
    model = awaken(language_model(tiny, adapter, checkpointing=checkpointing)).train()
    items = samples()
    # The reference is transformers' own forward pass on each sample alone, full logits and all.
    alone = torch.zeros(())
    for item in items:
        batch = pad([item], answers_in_step=1)
        logits = model.network(input_ids=batch.input_ids_BT).logits[0]
        alone = alone + torch.nn.functional.cross_entropy(
            logits, batch.target_BT[0], ignore_index=IGNORED, reduction="sum"
        )
    expected, expected_gradients = loss_and_gradients(model, alone)
    for layout in (pack, pad):
        found, gradients = loss_and_gradients(model, model(layout(items, answers_in_step=1)))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-5)


def test_a_sample_does_not_see_its_neighbours(tiny: Path) -> None:
    model = language_model(tiny).eval()
    first, second, other = samples(3)
    with torch.no_grad():
        alone = model(pack([second], answers_in_step=1))
        together = model(pack([first, second], answers_in_step=1)) - model(pack([first], answers_in_step=1))
        swapped = model(pack([other, second], answers_in_step=1)) - model(pack([other], answers_in_step=1))
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(swapped, alone, rtol=1e-5, atol=1e-4)


def test_bf16_autocast_agrees(tiny: Path) -> None:
    model = awaken(language_model(tiny, Lora(rank=4, alpha=8)))
    batch = pack(samples(), answers_in_step=1)
    exact = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model(batch), exact, rtol=5e-3, atol=0)


def test_generation_with_cache_equals_teacher_forcing(tiny: Path) -> None:
    """The same attention serves generation: batched, left-padded, cached, it says what the plain argmax says."""
    model = language_model(tiny).eval()
    prompts = [[5, 6, 7, 8, 9, 10], [11, 12]]
    ids = torch.tensor([prompts[0], [0, 0, 0, 0, *prompts[1]]])
    mask = torch.tensor([[1] * 6, [0] * 4 + [1] * 2])
    out = model.causal.generate(input_ids=ids, attention_mask=mask, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    for prompt, row in zip(prompts, out[:, 6:].tolist(), strict=True):
        tokens = list(prompt)
        for _ in range(5):
            with torch.no_grad():
                logits = model.causal(input_ids=torch.tensor([tokens])).logits[0, -1]
            logits[model.causal.config.eos_token_id] = -torch.inf
            tokens.append(int(logits.argmax()))
        assert row == tokens[len(prompt) :]


def test_only_the_adapter_is_trained(tiny: Path) -> None:
    model = language_model(tiny, Lora(rank=4, alpha=8))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 7 * 2  # layers × linear layers × (A, B)
    assert all("lora_" in name for name in trained)
    assert model.adapted
    assert not language_model(tiny).adapted


def test_adapter_is_a_function_of_the_seed(tiny: Path) -> None:
    before = torch.random.get_rng_state()
    one, two = (language_model(tiny, Lora(rank=4, alpha=8)).state_dict() for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_peft_opens_what_we_save_and_merging_keeps_answers(tiny: Path, tmp_path: Path) -> None:
    model = awaken(language_model(tiny, Lora(rank=4, alpha=8))).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = model.network(input_ids=ids).logits
        model.save(tmp_path / "adapter")
        assert (tmp_path / "adapter/adapter_model.safetensors").stat().st_size < 40_000  # no weight of the base
        base = AutoModelForCausalLM.from_pretrained(tiny)
        reopened = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        torch.testing.assert_close(reopened(input_ids=ids).logits, expected)
        merge(Pretrained(str(tiny)), adapter_folder=tmp_path / "adapter", into=tmp_path / "merged")
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.decode(tokenizer.encode(TEXTS[1])) == TEXTS[1]


def test_full_model_is_saved_as_a_hugging_face_folder(tiny: Path, tmp_path: Path) -> None:
    model = language_model(tiny).eval()
    model.save(tmp_path / "model")
    again = language_model(tmp_path / "model")
    torch.testing.assert_close(dict(again.named_parameters()), dict(model.named_parameters()), rtol=0, atol=0)


def test_tiny_is_found_again_and_copies_names(tiny: Path) -> None:
    tokenizer = Pretrained(str(tiny)).tokenizer()
    in_question = tokenizer.encode(" JFK late", add_special_tokens=False)
    in_sql = tokenizer.encode("'JFK'", add_special_tokens=False)
    assert in_question[1] == in_sql[1]  # the same token after a space and after a quote
    turn = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True)
    assert turn == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    store = Store(tiny.parents[1])
    spec = Tiny(vocabulary=320, hidden_size=32, layers=2, heads=2, context=128)
    assert spec.folder(store, texts=TEXTS, seed=1) == tiny
    assert spec.folder(store, texts=TEXTS, seed=2) != tiny


@pytest.mark.parametrize(
    ("make", "where", "says"),
    [
        (lambda at: at / "nothing", "model.path", "nothing at"),
        (lambda at: (at / "empty").mkdir() or at / "empty", "model.path", "neither config.json"),
        (lambda at: (at / "x.gguf").write_bytes(b"MZ\0\0") and at / "x.gguf", "model.path", "is not a GGUF file"),
        (lambda at: (at / "x.gguf").write_bytes(b"GGUF\3\0\0\0") and at / "x.gguf", "model.path", "cut off"),
        (lambda at: (at / "config.json").write_text("{}") and at, "model.path", "is not a model"),
    ],
    ids=["nothing", "empty folder", "another file", "a header and no more", "another config"],
)
def test_what_is_no_model(make, where: str, says: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((ConfigError, DataError)) as caught:
        Pretrained(str(make(tmp_path))).config()
    assert caught.value.where == where
    assert says in caught.value.what


def test_folder_without_tokenizer_and_weights_cut_off(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    spec = Pretrained(str(tmp_path))
    with pytest.raises(ConfigError, match="no tokenizer"):
        spec.tokenizer()
    weights = (tiny / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(DataError, match="do not load"):
        spec.network()


class Asked(Exception):
    """Ends what would need a GPU, once it has said how weights are to be loaded."""


def test_qlora_asks_for_4_bits_on_this_ranks_device(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training, and again when what was trained is loaded: its base is the model that was scored."""
    asked: list[dict[str, Any]] = []

    def from_pretrained(path: str, **settings: Any) -> None:
        asked.append(settings)
        raise Asked

    language_model(tiny, Lora(rank=4, alpha=8)).save(tmp_path / "adapter")
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setenv("LOCAL_RANK", "3")
    spec, adapter = Pretrained(str(tiny), dtype="bfloat16"), QLora(rank=4, alpha=8)
    for loading in (
        lambda: load(spec, adapter=adapter, seed=1),
        lambda: load_trained(spec, tmp_path / "adapter", adapter=adapter),
        lambda: load_untrained(spec, adapter=adapter),
    ):
        with pytest.raises(Asked):
            loading()
    assert [settings["device_map"] for settings in asked] == [{"": 3}] * 3
    assert [settings["dtype"] for settings in asked] == [torch.bfloat16] * 3
    assert all(settings["quantization_config"].load_in_4bit for settings in asked)


def test_qlora_casts_norms_alone(tiny: Path) -> None:
    """peft's own preparation casts embeddings and output layer too, and the residual stream follows."""
    network = Pretrained(str(tiny), dtype="bfloat16").network()
    model = LanguageModel(QLora(rank=4, alpha=8).wrap(network, seed=1), Pretrained(str(tiny)).tokenizer())
    frozen = {name: p.dtype for name, p in model.named_parameters() if not p.requires_grad}
    assert {dtype for name, dtype in frozen.items() if "norm" in name} == {torch.float32}
    assert {dtype for name, dtype in frozen.items() if "norm" not in name} == {torch.bfloat16}
    residual: list[torch.dtype] = []
    for layer in model.causal.model.layers:
        layer.register_forward_hook(lambda module, inputs, output: residual.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(pack(samples(), answers_in_step=1)).backward()
    assert residual == [torch.bfloat16] * 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_trained_is_fp32_and_what_is_frozen_has_its_own_dtype(tiny: Path, dtype: Any) -> None:
    spec = Pretrained(str(tiny), dtype=dtype)
    frozen = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    for adapter in (Full(), Lora(rank=4, alpha=8)):
        model = load(spec, adapter=adapter, seed=1)
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        assert {p.dtype for p in model.parameters() if not p.requires_grad} <= {frozen}
    assert {p.dtype for p in load_untrained(spec, adapter=Full()).parameters()} == {frozen}


def test_a_revision_is_passed_on(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revisions = []
    for kind in (AutoConfig, AutoTokenizer, AutoModelForCausalLM):

        def from_pretrained(path: str, *, revision: str | None, **settings: Any) -> None:
            revisions.append(revision)
            raise Asked

        monkeypatch.setattr(kind, "from_pretrained", from_pretrained)
    spec = Pretrained(str(tiny), revision="v1.0")
    for loading in (spec.config, spec.tokenizer, spec.network):
        with pytest.raises(Asked):
            loading()
    assert revisions == ["v1.0"] * 3


def test_checkpointing_is_asked_for_by_todays_name(tiny: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        model = language_model(tiny, checkpointing=True)
    assert all(layer.gradient_checkpointing for layer in model.causal.model.layers)


def test_unknown_target_layer(tiny: Path) -> None:
    with pytest.raises(ConfigError, match=r"adapter\.targets"):
        language_model(tiny, Lora(rank=4, alpha=8, targets=["q_project"]))


def test_qlora_says_what_is_missing() -> None:
    # Here there is neither bitsandbytes nor, on a CPU, a device for it.
    if torch.cuda.is_available():
        pytest.skip("this machine may be able to")
    with pytest.raises(ConfigError, match="qlora needs"):
        QLora(rank=4, alpha=8).check()


def test_real_gguf(tmp_path: Path) -> None:
    """SmolLM2's file, where ``TUTELAGE_SMOLLM2`` names it: loads whole, is refused when cut off."""
    import os

    named = os.environ.get("TUTELAGE_SMOLLM2")
    if not named:
        pytest.skip("TUTELAGE_SMOLLM2 names no model.gguf")
    whole = Path(named)
    cut = tmp_path / "model.gguf"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size - 1000])
    with pytest.raises(DataError, match="cut off"):
        Pretrained(str(cut)).source()
    assert Pretrained(str(whole)).config().get_text_config().vocab_size == 49152
    loaded = Pretrained(str(whole)).network()
    loaded.save_pretrained(tmp_path / "saved")  # a run that was trained on it is saved, and exported
    again = Pretrained(str(tmp_path / "saved")).network()
    torch.testing.assert_close(again.state_dict(), loaded.state_dict(), rtol=0, atol=0)


def test_weights_that_are_cut_off_or_missing_are_found_without_loading_them(tiny: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    spec = Pretrained(str(tmp_path))
    spec.fetch()
    weights = (tiny / "model.safetensors").read_bytes()
    for cut in (len(weights) - 1, 100, 4):
        (tmp_path / "model.safetensors").write_bytes(weights[:cut])
        with pytest.raises(DataError, match="is cut off"):
            spec.fetch()
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
    with pytest.raises(DataError, match=r"gone\.safetensors is missing"):
        spec.fetch()


class LargestMask(TorchDispatchMode):
    """Watches for a tensor with two dimensions of the row's length."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length, self.seen = length, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.dtype == torch.bool and list(leaf.shape).count(self.length) == 2:
                self.seen = True
        return out


def test_padded_training_makes_no_mask(tiny: Path) -> None:
    model = language_model(tiny)
    batch = pad(samples(), answers_in_step=1)
    with LargestMask(batch.input_ids_BT.shape[1]) as mask:
        model(batch)
    assert not mask.seen


def test_log_probabilities_of_answers_add_up_to_the_loss(tiny: Path) -> None:
    model = language_model(tiny).eval()
    batch = pack(samples(), answers_in_step=1)
    log_probs = model.log_probs(batch)
    assert log_probs.shape == (int((batch.target_BT != IGNORED).sum()),)
    torch.testing.assert_close(-log_probs.sum(), model(batch))
