"""The run that DB-Explore is compared with: the same model, trained on the seed questions alone."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from tutelage.core import launch
from tutelage.core.callbacks import CHECKPOINTS, LAST
from tutelage.core.run import train
from tutelage.core.store import Store

UNIMPORTANT = {
    "progress_bar", "log_every_n_steps", "checkpoint_every_n_steps", "threads",
    "accelerator", "devices", "num_nodes", "strategy",  # equal to rounding, which the tests hold
}  # fmt: skip


def train_seed_only(cfg: DictConfig, *, store: Store, fingerprint: str) -> Path:
    """Train with ``method=sft`` and all else the same, or find the run that did.

    Args:
        cfg: The config that is compared.
        store: Where the run is kept.
        fingerprint: Of the data.

    Returns:
        The finished run's folder.
    """
    own = seed_only_config(cfg)

    def build(folder: Path) -> None:
        print(f"First the model that learns from seed questions alone (kept in {folder.with_suffix('')})")
        train(own, folder=folder)
        (folder / CHECKPOINTS / LAST).unlink(missing_ok=True)

    key = inputs(own, fingerprint=fingerprint)
    if store.find("seed_only", key) is None:
        launch.refuse_to_train_first("the model that learns from seed questions alone")
    return store.make("seed_only", key, build)


def seed_only_config(cfg: DictConfig) -> DictConfig:
    """Return the config of the run that it is compared with."""
    own = copy.deepcopy(cfg)
    with open_dict(own):
        own.method = {"_target_": "tutelage.text2sql.data.methods.Sft"}
        own.report = {**own.report, "base": False}
        own.logger = None
    return own


def inputs(own: DictConfig, *, fingerprint: str) -> dict[str, Any]:
    """Return what that run's weights depend on, and nothing else."""
    plain: Mapping[str, Any] = OmegaConf.to_container(own, resolve=True)  # type: ignore[assignment]
    loading = {key: plain["data"][key] for key in ("max_length", "batch_size", "packing", "val_size")}
    return {
        **{key: plain[key] for key in ("model", "adapter", "optim", "prompt", "seed")},
        "max_new_tokens": plain["inference"]["max_new_tokens"],  # validation picks the checkpoint
        "trainer": {key: value for key, value in plain["trainer"].items() if key not in UNIMPORTANT},
        "data": {"fingerprint": fingerprint, **loading},
    }
