"""What every distillation method is."""

# B batch, K labels

from typing import ClassVar, Literal, Protocol

from torch import Tensor, nn

from tutelage.multilabel.networks.output import Field, NetOutput


class Shape(Protocol):
    """The sizes of what a network shows, for methods that learn parts of their own."""

    @property
    def num_labels(self) -> int: ...
    @property
    def stage_channels(self) -> tuple[int, ...]: ...
    @property
    def embedding_dim(self) -> int: ...
    @property
    def label_embedding_dim(self) -> int | None: ...


class Method(nn.Module):
    """Turns what student and teacher show into losses.

    A new method is one file with one class, and one YAML file that names it.
    """

    reads: ClassVar[frozenset[Field]]  # the fields it needs: nothing else is computed, or stored for replay
    labels: ClassVar[Literal["multi", "single", "any"]]  # single: a softmax over labels, refused unless forced

    def match(self, *, student: Shape, teacher: Shape) -> None:
        """Make learned parts (projections, variances) that fit both networks. Called before the optimiser is built."""

    def forward(self, student: NetOutput, teacher: NetOutput, target_BK: Tensor) -> dict[str, Tensor]:
        """Return named losses, each a scalar, weighted against each other as the method has them.

        Args:
            student: With gradient.
            teacher: Without.
            target_BK: 1 present, 0 absent, −1 ignored.
        """
        raise AssertionError(f"{type(self).__name__} has no losses")
