"""The Lightning module of distillation: forward, terms, log."""

# B batch, K labels

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from tutelage.core.errors import ConfigError
from tutelage.core.optim import Optim
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.losses import TaskLoss
from tutelage.multilabel.methods.method import DataInfo
from tutelage.multilabel.metrics import MultilabelScores
from tutelage.multilabel.networks.ensemble import READABLE, Ensemble
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import Field, NetOutput
from tutelage.multilabel.teacher import Teacher
from tutelage.multilabel.terms import Term, TermSpec


class Answers(Protocol):
    """Shows what a teacher shows of a training batch."""

    def __call__(self, batch: Batch, *, reads: frozenset[Field]) -> NetOutput:
        """Return the fields ``reads``, without gradient."""
        ...


class Distillation(LightningModule):
    """A student that learns from labels and, through methods, from a frozen teacher."""

    def __init__(
        self,
        student: Network,
        *,
        task_loss: TaskLoss,
        terms: Mapping[str, TermSpec],
        teachers: Mapping[str, Teacher],
        data: DataInfo,
        optim: Optim,
        compile: bool = False,
    ) -> None:
        """Wire the parts.

        Args:
            student: Trained.
            task_loss: On the labels.
            terms: By name.
            teachers: By name, kept outside the module tree; none where no method reads anything. Each teaches the
                terms that name it.
            data: For what methods learn.
            optim: Of the student and of what the methods learn.
            compile: Compile the student's backbone; the teacher is compiled apart (timm issue 2693: together they
                lose 40 % of the speed).
        """
        super().__init__()
        self.task_loss, self.optim = task_loss, optim
        # In a dict: a module attribute would be saved, moved, optimised and synchronised with the student.
        self._teachers = dict(teachers)
        # Who is asked in a training step; a record may answer for a teacher.
        self.answers: dict[str, Answers] = dict(teachers)
        for spec in terms.values():
            if spec.method.teacher_reads:
                student = set_up(spec, student, self._teachers[spec.teacher], data)
        self.student = student
        self.terms = nn.ModuleDict({name: Term(spec) for name, spec in terms.items() if spec.method.teacher_reads})
        self.student_reads = _union(spec.method.student_reads for spec in terms.values())
        self.teacher_reads = {
            name: _union(spec.method.teacher_reads for spec in terms.values() if spec.teacher == name)
            for name in teachers
        }
        self.val_scores = MultilabelScores(num_labels=student.shape.num_labels)
        if compile:
            student.compile_backbone()

    @property
    def teachers(self) -> Mapping[str, Teacher]:
        """By name; kept outside the module tree."""
        return self._teachers

    def on_fit_start(self) -> None:
        for teacher in self._teachers.values():
            teacher.to(self.device)
        for term in self.terms.values():
            assert isinstance(term, Term)
            if term.method.calibrates and not term.calibrated:
                with torch.no_grad():
                    term.method.calibrate(
                        self._on_training_set(self._teachers[term.teacher], term.method.teacher_reads)
                    )
                term.calibrated.fill_(True)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # First, while the student holds no activations: on a CPU the other order costs a seventh of the step.
        teacher_outs = {name: answer(batch, reads=self.teacher_reads[name]) for name, answer in self.answers.items()}
        student_out = self.student(batch.images_BCHW, reads=self.student_reads)
        task_loss: Tensor = self.task_loss(student_out.logits_BK, batch.target_BK)
        loss, logged = task_loss, {"train/task": task_loss.detach()}
        for name, term in self.terms.items():
            assert isinstance(term, Term)
            progress = self.trainer.global_step / self.trainer.estimated_stepping_batches
            weighted, named = term(task_loss, student_out, teacher_outs[term.teacher], batch, progress=progress)
            loss = loss + weighted
            prefix = f"train/{name}" if len(self.terms) > 1 else "train"
            logged |= {f"{prefix}/{key}": value for key, value in named.items()}
        # Where nothing is written, logging would cost a millisecond a value: half of the trainer's own time.
        every = int(self.trainer.log_every_n_steps)  # type: ignore[attr-defined]
        if (self.trainer.global_step + 1) % every == 0 or self.trainer.is_last_batch:
            self.log_dict(logged)
            self.log_dict({"train/loss": loss.detach()}, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits_BK = self.student(batch.images_BCHW).logits_BK
        self.val_scores.update(logits_BK, batch.target_BK, batch.index_B)

    def on_validation_epoch_end(self) -> None:
        found = self.val_scores.compute()
        self.log_dict({f"val/{name}": 100 * found[name].float() for name in ("mAP", "CF1", "OF1")}, prog_bar=True)
        self.val_scores.reset()

    def configure_optimizers(self) -> Any:
        parts = nn.ModuleDict({"student": self.student, "terms": self.terms})
        head = [f"student.{name}" for name in self.student.head_parameter_names()]
        undecayed = [f"student.{name}" for name in self.student.undecayed_parameter_names()]
        total_steps = int(self.trainer.estimated_stepping_batches)
        return self.optim.configure(parts.named_parameters(), total_steps=total_steps, head=head, undecayed=undecayed)

    def _on_training_set(self, teacher: Teacher, reads: frozenset[Field]) -> Iterator[tuple[NetOutput, Batch]]:
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        for batch in datamodule.calibration_dataloader():
            moved = self.trainer.strategy.batch_to_device(datamodule.on_before_batch_transfer(batch, 0))
            assert isinstance(moved, Batch)
            yield teacher(moved, reads=reads), moved


def set_up(spec: TermSpec, student: Network, teacher: Teacher, data: DataInfo) -> Network:
    """Let a method see both networks; return the student, which the method may have changed.

    Raises:
        ConfigError: A network lacks what the method reads.
    """
    method = spec.method
    kind = type(method).__name__
    for network in teacher.networks:
        if network.spec.features_only:  # before the method looks for what it does not have
            network.check_reads(method.teacher_reads, where="model.teacher", method=kind)
    # Then again: a method reads less of networks that have less, which it says in its setup. Each of several must fit.
    ready, reads = student, frozenset[Field]()
    for network in teacher.networks:
        ready = method.setup(student, network, data) or student
        network.check_reads(method.teacher_reads, where="model.teacher", method=kind)
        reads |= method.teacher_reads
    student.check_reads(method.student_reads, where="model.student", method=kind)
    if isinstance(teacher.network, Ensemble) and (unfit := reads - READABLE):
        raise ConfigError(
            "teachers.combine",
            f"{kind} reads {', '.join(sorted(unfit))}, and features of several networks have no mean",
            "set teachers.combine=terms",
        )
    # As the features that they see: else each convolution would lay out its weights anew at every step.
    method.to(memory_format=ready.memory_format)
    return ready


def _union(reads: Iterable[frozenset[Field]]) -> frozenset[Field]:
    return frozenset[Field]().union(*reads)
