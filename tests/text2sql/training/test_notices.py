"""What keeps questions from sharing their schema, or changes what sharing gives, is said before anything long."""

import importlib.util
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from test_trees import CONFIGS, TREES, network
from torch import Tensor, nn

from tutelage.core import run
from tutelage.text2sql.model import attention
from tutelage.text2sql.model.adapters import Lora
from tutelage.text2sql.training.packing import pack

INLINE = ["prompt=ddl", "prompt.values=inline"]
DROPOUT = ["adapter=lora", "adapter.dropout=0.1"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["prompt=ddl"], []),
        (INLINE, ["prompt.values=inline .* data.prefix=shared saves next to nothing"]),
        ([*INLINE, "data.prefix=none"], []),
        ([*INLINE, "data.packing=false"], []),
        (["adapter=lora"], []),
        (DROPOUT, ["adapter.dropout=0.1: questions that share a prefix also share what is dropped in it"]),
        ([*DROPOUT, "data.prefix=none"], []),
        ([*INLINE, *DROPOUT], ["prompt.values=inline", "adapter.dropout=0.1"]),
    ],
)
def test_the_check_of_a_run_says_what_is_not_shared(
    settings: list[str], said: list[str], compose_config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    cfg = compose_config("task=text2sql", "trainer=cpu", "model.context=8192", *settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.make_task(cfg, folder=tmp_path, out=tmp_path).check()
    texts = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    assert len(texts) == len(said)
    for text, pattern in zip(texts, said, strict=True):
        assert re.search(pattern, text)


def test_one_draw_of_dropout_serves_a_tree() -> None:
    """Each token that is computed is drawn for once, and a prefix is computed once for all its branches."""
    model = network(CONFIGS["qwen2"], Lora(rank=4, alpha=8, dropout=0.5))
    drawn: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        drawn.append(inputs[0].shape[:-1].numel())

    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p == 0.5]
    for module in dropouts:
        module.register_forward_hook(count)
    batch = pack(TREES, answers_in_step=1)
    model(batch)
    assert batch.num_tokens < batch.num_seen
    assert drawn == [batch.num_tokens] * len(dropouts) and drawn


def test_a_gpu_without_triton_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There flex_attention and its mask cannot be used; trees go through the calls that a CPU takes."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    attention._say_once_that_triton_is_missing.cache_clear()
    cuda = torch.device("cuda")
    with pytest.warns(UserWarning, match="flex_attention needs Triton.*shared prefixes are computed tree by tree"):
        assert not attention.flex_runs_on(cuda)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not attention.flex_runs_on(cuda)
        assert not attention.flex_runs_on(torch.device("cpu"))
    attention._say_once_that_triton_is_missing.cache_clear()
