"""The multilabel task: a student under a teacher, on one data set."""

# N images, K labels

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tutelage.core import launch, results
from tutelage.core.batches import TrainBatches
from tutelage.core.build import build, split
from tutelage.core.callbacks import BEST, CHECKPOINTS, LAST
from tutelage.core.errors import ConfigError
from tutelage.core.optim import Optim
from tutelage.core.run_folder import task_of
from tutelage.core.store import file_hash
from tutelage.core.task import Closing, Metrics, Task
from tutelage.multilabel import metrics as scoring
from tutelage.multilabel import teacher
from tutelage.multilabel.data.datamodule import LoaderConfig, MultilabelDataModule
from tutelage.multilabel.data.source import IGNORED, PRESENT, Source, SplitName
from tutelage.multilabel.evaluation import Scored, Scoring, scored
from tutelage.multilabel.methods.method import DataInfo
from tutelage.multilabel.module import Distillation, set_up
from tutelage.multilabel.networks.ensemble import Ensemble
from tutelage.multilabel.networks.network import Network, NetworkSpec, Pair, build_network
from tutelage.multilabel.replay.callback import Replay, ReplayOptions, replay_options
from tutelage.multilabel.replay.record import FOLDER
from tutelage.multilabel.results import card, comparison, report
from tutelage.multilabel.results.cost import StepCost
from tutelage.multilabel.results.exporting import best_student
from tutelage.multilabel.results.pictures import pictures
from tutelage.multilabel.results.thresholds import tune_thresholds, write_thresholds
from tutelage.multilabel.terms import TermOptions, TermSpec, build_terms, check_softmax


