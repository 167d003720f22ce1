"""vLLM behind the same door. It is not installed here: its calls go to a stand-in."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tutelage.core.errors import ConfigError
from tutelage.text2sql.inference.generate import Decoding, Request
from tutelage.text2sql.inference.vllm import VllmEngine, check_vllm

REQUESTS = [Request("a", [1, 2]), Request("b", [3])]


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_its_absence_is_said_before_the_long_part() -> None:
    with pytest.raises(ConfigError, match=r"inference\.engine: vllm is not installed"):
        check_vllm()


class StandIn:
    """Records what it is asked, and answers with the number of the sample."""

    def __init__(self, **settings: object) -> None:
        self.settings, self.calls = settings, []

    def generate(self, prompts, parameters, *, lora_request, use_tqdm):
        self.calls.append((prompts, parameters, lora_request))
        return [SimpleNamespace(outputs=[SimpleNamespace(text=f"t{n}") for n in range(p["n"])]) for p in parameters]

    def beam_search(self, prompts, parameters, *, lora_request):
        self.calls.append((prompts, parameters, lora_request))
        return [SimpleNamespace(sequences=[SimpleNamespace(tokens=[*p["prompt_token_ids"], 7, 9, 8])]) for p in prompts]

    def get_tokenizer(self):
        return SimpleNamespace(decode=lambda ids: f"decoded {ids}")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {
        "vllm": {"LLM": StandIn, "SamplingParams": dict},
        "vllm.sampling_params": {"BeamSearchParams": dict},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": lambda *arguments: arguments},
    }
    for name, members in modules.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        module.__spec__ = importlib.util.spec_from_loader(name, loader=None)
        monkeypatch.setitem(sys.modules, name, module)


def make(saved: Path) -> VllmEngine:
    return VllmEngine(saved, base="base-model", end_token=9, seed=5, context=128)


def test_greedy_and_samples(stand_in: None, tmp_path: Path) -> None:
    engine = make(tmp_path)
    assert engine._model.settings == {"model": str(tmp_path), "max_model_len": 128, "generation_config": "vllm"}
    assert engine.generate(REQUESTS, Decoding("greedy", 1, 0.7, 0.9, 20, 4)) == [["t0"], ["t0"]]
    prompts, parameters, lora = engine._model.calls[-1]
    assert prompts == [{"prompt_token_ids": [1, 2]}, {"prompt_token_ids": [3]}]
    assert lora is None
    assert (parameters[0]["temperature"], parameters[0]["max_tokens"], parameters[0]["stop_token_ids"]) == (
        0.0,
        20,
        [9],
    )
    assert engine.generate(REQUESTS, Decoding("sample", 2, 0.7, 0.9, 20, 4)) == [["t0", "t1"], ["t0", "t1"]]
    first = engine._model.calls[-1][1]
    assert (first[0]["temperature"], first[0]["top_p"], first[0]["n"]) == (0.7, 0.9, 2)
    assert first[0]["seed"] != first[1]["seed"]
    engine.generate(REQUESTS[::-1], Decoding("sample", 2, 0.7, 0.9, 20, 4))
    assert engine._model.calls[-1][1][1]["seed"] == first[0]["seed"]  # of seed and request only


def test_beams_and_adapters(stand_in: None, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 64}')
    engine = make(tmp_path)
    settings = engine._model.settings
    assert (settings["model"], settings["tokenizer"], settings["max_lora_rank"]) == ("base-model", str(tmp_path), 64)
    assert engine.generate(REQUESTS, Decoding("beam", 3, 1.0, 1.0, 20, 4)) == [["decoded [7]"], ["decoded [7]"]]
    _, parameters, lora = engine._model.calls[-1]
    assert parameters == {"beam_width": 3, "max_tokens": 20}
    assert lora == ("tutelage", 1, str(tmp_path))
