"""Fine-tuning on a GPU: 4-bit weights, spread weights, vLLM after training, packed attention."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from tutelage.core.curves import read_curves
from tutelage.core.run import train
from tutelage.core.store import Store
from tutelage.text2sql.model.tiny import Tiny

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "task=text2sql", "trainer.max_steps=3", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1",
    "trainer.progress_bar=false", "data.val_size=2", "data.test_size=4", "inference.max_new_tokens=8",
    "explore.walks=16",
]  # fmt: skip
Compose = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def folder_of_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in a folder as the hub's."""
    texts = ["How many flights left JFK late?", "SELECT count(*) FROM flights WHERE origin = 'JFK'"] * 3
    return Tiny(vocabulary=512, hidden_size=128, layers=2, heads=2, context=2048).folder(
        Store(tmp_path_factory.mktemp("store")), texts=texts, seed=1
    )


def pretrained(folder: Path) -> list[str]:
    return ["model=smollm2_135m", f"model.path={folder}", "data.max_length=1024", "data.batch_size=2"]


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_a_whole_run(adapter: str, folder_of_tiny: Path, compose_config: Compose, tmp_path: Path) -> None:
    metrics = train(compose_config(*SMALL, *pretrained(folder_of_tiny), f"adapter={adapter}"), folder=tmp_path / "run")
    assert metrics["test/ex"] >= 0


def test_four_bit_weights(folder_of_tiny: Path, compose_config: Compose, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (the qlora extra)")
    metrics = train(compose_config(*SMALL, *pretrained(folder_of_tiny), "adapter=qlora"), folder=tmp_path / "run")
    assert metrics["test/ex"] >= 0


def test_vllm_answers_after_training(folder_of_tiny: Path, compose_config: Compose, tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed (the vllm extra)")
    overrides = [*SMALL, *pretrained(folder_of_tiny), "adapter=lora", "inference=vllm"]
    metrics = train(compose_config(*overrides), folder=tmp_path / "run")
    assert metrics["test/ex"] >= 0


def test_spread_weights_are_tested_at_the_end(folder_of_tiny: Path, tmp_path: Path) -> None:
    """FSDP2 on one device: sharding, the checkpoint as one file, and the final test on the spread model."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "train.py"]
    overrides = [
        "trainer=fsdp",
        "trainer.devices=1",
        "adapter=lora",
        f"run={tmp_path / 'run'}",
        f"store={tmp_path}/store",
    ]
    done = subprocess.run(
        [*command, *SMALL, *pretrained(folder_of_tiny), *overrides],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test/ex"] >= 0


def test_rows_of_several_samples_have_the_losses_of_single_ones(
    folder_of_tiny: Path, compose_config: Compose, tmp_path: Path
) -> None:
    """Whatever kernel the GPU takes for packed rows (flex_attention for shared prefixes), it sees no other sample."""
    losses = []
    for packing in ("true", "false"):
        still = ["optim.lr=1e-12", "trainer.precision=32-true", f"data.packing={packing}", "adapter=full"]
        folder = tmp_path / packing
        train(compose_config(*SMALL, *pretrained(folder_of_tiny), *still), folder=folder)
        losses.append(read_curves(folder)["val/loss"][0][1])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_weights_are_fp32_where_they_are_trained_and_matrices_multiply_in_bf16(
    adapter: str, gpu: torch.device, folder_of_tiny: Path
) -> None:
    from tutelage.text2sql.model.adapters import Full, Lora
    from tutelage.text2sql.model.language_model import Pretrained, load
    from tutelage.text2sql.training.packing import Sample, pack

    chosen = Full() if adapter == "full" else Lora(rank=8, alpha=16)
    model = load(Pretrained(str(folder_of_tiny), dtype="bfloat16"), adapter=chosen, seed=1).to(gpu)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} <= {torch.bfloat16}
    seen: list[torch.dtype] = []
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    batch = pack([Sample(list(range(3, 60)), [7, 8, 9])], answers_in_step=1)
    batch = batch._replace(
        input_ids_BT=batch.input_ids_BT.to(gpu),
        position_ids_BT=batch.position_ids_BT.to(gpu),
        target_BT=batch.target_BT.to(gpu),
    )
    before = [p.detach().clone() for p in model.parameters() if p.requires_grad and p.ndim > 1]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    for _ in range(20):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert set(seen) == {torch.bfloat16}
    after = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    moved = [float((new != old).float().mean()) for new, old in zip(after, before, strict=True)]
    assert sorted(moved)[len(moved) // 2] > 0.99
