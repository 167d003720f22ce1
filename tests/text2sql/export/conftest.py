"""A finished run with an adapter, made without training: what an adapter holds does not matter for taking it away."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from tutelage.core import run_folder
from tutelage.core.results import MANIFEST, METRICS, write_json
from tutelage.core.store import Store
from tutelage.text2sql.model.adapters import Lora
from tutelage.text2sql.model.language_model import LanguageModel, Pretrained, load
from tutelage.text2sql.model.saved import MODEL
from tutelage.text2sql.model.tiny import Tiny


@dataclass
class Adapted:
    """A run's folder, and the model in it with its adapter beside the weights."""

    folder: Path
    model: LanguageModel


@pytest.fixture
def make_run(compose_config: Callable[..., DictConfig], tmp_path: Path) -> Callable[..., Adapted]:
    """Makes a run of a tiny model with LoRA on the given layers, prompts by the given template."""

    def made(*, targets: list[str], template: str = "chatml") -> Adapted:
        tiny = Tiny(vocabulary=400, hidden_size=32, layers=2, heads=2, context=512)
        base = tiny.folder(Store(tmp_path / "store"), texts=["SELECT name FROM shop"], seed=1)
        adapter = Lora(rank=4, alpha=64, targets=targets)
        model = load(Pretrained(str(base)), adapter=adapter, seed=1)
        torch.manual_seed(0)
        for name, weight in model.named_parameters():
            if "lora_B" in name:  # zero before training
                torch.nn.init.normal_(weight, std=0.3)
        folder = tmp_path / "run"
        cfg = compose_config(
            "task=text2sql", "prompt=brief", f"prompt.template={template}", "adapter=lora", "adapter.rank=4",
            "inference.max_new_tokens=24", "explore.split=eval",
        )  # fmt: skip
        cfg.model = {"_target_": "tutelage.text2sql.model.language_model.Pretrained", "path": str(base)}
        run_folder.save_config(cfg, folder)
        model.save(folder / MODEL)
        scores = {"": 61.7, "_low": 51.6, "_high": 70.9, "_count": 94}
        write_json(folder / METRICS, {f"test/ex{part}": value for part, value in scores.items()})
        corpus = {"seeds": 12, "explored_pairs": 692, "explored_in": "databases of the test questions (transductive)"}
        versions = dict.fromkeys(("torch", "transformers", "peft"), "1.0")
        manifest = {"git": "abc", "versions": versions, "corpus": corpus, "data": {"fingerprint": "f00d"}}
        write_json(folder / MANIFEST, manifest)
        return Adapted(folder, model.eval())

    return made
