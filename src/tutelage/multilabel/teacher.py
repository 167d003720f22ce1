"""The frozen teacher: where it comes from, and how a student may look at it."""

# B batch, C channels, H W picture

import copy
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from tutelage.core import launch
from tutelage.core.build import build
from tutelage.core.callbacks import BEST, CHECKPOINTS, LAST
from tutelage.core.errors import ConfigError, UserError
from tutelage.core.run import train
from tutelage.core.store import Store, file_hash
from tutelage.multilabel.data.datamodule import MultilabelDataModule
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.metrics import MultilabelScores, class_scores
from tutelage.multilabel.networks.ensemble import Ensemble
from tutelage.multilabel.networks.network import Network, NetworkSpec
from tutelage.multilabel.networks.output import Field, NetOutput

Combine = Literal["average", "by_ap", "terms"]

# One teacher serves every seed of its students, as in the published comparisons.
SEED = 0

_VERSION = 3  # of what the same settings train: a change makes teachers of old stand beside new ones


class Teacher:
    """A frozen network in eval mode that is no part of any module tree.

    It is therefore in no checkpoint, no optimiser and no DDP bucket, and nobody can put it in train mode.
    """

    def __init__(self, network: Network | Ensemble, *, compile: bool = False) -> None:
        self.network = network.eval().requires_grad_(False)
        if compile:
            for each in self.networks:
                each.compile_backbone()

    @property
    def networks(self) -> list[Network]:
        """The network, or those of the ensemble."""
        if isinstance(self.network, Network):
            return [self.network]
        return [network for network in self.network.networks if isinstance(network, Network)]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherTrainer:
    """How long a teacher is trained: ``trainer``'s keys of the same names. The machine's keys are the student's."""

    max_epochs: int
    max_steps: int
    accumulate_grad_batches: int
    gradient_clip_val: float | None
    val_check_interval: float
    check_val_every_n_epoch: int
    ema_decay: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """``teacher``: how a teacher without a checkpoint is trained. Nothing that is set for the student changes it.

    Attributes:
        head: Of the teacher, also where it has a checkpoint.
        loss: On the labels.
        optim: Likewise.
        augment: Likewise.
        batch_size: Images of one step over all processes.
        trainer: How long.
    """

    head: dict[str, Any]
    loss: dict[str, Any]
    optim: dict[str, Any]
    augment: dict[str, Any]
    batch_size: int
    trainer: TeacherTrainer


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSpec:
    """One teacher.

    Attributes:
        name: ``teacher``, or its name under ``teachers.members``.
        where: The place of its network in the config.
        network: What it is.
        config: The config of the run that trains it.
    """

    name: str
    where: str
    network: NetworkSpec
    config: DictConfig

    @property
    def is_trained(self) -> bool:
        """Whether it has to be trained, or found in the store."""
        return self.network.checkpoint is None and not self.network.features_only


def teacher_specs(cfg: DictConfig) -> list[TeacherSpec]:
    """Read the teachers off a run's config: ``model.teacher``, or each of ``teachers.members``.

    A member names what differs from ``model.teacher`` (under ``network``) and from the recipe ``teacher``.
    """
    members = cfg.teachers.members if cfg.teachers is not None else {}
    if not members:
        return [_teacher_spec(cfg, "teacher", "model.teacher", cfg.model.teacher, cfg.teacher)]
    specs = []
    for key, member in members.items():
        where = f"teachers.members.{key}"
        if not re.fullmatch(r"\w+", str(key)) or key in ("student", "teacher"):
            raise ConfigError(where, f"{key!r} cannot name a teacher", "give another word, such as wide or second")
        own = {} if member is None else OmegaConf.to_container(member, resolve=True)
        assert isinstance(own, dict)
        network = own.pop("network", {})
        try:
            specs.append(
                _teacher_spec(
                    cfg,
                    str(key),
                    f"{where}.network",
                    _merged(cfg.model.teacher, network),
                    _merged(cfg.teacher, own),
                )
            )
        except OmegaConfBaseException as error:
            raise ConfigError(
                where,
                str(error).splitlines()[0],
                "give keys of model.teacher under network, and keys of teacher beside it",
            ) from None
    return specs


def combination(cfg: DictConfig) -> Combine:
    """Return what becomes of several teachers' outputs: ``average``, ``by_ap`` or ``terms``.

    Raises:
        ConfigError: Something else.
    """
    found = "average" if cfg.teachers is None else cfg.teachers.combine
    for known in get_args(Combine):
        if found == known:
            return cast(Combine, found)
    raise ConfigError("teachers.combine", f"{found!r} is no combination", f"give {', '.join(get_args(Combine))}")


def _merged(base: DictConfig, own: Mapping[Any, Any]) -> DictConfig:
    merged = copy.deepcopy(base)
    for key, value in own.items():
        if isinstance(value, dict) and "_target_" in value:  # another head, another optimiser: not a mixture
            OmegaConf.update(merged, str(key), value, merge=False)
        else:
            OmegaConf.update(merged, str(key), value, merge=True)
    return merged


def _teacher_spec(cfg: DictConfig, name: str, where: str, network: DictConfig, recipe: DictConfig) -> TeacherSpec:
    spec: NetworkSpec = build(network, where=where)
    return TeacherSpec(name=name, where=where, network=spec, config=teacher_config(cfg, network, recipe))