class MultilabelTask(Task):
    """Distillation for multi-label image classification."""

    monitor = "val/mAP"
    mode = "max"
    headline = ("test/mAP", "test/CF1", "test/OF1", "teacher/test/mAP", "time/train_s")
    totals: ClassVar[Mapping[str, str]] = {
        "time/teacher_saved_s": "replaying recorded answers saved {total:.1f} s of the teachers' time"
    }
    shared: ClassVar[Mapping[str, Callable[..., Any]]] = {
        "data": LoaderConfig,
        "teacher": ReplayOptions,
        "method": TermOptions,
        "method.*": TermOptions,
    }
    rescoring = frozenset({"data", "scoring"})

    def __init__(self, *, cfg: DictConfig, folder: Path, out: Path) -> None:
        super().__init__(cfg=cfg, folder=folder, out=out)
        self.loading, source_node = split(cfg.data, LoaderConfig, where="data")
        self.source: Source = build(source_node, where="data")
        self.pair: Pair = build(cfg.model, where="model")
        self.scoring: Scoring = Scoring() if cfg.scoring is None else build(cfg.scoring, where="scoring")
        self._selection_aps: dict[str, list[float]] = {}  # under combine=by_ap; known after prepare
        self.replay: Replay | None = None  # while it trains
        self.teacher_folders: dict[str, Path] = {}  # of teachers that were trained here; known after prepare
        self.step_cost = StepCost()

    def check(self) -> None:
        replay_options(self.cfg)
        for term in self.terms.values():
            check_softmax(term)
            if term.method.replaces_head and self.cfg.teachers is not None and self.cfg.teachers.members:
                # An export builds the same head again, from model.teacher alone.
                raise ConfigError(
                    "teachers.members",
                    f"{type(term.method).__name__} gives the student the head of one teacher, which is model.teacher",
                    "leave teachers.members out and set model.teacher, or choose another method",
                )
        if len(self.source.label_names) < 2:
            raise ConfigError(
                "data",
                f"{len(self.source.label_names)} label(s) in {self.source.label_names}",
                "give data with two labels or more",
            )
        if len(self.source.split("val").ids) == 0:
            raise ConfigError("data", "no validation samples to select a checkpoint by", "give the val split some")
        self._check_batches()
        if self.pair.student.checkpoint is not None and not self._begun:
            check_task(Path(self.pair.student.checkpoint), where="model.student")
        if self.needs_teacher:
            for spec in self.teacher_specs:
                if spec.network.checkpoint is not None:
                    check_task(Path(spec.network.checkpoint), where=spec.where)
                    check_labels(Path(spec.network.checkpoint), self.source.label_names, where=spec.where)

    def _check_batches(self) -> None:
        """Refuse batches that the training data cannot fill; a teacher's are found before it trains, too."""
        samples = len(self.source.split("train").ids)
        processes = self.cfg.trainer.devices * self.cfg.trainer.num_nodes
        TrainBatches(samples, batch_size=self.loading.batch_size, seed=0, world_size=processes)
        for spec in self.teacher_specs if self.needs_teacher else []:
            if spec.is_trained:
                with teacher.own_settings(spec):
                    TrainBatches(samples, batch_size=spec.config.data.batch_size, seed=0, world_size=processes)

    def check_scoring(self) -> None:
        path = self.folder / results.MANIFEST
        labels = tuple(results.read_json(path).get("labels", ())) if path.is_file() else self.source.label_names
        if labels != self.source.label_names:
            raise ConfigError(
                "data",
                f"the run was trained on {len(labels)} labels, this data has {len(self.source.label_names)} "
                f"{differing_labels(labels, self.source.label_names)}",
                "give data with the run's labels, in their order",
            )
        if len(self.source.split(self.scoring.split).ids) == 0:
            raise ConfigError("scoring.split", f"{self.scoring.split} has no pictures", "choose another split")

    @cached_property
    def terms(self) -> dict[str, TermSpec]:
        """The terms of the loss beside the task's, by name."""
        several = self.combine == "terms"
        return build_terms(
            self.cfg.method, teachers=[spec.name for spec in self.teacher_specs] if several else ["teacher"]
        )

    @cached_property
    def teacher_specs(self) -> list[teacher.TeacherSpec]:
        """The teachers; none of them is touched where no method reads one."""
        return teacher.teacher_specs(self.cfg)

    @property
    def combine(self) -> teacher.Combine:
        """What becomes of several teachers."""
        return teacher.combination(self.cfg)

    @property
    def needs_teacher(self) -> bool:
        return any(term.method.teacher_reads for term in self.terms.values())

    def prepare(self) -> None:
        if not self.needs_teacher:
            return
        fingerprint = self.source.fingerprint
        keys = [teacher.teacher_key(spec, fingerprint=fingerprint) for spec in self.teacher_specs if spec.is_trained]
        if any(self.store.find("teachers", key) is None for key in keys):
            self._rehearse()
        for spec in self.teacher_specs:
            if spec.is_trained:
                folder = teacher.train_teacher(spec, store=self.store, fingerprint=fingerprint)
                self.teacher_folders[spec.name] = folder
                if launch.first():
                    score = (results.read_metrics(folder) or {}).get("val/best", float("nan"))
                    print(f"{spec.name}, {spec.network.name}: {float(score):.2f} mAP on its selection split")
        if self.combine == "by_ap":
            for spec in self.teacher_specs:
                self._selection_ap(spec)

    def _rehearse(self) -> None:
        """Set the methods up on the networks, so that what does not fit is refused before a teacher trains.

        Raises:
            ConfigError: Weights cannot be had or do not fit, or a network lacks what a method reads.
        """
        student = self._student()
        networks = {
            # What is trained here needs no weights; those of a checkpoint are read now, in case that they do not fit.
            spec.name: self._build(replace(spec.network, weights="none"), spec.config.head, where=spec.where)
            for spec in self.teacher_specs
        }
        data = data_info(self.source, batch_size=self.loading.batch_size)
        for term in copy.deepcopy(self.terms).values():
            if term.method.teacher_reads:
                student = set_up(term, student, self._as_teachers(networks)[term.teacher], data)

    def prepare_scoring(self) -> None:
        """Nothing: the student and the data are all."""

    def datamodule(self) -> MultilabelDataModule:
        return self._datamodule(self.scoring.split)

    def _datamodule(self, scored_split: SplitName) -> MultilabelDataModule:
        augment = build(self.cfg.augment, where="augment")
        return MultilabelDataModule(
            self.source,
            augment=augment,
            loading=self._loading(),
            seed=self.cfg.seed,
            test_split=scored_split,
        )

    def _loading(self) -> LoaderConfig:
        """Load at the highest resolution that a network asks for: what is enlarged has no more detail than before."""
        specs = [self.pair.student, *([spec.network for spec in self.teacher_specs] if self.needs_teacher else [])]
        own = [spec.resolution for spec in specs if spec.resolution is not None]
        loading: LoaderConfig = replace(self.loading, resolution=max([self.loading.resolution, *own]))
        return loading

    def module(self, datamodule: LightningDataModule) -> Distillation:
        student = self._student()
        if self.pair.student.checkpoint is None:
            student.init_head_bias(label_shares(self.source.split("train").targets_NK))
        module = Distillation(
            student,
            task_loss=build(self.cfg.loss, where="loss"),
            terms=self.terms,
            teachers=self._as_teachers(self.teacher_networks, compile=self.cfg.trainer.compile),
            data=data_info(self.source, batch_size=self.loading.batch_size),
            optim=_optim(self.cfg.optim),
            compile=self.cfg.trainer.compile,
        )
        if self.cfg.trainer.devices * self.cfg.trainer.num_nodes > 1:
            module.student.freeze_unused(reads=module.student_reads)
        return module

    def scoring_module(self, datamodule: LightningDataModule, *, checkpoint: Path) -> Distillation:
        """Return the student alone; its teacher, and the weights that it started from, may be gone."""
        student = best_student(self.cfg, label_names=self.source.label_names, checkpoint=checkpoint)
        return Distillation(
            student,
            task_loss=build(self.cfg.loss, where="loss"),
            terms={},
            teachers={},
            data=data_info(self.source, batch_size=self.loading.batch_size),
            optim=_optim(self.cfg.optim),
        )

    @cached_property
    def teacher_networks(self) -> dict[str, Network]:
        """The teachers' networks with their weights, by name; empty where no method reads one."""
        networks = {}
        for spec in self.teacher_specs if self.needs_teacher else []:
            folder = self.teacher_folders.get(spec.name)
            # A checkpoint follows: no hub need be asked.
            network_spec = spec.network if folder is None else replace(spec.network, weights="none")
            networks[spec.name] = self._build(network_spec, spec.config.head, where=spec.where)
            if folder is not None:
                networks[spec.name].load_state_dict(teacher.best_weights(folder))
        return networks

    def _as_teachers(self, networks: Mapping[str, Network], *, compile: bool = False) -> dict[str, teacher.Teacher]:
        if len(networks) > 1 and self.combine != "terms":
            ap_TK = torch.ones(len(networks), len(self.source.label_names))
            if self.combine == "by_ap" and self._selection_aps:
                # Never 0 for all teachers, of a label that the selection split lacks.
                ap_TK = torch.tensor([self._selection_aps[name] for name in networks]) + 1e-6
            return {"teacher": teacher.Teacher(Ensemble(list(networks.values()), ap_TK), compile=compile)}
        if len(networks) == 1 and self.combine != "terms":
            return {"teacher": teacher.Teacher(next(iter(networks.values())), compile=compile)}
        return {name: teacher.Teacher(network, compile=compile) for name, network in networks.items()}

    def _selection_ap(self, spec: teacher.TeacherSpec) -> None:
        """Find a teacher's average precision of each label on the selection split, or compute it once."""
        if spec.network.checkpoint is not None:
            made_by: dict[str, Any] = {"checkpoint": file_hash(Path(spec.network.checkpoint))}
        else:
            made_by = teacher.teacher_key(spec, fingerprint=self.source.fingerprint)
        inputs = {"teacher": made_by, "data": self.source.fingerprint, "resolution": self.loading.resolution}

        def compute(folder: Path) -> None:
            on_gpu = torch.cuda.is_available() and self.cfg.trainer.accelerator != "cpu"
            device = torch.device("cuda" if on_gpu else "cpu")
            ap_K = teacher.selection_ap(self.teacher_networks[spec.name], self.datamodule(), device=device)
            results.write_json(folder / "ap.json", {"ap": ap_K})

        folder = self.store.make("teacher_ap", inputs, compute)
        self._selection_aps[spec.name] = results.read_json(folder / "ap.json")["ap"]

    def callbacks(self) -> list[Callback]:
        options = replay_options(self.cfg)
        if not self.needs_teacher or options.replay == "off":
            return [self.step_cost]
        settings = {spec.name: teacher.network_settings(spec) for spec in self.teacher_specs}
        self.replay = Replay(options, root=self.store.root / FOLDER, settings=settings)
        return [self.step_cost, self.replay]

    def evaluate(self, trainer: Trainer, module: LightningModule, datamodule: LightningDataModule) -> Metrics:
        assert isinstance(module, Distillation) and isinstance(datamodule, MultilabelDataModule)
        split, threshold = self.scoring.split, self.scoring.threshold
        student = scored(trainer, module.student, datamodule, threshold=threshold)
        # A finished run is scored without a teacher. Several are scored as the mean that taught, or each for itself.
        teachers = {
            name: each.network
            for name, each in module.teachers.items()
            if not any(network.spec.features_only for network in each.networks)
        }
        teacher_scores = {
            name: scored(trainer, network, datamodule, threshold=threshold) for name, network in teachers.items()
        }
        selection = None
        if self.out == self.folder:  # its own scores, and not those of other data or settings
            selection = scored(trainer, module.student, self._datamodule("val"), threshold=threshold).prediction
        if trainer.is_global_zero:
            self._write(student)
            if selection is not None:
                thresholds_K = tune_thresholds(selection.logits_NK, selection.targets_NK)
                write_thresholds(self.folder, labels=self.source.label_names, thresholds_K=thresholds_K)
            networks: dict[str, Network | Ensemble] = {"student": module.student, **teachers}
            report.keep_classes(
                self.out, label_names=self.source.label_names, scored={"student": student, **teacher_scores}
            )
            report.keep_maps(self.out, networks=networks, datamodule=datamodule)
            report.keep_examples(self.out, prediction=student.prediction, datamodule=datamodule)
        teacher_logits_NK = [scores.prediction.logits_NK for scores in teacher_scores.values()]
        single_teacher_NK = teacher_logits_NK[0] if len(teacher_logits_NK) == 1 else None
        found: Metrics = {f"{split}/{name}": value for name, value in student.metrics.items()}
        found |= self._card(student, prefix=split, teacher_NK=single_teacher_NK)
        found |= self.step_cost.metrics()
        found |= {"student/parameters": sum(p.numel() for p in module.student.parameters())}
        for name, network in teachers.items():
            prefix = "teacher" if name == "teacher" else f"teacher/{name}"
            found |= {f"{prefix}/{split}/{key}": value for key, value in teacher_scores[name].metrics.items()}
            found |= self._card(teacher_scores[name], prefix=f"{prefix}/{split}")
            found |= {f"{prefix}/parameters": sum(p.numel() for p in network.parameters())}
        if self.replay is not None:
            found["time/teacher_saved_s"] = round(self.replay.saved_s, 3)
        if self.teacher_folders:
            own = {name: results.read_metrics(folder) for name, folder in self.teacher_folders.items()}
            seconds = {name: float(read["time/train_s"]) for name, read in own.items() if read is not None}
            found |= {f"teacher/{name}/time/train_s": value for name, value in seconds.items() if len(seconds) > 1}
            found["teacher/time/train_s"] = sum(seconds.values())
        return found

    def describe(self) -> dict[str, Any]:
        return {
            "data": {"fingerprint": self.source.fingerprint, **dict(self.source.notes)},
            "labels": list(self.source.label_names),
            "protocols": {**scoring.PROTOCOLS, **card.PROTOCOLS},
        }

    @classmethod
    def compare(cls, folder: Path, other: Path) -> None:
        comparison.compare(folder, other)

    def report(self, metrics: Metrics) -> None:
        report.write(self.out, cfg=self.cfg, metrics=metrics, source=self.source)
        report.print_closing_table(self.out, cfg=self.cfg, metrics=metrics, source=self.source)

    def closing(self, metrics: Metrics) -> Closing:
        drawn = pictures(self.out, label_names=self.source.label_names)
        return Closing({"results": report.summary(self.cfg, metrics)}, drawn)

    @property
    def _begun(self) -> bool:
        """Whether the run has a checkpoint of its own: what it started from may be gone, and no hub need be asked."""
        checkpoints = self.folder / CHECKPOINTS
        return (checkpoints / LAST).exists() or (checkpoints / BEST).exists()

    def _student(self) -> Network:
        spec = self.pair.student
        if self._begun:
            spec = replace(spec, weights="none", checkpoint=None)
        return self._build(spec, self.cfg.head, where="model.student")

    def _build(self, spec: NetworkSpec, head_node: DictConfig, *, where: str) -> Network:
        head = OmegaConf.to_container(head_node, resolve=True)
        assert isinstance(head, dict)
        return build_network(
            spec,
            num_labels=len(self.source.label_names),
            head={str(key): value for key, value in head.items()},
            resolution=self.loading.resolution,
            where=where,
        )

    def _card(self, scores: Scored, *, prefix: str, teacher_NK: scoring.Floats | None = None) -> Metrics:
        split = self.source.split(self.scoring.split)
        found = card.card(
            scores.prediction.logits_NK,
            scores.prediction.targets_NK,
            train_positives_K=(self.source.split("train").targets_NK == PRESENT).sum(axis=0),
            boxes=[split.boxes(int(index)) for index in scores.prediction.index_N],
            teacher_NK=teacher_NK,
        )
        return {f"{prefix}/{name}": value for name, value in found.items()}

    def _write(self, student: Scored) -> None:
        """Write predictions.npz and items.csv (a row an image)."""
        split_ids = np.array(self.source.split(self.scoring.split).ids)[student.prediction.index_N]
        names = np.array(self.source.label_names)
        np.savez_compressed(
            self.out / comparison.PREDICTIONS,
            ids=split_ids,
            logits=student.prediction.logits_NK,
            targets=student.prediction.targets_NK,
            labels=names,
        )
        predicted_NK = scoring.predicted_labels(student.prediction.logits_NK, threshold=self.scoring.threshold)
        items = []
        for identity, target_K, predicted_K in zip(split_ids, student.prediction.targets_NK, predicted_NK, strict=True):
            sets = (target_K == 1, predicted_K, (target_K == 1) & ~predicted_K, (target_K == 0) & predicted_K)
            items.append([identity, *("|".join(names[of_set]) for of_set in sets)])
        results.write_csv(self.out / "items.csv", ["id", "labels", "predicted", "missed", "wrong"], items)


