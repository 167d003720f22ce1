"""Two processes (gloo) equal one: replicated (DDP) and sharded (FSDP2)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from two_processes import train

from tutelage.text2sql.model.adapters import Full
from tutelage.text2sql.model.language_model import Pretrained
from tutelage.text2sql.model.saved import load_trained

WORKER = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(WORKER)]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    train(folder, world_size=1)  # here: another process would import all of torch again
    return folder


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_two_processes_equal_one(strategy: str, adapter: str, one: Path, two: Path) -> None:
    expected = torch.load(one / f"auto-{adapter}.pt", weights_only=True)
    found = torch.load(two / f"{strategy}-{adapter}.pt", weights_only=True)
    assert found["val/ex"] == expected["val/ex"]
    # The order of sums differs between one and two processes, so the last bits do.
    torch.testing.assert_close(found["trained"], expected["trained"], rtol=2e-3, atol=2e-5)
    assert json.loads((two / f"{strategy}-{adapter}.json").read_text()) == json.loads(
        (one / f"auto-{adapter}.json").read_text()
    )


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_spread_weights_are_saved_whole(adapter: str, two: Path) -> None:
    """The folder that transformers or peft loads holds the trained weights; a checkpoint of LoRA nothing else."""
    state = torch.load(two / f"fsdp-{adapter}.pt", weights_only=True)["trained"]
    assert adapter == "full" or all("lora_" in name for name in state)
    (tiny,) = (two / "store" / "tiny_models").glob("*/config.json")
    spec = Pretrained(str(tiny.parent))
    saved = load_trained(spec, two / f"saved-{adapter}", adapter=Full())
    found = {f"model.{name}": tensor for name, tensor in saved.state_dict().items()}
    torch.testing.assert_close({name: found[name] for name in state}, state, rtol=0, atol=0)
