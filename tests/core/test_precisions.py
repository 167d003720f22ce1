"""Each trainer composes to the precision that its comment says, for images, with and without a GPU."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from tutelage.core import precision
from tutelage.core.errors import ConfigError

CONF = Path(__file__).resolve().parents[2] / "conf"
TRAINERS = {"auto": "fp32", "cpu": "fp32", "cpus": "fp32", "gpus": "bf16", "fsdp": "bf16"}
DATA = sorted(p.stem for p in (CONF / "data").glob("*.yaml") if "tutelage.multilabel" in p.read_text())
NAMES = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)


def resolved(cfg: DictConfig) -> str:
    return precision.resolve(cfg.trainer.precision, accelerator=cfg.trainer.accelerator)


def said(path: Path) -> str:
    """Return the precision of arithmetic that a file's comments name."""
    comments = " ".join(line.partition("#")[2] for line in path.read_text().splitlines())
    (name,) = re.findall(r"(?:images|arithmetic|multiplied) in (fp32|bf16|fp16)", comments)
    return str(name)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_trainer_does_what_its_comment_says(
    trainer: str, gpu: None, compose_config: Callable[..., DictConfig]
) -> None:
    assert sorted(TRAINERS) == sorted(path.stem for path in (CONF / "trainer").glob("*.yaml"))
    path = CONF / "trainer" / f"{trainer}.yaml"
    if trainer != "cpus":  # it is for tests, and says nothing of precision
        assert said(path) == TRAINERS[trainer]
    for data in DATA:
        assert resolved(compose_config(f"data={data}", f"trainer={trainer}")) == NAMES[TRAINERS[trainer]], data


def test_images_are_trained_in_fp32_on_a_cpu_whatever_it_has(
    compose_config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    for trainer in ("auto", "cpu", "cpus"):
        assert resolved(compose_config(f"trainer={trainer}")) == "32-true"


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_experiment_asks_for_what_it_gets(
    path: Path, gpu: None, compose_config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose_config(f"experiment={path.stem}")
    asked = cfg.trainer.precision
    assert resolved(cfg) == ("bf16-mixed" if asked == "auto" else asked)
    if asked == "16-mixed":
        monkeypatch.undo()
        with pytest.raises(ConfigError, match="16-mixed needs a GPU"):
            precision.resolve(asked, accelerator="cpu")


def test_bf16_on_a_gpu_that_emulates_it_is_refused(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    with pytest.raises(ConfigError, match=r"trainer.precision: bf16-mixed: a GPU has no bf16 arithmetic.*16-mixed"):
        precision.resolve("bf16-mixed", accelerator="auto")
    assert precision.resolve("bf16-mixed", accelerator="cpu") == "bf16-mixed"
    assert precision.resolve("16-mixed", accelerator="gpu") == "16-mixed"
