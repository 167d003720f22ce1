"""The Lightning module of distillation: forward, method, log."""

# B batch, K labels

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from tutelage.core.optim import Optim
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.losses import TaskLoss
from tutelage.multilabel.methods.method import Method
from tutelage.multilabel.metrics import MultilabelScores
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.teacher import Teacher
from tutelage.multilabel.weight import Weight


class Distillation(LightningModule):
    """A student that learns from labels and, through a method, from a frozen teacher."""

    def __init__(
        self,
        student: Network,
        *,
        task_loss: TaskLoss,
        method: Method,
        weight: Weight,
        teacher: Teacher | None,
        optim: Optim,
        compile: bool = False,
    ) -> None:
        """Wire the parts.

        Args:
            student: Trained.
            task_loss: On the labels.
            method: On what both networks show.
            weight: λ of the method's losses.
            teacher: Kept outside the module tree; None where the method reads nothing.
            optim: Of the student and of what the method learns.
            compile: Compile the student's forward; the teacher is compiled apart (timm issue 2693: together they
                lose 40 % of the speed).
        """
        super().__init__()
        self.student, self.method, self.weight = student, method, weight
        self.task_loss, self.optim = task_loss, optim
        # In a list: a module attribute would be saved, moved, optimised and synchronised with the student.
        self._teacher = [teacher] if teacher is not None else []
        self.val_scores = MultilabelScores(num_labels=student.shows.num_labels)
        self._forward: Any = torch.compile(student) if compile else student
        if teacher is not None:
            method.match(student=student.shows, teacher=teacher.network.shows)

    def on_fit_start(self) -> None:
        for teacher in self._teacher:
            teacher.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        reads = self.method.reads
        # First, while the student holds no activations: on a CPU the other order costs a seventh of the step.
        taught = [teacher(batch.images_BCHW, reads=reads) for teacher in self._teacher]
        shown = self._forward(batch.images_BCHW, reads=reads)
        loss: Tensor = self.task_loss(shown.logits_BK, batch.target_BK)
        logged = {"train/task": loss.detach()}
        for teacher_shown in taught:
            named = self.method(shown, teacher_shown, batch.target_BK)
            method_loss = torch.stack(list(named.values())).sum()
            weight = self.weight(loss, method_loss)
            loss = loss + weight * method_loss
            logged |= {f"train/{name}": value.detach() for name, value in named.items()}
            logged["train/weight"] = weight
        self.log_dict({**logged, "train/loss": loss.detach()})
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits_BK = self._forward(batch.images_BCHW, reads=frozenset()).logits_BK
        self.val_scores.update(logits_BK, batch.target_BK, batch.index_B)

    def on_validation_epoch_end(self) -> None:
        found = self.val_scores.compute()
        self.log_dict({f"val/{name}": 100 * found[name].float() for name in ("mAP", "CF1", "OF1")}, prog_bar=True)
        self.val_scores.reset()

    def configure_optimizers(self) -> Any:
        parts = nn.ModuleDict({"student": self.student, "method": self.method})
        head = [f"student.{name}" for name in self.student.head_parameter_names()]
        total_steps = int(self.trainer.estimated_stepping_batches)
        return self.optim.configure(parts.named_parameters(), total_steps=total_steps, head=head)
