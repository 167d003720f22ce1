"""Run folders from elsewhere or of another version: they run no code of their own, and errors say what changed."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from tutelage.core import launch
from tutelage.core.errors import ConfigError, RunError
from tutelage.core.run_folder import CONFIG, check_checkpoint, load_config, save_config
from tutelage.core.store import Store

Compose = Callable[..., DictConfig]


def folder_with(cfg: DictConfig, folder: Path, **values: object) -> Path:
    save_config(cfg, folder)
    saved = OmegaConf.load(folder / CONFIG)
    for key, value in values.items():
        OmegaConf.update(saved, key.replace("__", "."), value, force_add=True)
    OmegaConf.save(saved, folder / CONFIG)
    return folder


@pytest.mark.parametrize("choices", [["trainer=gpus"], ["task=text2sql"], ["logger=wandb"]])
def test_our_own_runs_load(choices: list[str], compose_config: Compose, tmp_path: Path) -> None:
    cfg = compose_config(*choices)
    save_config(cfg, tmp_path)
    loaded = load_config(tmp_path)
    assert OmegaConf.to_container(loaded) == OmegaConf.to_container(cfg, resolve=True)
    assert not list((tmp_path / ".hydra").glob("*.tmp"))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("os.system", r"code of another package, loss._target_=os.system.* add trust=os"),
        ("my_package.Loss", r"if you know this run and trust my_package, add trust=my_package"),
        ("tutelage.core.store.write_atomically", "which is not a class of this project"),
        ("tutelage.core.launch.subprocess.Popen", "which is not a class of this project"),
        ("tutelage.text2sql.own.Own", r"another version: loss._target_=.* is now tutelage.text2sql.data.own.Own"),
        ("tutelage.multilabel.losses.Gone", r"is gone. Use the version that made it"),
    ],
)
def test_foreign_code_is_refused(target: str, says: str, compose_config: Compose, tmp_path: Path) -> None:
    folder = folder_with(compose_config(), tmp_path)
    saved = OmegaConf.load(folder / CONFIG)
    saved.loss._target_ = target
    OmegaConf.save(saved, folder / CONFIG)
    with pytest.raises(ConfigError, match=f"(?i){says}"):
        load_config(folder)
    if target.startswith("my_package"):
        assert load_config(folder, trusted=("my_package",)).loss._target_ == target


def test_keys_of_another_version_are_named(compose_config: Compose, tmp_path: Path) -> None:
    folder = folder_with(compose_config(), tmp_path, swa=1, trainer__averages=2)
    (folder / "manifest.json").write_text('{"git": "abc123"}')
    says = r"does not know: swa, trainer.averages. Use the version that made it \(git abc123\), or correct "
    with pytest.raises(ConfigError, match=says):
        load_config(folder)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "loops": Code(), "optimizer_states": []}, path, pickle_module=pickle)
    with pytest.raises(RunError, match="not a whole checkpoint"):
        check_checkpoint(path, task="a task")
    assert not (tmp_path / "ran").exists()


def test_ranks_train_nothing_first_and_rank_0_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    launch.refuse_to_train_first("the teacher")
    assert launch.first()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("RANK", "1")
    assert not launch.first()
    with pytest.raises(ConfigError, match=r"store: the teacher is not trained yet.* Train it with one process"):
        launch.refuse_to_train_first("the teacher")


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(ConfigError, match=r"store: cannot write into .* Give another: store=… or TUTELAGE_STORE"):
        Store(tmp_path / "store").make("teachers", {}, lambda folder: None)
