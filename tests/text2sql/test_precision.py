"""Which precision each text-to-SQL config composes to: what its comments say, on every kind of device."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from tutelage.core import precision
from tutelage.core.build import build
from tutelage.core.errors import ConfigError

CONF = Path(__file__).resolve().parents[2] / "conf"
MODELS = sorted(p.stem for p in (CONF / "model").glob("*.yaml") if "@package" in p.read_text())
ADAPTERS = sorted(p.stem for p in (CONF / "adapter").glob("*.yaml"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)


@pytest.mark.parametrize("trainer", ["auto", "gpus", "fsdp"])
@pytest.mark.parametrize("model", MODELS)
def test_gpus_multiply_in_bf16_and_train_weights_in_fp32(
    trainer: str, model: str, gpu: None, compose_config: Callable[..., DictConfig]
) -> None:
    for adapter in ADAPTERS:
        cfg = compose_config("task=text2sql", f"trainer={trainer}", f"model={model}", f"adapter={adapter}")
        resolved = precision.resolve(cfg.trainer.precision, accelerator=cfg.trainer.accelerator)
        assert resolved == ("32-true" if model == "tiny" else "bf16-mixed")
        if model.startswith("qwen"):
            assert cfg.model.dtype == "bfloat16"  # of frozen weights
        assert build(cfg.adapter, where="adapter").trains_all == (adapter == "full")
        assert (build(cfg.adapter, where="adapter").quantization is not None) == (adapter == "qlora")


def test_a_command_line_wins(gpu: None, compose_config: Callable[..., DictConfig]) -> None:
    cfg = compose_config("task=text2sql", "model=qwen2_5_coder_7b", "trainer=gpus", "trainer.precision=32-true")
    assert precision.resolve(cfg.trainer.precision, accelerator="gpu") == "32-true"


@pytest.mark.parametrize(
    ("accelerator", "cuda", "cuda_bf16", "cpu_bf16", "expected"),
    [
        ("auto", True, True, False, "bf16-mixed"),
        ("auto", True, False, True, "32-true"),  # an old GPU, which emulates bf16
        ("auto", False, False, True, "bf16-mixed"),
        ("auto", False, False, False, "32-true"),
        ("cpu", True, True, False, "32-true"),
        ("cpu", True, True, True, "bf16-mixed"),
        ("gpu", False, False, True, "32-true"),
    ],
)
def test_auto_follows_the_device(
    accelerator: str, cuda: bool, cuda_bf16: bool, cpu_bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: cuda_bf16)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: cpu_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert precision.resolve("auto", accelerator=accelerator) == expected


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.precision: 16-mixed needs a GPU"):
        precision.resolve("16-mixed", accelerator="cpu")
