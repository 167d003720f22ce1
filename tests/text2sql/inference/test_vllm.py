"""vLLM behind the same door. It is not installed here: its calls go to a stand-in."""

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Literal

import pytest

from tutelage.core.errors import ConfigError
from tutelage.text2sql.inference.generate import Decoding, Request
from tutelage.text2sql.inference.vllm import VllmEngine, check_vllm
from tutelage.text2sql.model.language_model import Pretrained

REQUESTS = [Request("a", [1, 2]), Request("b", [3])]


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_its_absence_is_said_before_the_long_part() -> None:
    with pytest.raises(ConfigError, match=r"inference\.engine: vllm is not installed"):
        check_vllm()


class StandIn:
    """vLLM's LLM (0.22) with its own arguments: records what it is asked, and answers with the sample's number."""

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        dtype: str = "auto",
        seed: int = 0,
        gpu_memory_utilization: float = 0.9,
        enforce_eager: bool = False,
        # what it hands on to EngineArgs
        max_model_len: int | None = None,
        generation_config: str = "auto",
        enable_lora: bool = False,
        max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 16,
    ) -> None:
        assert max_lora_rank in (1, 8, 16, 32, 64, 128, 256, 320, 512)
        assert dtype in ("auto", "float16", "bfloat16", "float32")
        self.settings = {
            "model": model, "tokenizer": tokenizer, "revision": revision, "dtype": dtype, "enable_lora": enable_lora,
            "max_model_len": max_model_len, "generation_config": generation_config, "max_lora_rank": max_lora_rank,
        }  # fmt: skip
        self.calls = []

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None, priority=None):
        self.calls.append((prompts, sampling_params, lora_request))
        return [SimpleNamespace(outputs=[SimpleNamespace(text=f"t{n}") for n in range(p.n)]) for p in sampling_params]

    def beam_search(self, prompts, params, lora_request=None, use_tqdm=False, concurrency_limit=None):
        self.calls.append((prompts, params, lora_request))
        return [SimpleNamespace(sequences=[SimpleNamespace(tokens=[*p["prompt_token_ids"], 7, 9, 8])]) for p in prompts]

    def get_tokenizer(self):
        return SimpleNamespace(decode=lambda ids: f"decoded {ids}")


@dataclass(kw_only=True)
class SamplingParams:
    """Its fields that matter here."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16


@dataclass(kw_only=True)
class BeamSearchParams:
    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    include_stop_str_in_output: bool = False


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {
        "vllm": {"LLM": StandIn, "SamplingParams": SamplingParams},
        "vllm.sampling_params": {"BeamSearchParams": BeamSearchParams},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
    }
    for name, members in modules.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        module.__spec__ = importlib.util.spec_from_loader(name, loader=None)
        monkeypatch.setitem(sys.modules, name, module)


def make(saved: Path, base: Pretrained | None = None) -> VllmEngine:
    return VllmEngine(saved, base=base or Pretrained("base-model"), end_token=9, seed=5, context=128)


def test_greedy_and_samples(stand_in: None, tmp_path: Path) -> None:
    engine = make(tmp_path)
    settings = engine._model.settings
    assert (settings["model"], settings["max_model_len"], settings["generation_config"]) == (str(tmp_path), 128, "vllm")
    assert settings["enable_lora"] is False
    assert engine.generate(REQUESTS, Decoding("greedy", 1, 0.7, 0.9, 20, 4)) == [["t0"], ["t0"]]
    prompts, parameters, lora = engine._model.calls[-1]
    assert prompts == [{"prompt_token_ids": [1, 2]}, {"prompt_token_ids": [3]}]
    assert lora is None
    assert (parameters[0].temperature, parameters[0].max_tokens, parameters[0].stop_token_ids) == (0.0, 20, [9])
    assert engine.generate(REQUESTS, Decoding("sample", 2, 0.7, 0.9, 20, 4)) == [["t0", "t1"], ["t0", "t1"]]
    first = engine._model.calls[-1][1]
    assert (first[0].temperature, first[0].top_p, first[0].n) == (0.7, 0.9, 2)
    assert first[0].seed != first[1].seed
    engine.generate(REQUESTS[::-1], Decoding("sample", 2, 0.7, 0.9, 20, 4))
    assert engine._model.calls[-1][1][1].seed == first[0].seed  # of seed and request only


@pytest.mark.parametrize(("rank", "allowed"), [(1, 1), (4, 8), (48, 64), (64, 64), (300, 320)])
def test_beams_and_adapters(rank: int, allowed: int, stand_in: None, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": rank}))
    engine = make(tmp_path, Pretrained("base-model", dtype="bfloat16", revision="v1"))
    assert engine._model.settings == {
        "model": "base-model", "revision": "v1", "dtype": "bfloat16", "tokenizer": str(tmp_path), "enable_lora": True,
        "max_lora_rank": allowed, "max_model_len": 128, "generation_config": "vllm",
    }  # fmt: skip
    assert engine.generate(REQUESTS, Decoding("beam", 3, 1.0, 1.0, 20, 4)) == [["decoded [7]"], ["decoded [7]"]]
    _, parameters, lora = engine._model.calls[-1]
    assert parameters == BeamSearchParams(beam_width=3, max_tokens=20)
    assert lora == LoRARequest("tutelage", 1, str(tmp_path))


def test_a_rank_beyond_all_is_refused(stand_in: None, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 513}')
    with pytest.raises(ConfigError, match=r"adapters up to rank 512, and this one has 513"):
        make(tmp_path)
