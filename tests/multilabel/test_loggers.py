"""What Weights & Biases and TensorBoard are told of a run, read back from the files that they write."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from tutelage.core.errors import ConfigError, RunError
from tutelage.core.results import read_metrics
from tutelage.core.run import train

Compose = Callable[..., DictConfig]
SMALL = [
    "data.num_train=24", "data.num_val=12", "data.num_test=12", "data.batch_size=8", "trainer.max_epochs=1",
    "trainer=cpu", "trainer.progress_bar=false", "trainer.log_every_n_steps=1", "trainer.threads=1",
    "method=supervised",
]  # fmt: skip
PICTURES = {"average_precision", "maps", "training_pictures", "most_wrong"}


def records(page: Path) -> Iterator[Any]:
    """Read a W&B page that was kept offline: records in blocks of 32 KiB, as LevelDB's logs, after 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, place, record = page.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record = (b"" if kind in (1, 2) else record) + data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            found = wandb_internal_pb2.Record()
            found.ParseFromString(record)
            yield found


def content(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_weights_and_biases_gets_a_page_a_run(
    compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    settings = [*SMALL, "logger=wandb", "logger.offline=true"]
    good, bad = tmp_path / "sweep" / "0", tmp_path / "sweep" / "1"
    train(compose_config(*settings, "optim.lr=0.002"), folder=good)
    with pytest.raises(RunError, match="not finite"):
        train(compose_config(*settings, "optim.lr=1e30", "optim.warmup=0"), folder=bad)
    train(compose_config(*settings, "optim.lr=0.002"), folder=good)  # a finished run has nothing to say

    metrics = read_metrics(good)
    assert metrics is not None
    ids = []
    for folder, lr, status in ((good, 0.002, 0), (bad, 1e30, 1)):
        (page,) = (folder / "wandb").glob("offline-run-*/*.wandb")
        told = list(records(page))
        (run,) = (record.run for record in told if record.HasField("run"))
        assert (run.project, run.run_group, run.display_name) == ("tutelage", "sweep", f"sweep/{folder.name}")
        config = content(run.config.update)
        for record in told:
            config |= content(record.config.update)
        assert config["optim.lr"] == lr and config["trainer.max_epochs"] == 1 and config["data.batch_size"] == 8
        assert [record.exit.exit_code for record in told if record.HasField("exit")] == [status]
        ids.append(run.run_id)
        if folder == good:
            history = [content(record.history.item) for record in told if record.HasField("history")]
            losses = [row["train/loss"] for row in history if "train/loss" in row]
            assert len(losses) == 3 and all(loss > 0 for loss in losses)
            last: dict[str, Any] = {}
            for row in history:
                last |= row
            numbers = {name: value for name, value in metrics.items() if not isinstance(value, str)}
            assert {name: last[name] for name in numbers} == pytest.approx(numbers)
            (table,) = page.parent.glob("files/media/table/results_*.table.json")
            rows = json.loads(table.read_text())["data"]
            assert ["CF1", f"{metrics['test/CF1']:.2f}"] in rows
            images = list(page.parent.glob("files/media/images/*.png"))
            assert {image.name.rsplit("_", 2)[0] for image in images} == PICTURES
            assert all(np.asarray(Image.open(image)).std() > 1 for image in images)
    assert len(set(ids)) == 2


def test_a_page_that_nobody_may_open_is_refused_before_training(
    compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def login() -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "login", login)
    with pytest.raises(ConfigError, match=r"logger: W&B: No API key configured. Type wandb login, .*offline=true"):
        train(compose_config(*SMALL, "method=cam_kd", "teacher.batch_size=8", "logger=wandb"), folder=tmp_path / "run")
    assert not (tmp_path / "store").exists()


def test_tensorboard_gets_settings_numbers_the_closing_table_and_pictures(
    compose_config: Compose, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    metrics = train(compose_config(*SMALL, "logger=tensorboard"), folder=folder)
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1, 2]
    for name, value in metrics.items():
        if not isinstance(value, str):
            (event,) = events.Scalars(name)
            assert event.value == pytest.approx(float(value)) and event.step == 3
    (table,) = events.Tensors("results/text_summary")
    assert f"| CF1 | {metrics['test/CF1']:.2f} |" in table.tensor_proto.string_val[0].decode()
    (settings,) = events.Tensors("config/text_summary")
    assert "num_train: 24" in settings.tensor_proto.string_val[0].decode()
    names = events.Tags()["images"]
    assert {name.split("/")[0] for name in names} == PICTURES
    encoded = events.Images(names[0])[0].encoded_image_string
    assert encoded.startswith(b"\x89PNG")
    parameters = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"data.num_train" in parameters
