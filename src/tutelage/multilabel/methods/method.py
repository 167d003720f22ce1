"""What every distillation method is."""

# B batch, K labels

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import Field, NetOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class DataInfo:
    """What a method may know of the data before training.

    Attributes:
        num_samples: Training samples; ``batch.index_B`` counts them from 0.
        label_names: The K labels.
        positives_K: Training samples that have each label, int64.
        max_positives: The most labels that one training sample has. An upper bound, known without looking at a batch.
        batch_size: Samples of one step over all processes.
    """

    num_samples: int
    label_names: tuple[str, ...]
    positives_K: Tensor
    max_positives: int
    batch_size: int


class Method(nn.Module):
    """Turns what student and teacher show into losses.

    A new method is one file with one class, and one YAML file that names it.

    Attributes:
        student_reads: The fields of :class:`NetOutput` that it reads of the student: nothing else is computed. An
            instance may have fewer, by its settings.
        teacher_reads: The same of the teacher. Empty: the method needs no teacher.
        labels: ``single``: made for one label an image, a softmax over the labels; refused on multi-label data unless
            the user insists. ``multi``: made for independent labels. ``any``: does not look at labels as a whole.
        multi_label_counterpart: For ``single``, the name of the method to choose instead.
        positives_only: Of the teacher's maps it looks at those of labels that an image has, and gives those of others
            no weight. Only the former are then recorded for later students.
        calibrates: :meth:`calibrate` wants to see the teacher on the training set.
        replaces_head: :meth:`setup` gives the student another head, which a run's student then has for good. What it
            makes must not depend on the data, and of the teacher's weights only in value: an export repeats it without
            either, and loads the checkpoint.
    """

    student_reads: frozenset[Field] = frozenset()
    teacher_reads: frozenset[Field] = frozenset()
    labels: ClassVar[Literal["multi", "single", "any"]]
    multi_label_counterpart: ClassVar[str] = ""
    positives_only: bool = False
    calibrates: ClassVar[bool] = False
    replaces_head: ClassVar[bool] = False

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        """Make learned parts (projections, variances), sized from both networks, before the optimiser is built.

        Parts are submodules of the method. Keep no network as an attribute: it would become part of the method's
        checkpoint. Name here what to keep of inner modules (:meth:`Network.watch`), and read ``features``.

        Args:
            student: As it will be trained. To change what it computes at test and export, replace its head
                (:meth:`Network.replace_head`) and return it.
            teacher: Frozen, in eval mode.
            data: About the training data.

        Returns:
            The student where the method changed it, else None.

        Raises:
            ConfigError: A network lacks what the method needs.
        """
        return None

    def calibrate(self, teacher: Iterable[tuple[NetOutput, Batch]]) -> None:
        """See the teacher on the whole training set once, without augmentation.

        Called on the training device before the first step of a new run, where ``calibrates`` is true, without
        gradient and the same on every process. What is found belongs into buffers, which a resumed run gets from its
        checkpoint.

        Args:
            teacher: The teacher's outputs (``teacher_reads``) batch by batch. Rows with index −1 are padding.
        """

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Return named losses, each a scalar, weighted against each other as the method has them.

        Losses are of the global batch: use :func:`global_mean` or :func:`gather_rows` of ``core.distributed``, so that
        several processes learn what one does. Rows with ``batch.index_B`` −1 are padding and enter no loss, nor do
        targets of −1.

        Args:
            student: With gradient.
            teacher: Detached.
            batch: ``target_BK`` 1 present, 0 absent, −1 unknown; ``index_B`` the samples' places in the training set.
            progress: Share of the training that is done, in [0, 1): for warm-ups.
        """
        raise AssertionError(f"{type(self).__name__} has no losses")
