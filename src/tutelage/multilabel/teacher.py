"""The frozen teacher: where it comes from, and how a student may look at it."""

# B batch, C channels, H W picture

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from tutelage.core import launch
from tutelage.core.callbacks import BEST, CHECKPOINTS, LAST
from tutelage.core.run import train
from tutelage.core.store import Store
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import Field, NetOutput

# One teacher serves every seed of its students, as in the published comparisons.
SEED = 0

_VERSION = 2  # of what the same settings train: a change makes teachers of old stand beside new ones


class Teacher:
    """A frozen network in eval mode that is no part of any module tree.

    It is therefore in no checkpoint, no optimiser and no DDP bucket, and nobody can put it in train mode.
    """

    def __init__(self, network: Network, *, compile: bool = False) -> None:
        self.network = network.eval().requires_grad_(False)
        if compile:
            self.network.compile_backbone()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        """Return the same teacher: who averages a student's weights copies the whole module."""
        return self

    def to(self, device: torch.device) -> None:
        self.network.to(device)

    @torch.no_grad()
    def __call__(self, batch: Batch, *, reads: frozenset[Field]) -> NetOutput:
        """Show a batch. The network applies its own resolution and normalisation."""
        output: NetOutput = self.network(batch.images_BCHW, reads=reads)
        return output


def train_teacher(cfg: DictConfig, *, store: Store, fingerprint: str) -> Path:
    """Train the teacher alone on the same data, or find the one that was.

    Args:
        cfg: The student's config. Its ``model.teacher_training`` may change the recipe for the teacher.
        store: Where teachers are kept, under the hash of what makes them.
        fingerprint: Of the data.

    Returns:
        The run folder of the finished teacher.
    """
    own = teacher_config(cfg)
    inputs = teacher_key(own, fingerprint=fingerprint)

    def build(folder: Path) -> None:
        print(f"First the teacher, {own.model.student.name} (kept in {folder.with_suffix('')} for the next time)")
        train(own, folder=folder)
        (folder / CHECKPOINTS / LAST).unlink(missing_ok=True)  # optimiser state; nobody resumes a finished teacher

    if store.find("teachers", inputs) is None:
        launch.refuse_to_train_first("the teacher")
    return store.make("teachers", inputs, build)


def teacher_config(cfg: DictConfig) -> DictConfig:
    """Return the config that trains the teacher by itself."""
    own = copy.deepcopy(cfg)
    with open_dict(own):
        training = own.model.pop("teacher_training", None)
        if training is not None:
            own.merge_with(training)
        own.model.student = own.model.teacher
        own.method = {"_target_": "tutelage.multilabel.methods.supervised.Supervised"}
        own.seed = SEED
        own.logger = None
    assert isinstance(own, DictConfig)
    return own


def teacher_key(own: DictConfig, *, fingerprint: str) -> dict[str, Any]:
    """Return the inputs that a teacher's weights depend on, and nothing else."""
    plain: Mapping[str, Any] = OmegaConf.to_container(own, resolve=True)  # type: ignore[assignment]
    unimportant = {"progress_bar", "log_every_n_steps", "checkpoint_every_n_steps", "threads", "compile"}
    unimportant |= {"accelerator", "devices", "num_nodes", "strategy"}  # equal to rounding, which the tests hold
    loading = {key: plain["data"][key] for key in ("resolution", "batch_size")}
    return {
        "version": _VERSION,
        "network": plain["model"]["student"],
        **{key: plain[key] for key in ("head", "loss", "optim", "augment", "seed")},
        "trainer": {key: value for key, value in plain["trainer"].items() if key not in unimportant},
        "data": {"fingerprint": fingerprint, **loading},
    }


def best_weights(folder: Path) -> dict[str, Tensor]:
    """Read the student's weights of a finished run."""
    content = torch.load(folder / CHECKPOINTS / BEST, map_location="cpu", weights_only=True)["state_dict"]
    return {name.removeprefix("student."): value for name, value in content.items() if name.startswith("student.")}