def _optim(node: DictConfig) -> Optim:
    optim: Optim = build(node, where="optim")
    return optim


def data_info(source: Source, *, batch_size: int) -> DataInfo:
    """Sum up the training data for methods."""
    present_NK = source.split("train").targets_NK == PRESENT
    return DataInfo(
        num_samples=len(present_NK),
        label_names=source.label_names,
        positives_K=torch.from_numpy(present_NK.sum(axis=0)),
        max_positives=int(present_NK.sum(axis=1).max(initial=0)),
        batch_size=batch_size,
    )


def label_shares(targets_NK: NDArray[np.int8]) -> Tensor:
    """Return the share of pictures that each label is in, of those where it is known; never 0 or 1."""
    present_K, known_K = (targets_NK == PRESENT).sum(axis=0), (targets_NK != IGNORED).sum(axis=0)
    return torch.from_numpy((present_K + 0.5) / (known_K + 1))


def differing_labels(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """Say which labels a trained network and the data do not share."""
    only_theirs, only_ours = set(theirs) - set(ours), set(ours) - set(theirs)
    if not only_theirs | only_ours:
        return "(the same, in another order)"
    return f"(only the network's: {sorted(only_theirs)[:5]}; only the data's: {sorted(only_ours)[:5]})"


def check_task(checkpoint: Path, *, where: str) -> None:
    """Refuse a checkpoint of a run of another task, where its run folder tells.

    Raises:
        ConfigError: It is one.
    """
    target = task_of(checkpoint)
    if target is not None and not target.startswith("tutelage.multilabel."):
        raise ConfigError(
            f"{where}.checkpoint",
            f"{checkpoint} is a checkpoint of {target}, which trains no image classifier",
            "give one of a run of task=multilabel (<run>/checkpoints/best.ckpt), or a state dict in timm's form",
        )


def check_labels(checkpoint: Path, label_names: tuple[str, ...], *, where: str) -> None:
    """Refuse a teacher that was trained on other labels, where its run folder tells.

    Raises:
        ConfigError: The labels differ.
    """
    for folder in checkpoint.absolute().parents[:2]:
        if (folder / results.MANIFEST).exists():
            theirs = tuple(results.read_json(folder / results.MANIFEST).get("labels", ()))
            if theirs != label_names:
                raise ConfigError(
                    f"{where}.checkpoint",
                    f"{checkpoint} was trained on {len(theirs)} labels, the data has {len(label_names)} "
                    f"{differing_labels(theirs, label_names)}",
                    "give a teacher of this data, or none to train one",
                )
            return
    warnings.warn(f"{checkpoint} lies in no run folder; that its labels are the data's cannot be checked", stacklevel=2)