def train_teacher(spec: TeacherSpec, *, store: Store, fingerprint: str) -> Path:
    """Train a teacher alone on the same data, or find the one that was.

    Args:
        spec: The teacher.
        store: Where teachers are kept, under the hash of what makes them.
        fingerprint: Of the data.

    Returns:
        The run folder of the finished teacher.
    """

    def build_folder(folder: Path) -> None:
        print(f"First the teacher, {spec.network.name} (kept in {folder.with_suffix('')} for the next time)")
        with own_settings(spec):
            train(spec.config, folder=folder)
        (folder / CHECKPOINTS / LAST).unlink(missing_ok=True)  # optimiser state; nobody resumes a finished teacher

    inputs = teacher_key(spec, fingerprint=fingerprint)
    if store.find("teachers", inputs) is None:
        launch.refuse_to_train_first("the teacher")
    return store.make("teachers", inputs, build_folder)


@contextmanager
def own_settings(spec: TeacherSpec) -> Iterator[None]:
    """Name, in errors of what trains a teacher, the keys that set it: ``teacher.batch_size`` for ``data.batch_size``.

    Raises:
        UserError: What was raised within, renamed.
    """
    recipe = "teacher" if spec.where == "model.teacher" else spec.where.removesuffix(".network")
    lengths = "|".join(entry.name for entry in fields(TeacherTrainer))
    renamed = [
        (r"data\.(batch_size)", rf"{recipe}.\1"),
        (rf"trainer\.({lengths})\b", rf"{recipe}.trainer.\1"),
        (r"(head|loss|optim|augment)(?=\.\w)", rf"{recipe}.\1"),
        (r"model\.student(?=[.\s]|$)", spec.where),
        (r"python train\.py run=\S+", "the command that you gave"),
    ]

    def rename(text: str) -> str:
        for key, other in renamed:
            text = re.sub(rf"(?<![\w./]){key}", other, text)
        return text

    try:
        yield
    except UserError as error:
        where = f"{recipe}.{error.where}" if error.where in ("head", "loss", "optim", "augment") else error.where
        raise type(error)(rename(where), rename(error.what), rename(error.hint)) from None


def teacher_config(cfg: DictConfig, network: DictConfig, recipe: DictConfig) -> DictConfig:
    """Return the config that trains a teacher by itself: the student's machine and data, the teacher's recipe."""
    own = copy.deepcopy(cfg)
    with open_dict(own):
        own.model.student = network
        own.model.teacher = network
        for key in ("head", "loss", "optim", "augment"):
            own[key] = recipe[key]
        own.teachers = None
        own.data.batch_size = recipe.batch_size
        own.data.views, own.data.crops_per_decode = None, 1  # the student's schedule
        own.trainer.update(recipe.trainer)
        own.method = {"_target_": "tutelage.multilabel.methods.supervised.Supervised"}
        own.seed = SEED
        own.logger = None
    assert isinstance(own, DictConfig)
    return own


def teacher_key(spec: TeacherSpec, *, fingerprint: str) -> dict[str, Any]:
    """Return what made a teacher's weights, and nothing else: the hash of this names it in the store.

    Left out: what only changes how maps are shown or how fast it goes, and the machine. On several processes the
    weights are the same to rounding, with batch norm nearly so (docs/sweeps_and_gpus.md).
    """
    plain: Mapping[str, Any] = OmegaConf.to_container(spec.config, resolve=True)  # type: ignore[assignment]
    network = spec.network
    trainer_keys = [entry.name for entry in fields(TeacherTrainer)]
    weights = Path(network.weights)  # imagenet and none are no files
    return {
        "version": _VERSION,
        "network": {
            "name": network.name,
            "weights": file_hash(weights) if weights.is_file() else network.weights,
            "resolution": network.resolution,
            "output_stride": network.output_stride,
            "drop_path": network.drop_path,
            "frozen": network.frozen,
        },
        **{key: plain[key] for key in ("head", "loss", "optim", "augment", "seed")},
        "trainer": {key: plain["trainer"][key] for key in trainer_keys},
        "batch_size": plain["data"]["batch_size"],
        "data": {"fingerprint": fingerprint, "resolution": plain["data"]["resolution"]},
    }


def network_settings(spec: TeacherSpec) -> dict[str, Any]:
    """Return what a teacher's answers depend on beside its weights, as JSON values."""
    network = spec.network
    return {
        "name": network.name,
        "resolution": network.resolution,
        "output_stride": network.output_stride,
        "cams": network.cams,
        "features_only": network.features_only,
        "head": OmegaConf.to_container(spec.config.head, resolve=True),
    }


@torch.no_grad()
def selection_ap(network: Network, datamodule: MultilabelDataModule, *, device: torch.device) -> list[float]:
    """Return a network's average precision of each label on the selection split; 0 where a label is in no image."""
    found = MultilabelScores(num_labels=network.num_labels)
    network.eval().to(device)
    for batch in datamodule.val_dataloader():
        ready = datamodule.on_before_batch_transfer(batch, 0)
        found.update(network(ready.images_BCHW.to(device)).logits_BK.cpu(), ready.target_BK.cpu(), ready.index_B.cpu())
    network.cpu()
    prediction = found.prediction()
    names = [str(label) for label in range(network.num_labels)]
    ap_K = class_scores(prediction.logits_NK, prediction.targets_NK, label_names=names).ap_K
    return [0.0 if math.isnan(ap) else float(ap) for ap in ap_K]


def best_weights(folder: Path) -> dict[str, Tensor]:
    """Read the student's weights of a finished run."""
    content = torch.load(folder / CHECKPOINTS / BEST, map_location="cpu", weights_only=True)["state_dict"]
    return {name.removeprefix("student."): value for name, value in content.items() if name.startswith("student.")}
