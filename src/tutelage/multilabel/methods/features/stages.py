"""Stages of two networks beside each other, and how a student's are brought to the teacher's channels."""

# B batch, C channels, H W map

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from tutelage.core.errors import ConfigError
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import Field, NetOutput


@dataclass(frozen=True, slots=True)
class StagePair:
    """A stage of the student and the stage of the teacher that it learns from.

    Attributes:
        student: Its place in ``NetOutput.stages``.
        teacher: Likewise.
        student_channels: C of the student's.
        teacher_channels: C of the teacher's.
    """

    student: int
    teacher: int
    student_channels: int
    teacher_channels: int


def paired_stages(student: Network, teacher: Network, *, most: int) -> tuple[StagePair, ...]:
    """Pair stages from the last on, so that a stem that only one network counts as a stage is left over.

    Args:
        student: Any network.
        teacher: Any other; strides, layouts and the number of stages may differ.
        most: Pairs, if both have so many.

    Returns:
        Shallow to deep.

    Raises:
        ConfigError: timm shows no stages of a network.
    """
    for role, network in (("student", student), ("teacher", teacher)):
        if not network.shape.stage_channels:
            raise ConfigError(
                f"model.{role}.name",
                f"timm shows no stages of {network.spec.name}, which the method compares",
                "choose another network, or a method on embeddings or maps such as rkd, vkd or cam_kd",
            )
    of_student, of_teacher = student.shape.stage_channels, teacher.shape.stage_channels
    count = min(most, len(of_student), len(of_teacher))
    return tuple(
        StagePair(len(of_student) - i, len(of_teacher) - i, of_student[-i], of_teacher[-i]) for i in range(count, 0, -1)
    )


class PreActivations:
    """Reads stages before their last activation, as OFD and ReviewKD want them.

    A stage that ends without one (a linear bottleneck, a transformer's block) is read as it is.
    """

    def __init__(self, network: Network, stages: Sequence[int]) -> None:
        """Have the network keep what the stages' last activations are given.

        Args:
            network: Of which :meth:`read` will get the outputs.
            stages: Places in ``NetOutput.stages``.
        """
        watched = network.stage_inputs()
        self._places = tuple((stage, watched[stage]) for stage in stages)
        network.watch([name for _, name in self._places if name is not None])

    @property
    def reads(self) -> frozenset[Field]:
        """The fields that are read."""
        watched = [name is not None for _, name in self._places]
        of_watched: frozenset[Field] = frozenset({"features"} if any(watched) else set())
        of_stages: frozenset[Field] = frozenset(set() if all(watched) else {"stages"})
        return of_watched | of_stages

    def read(self, output: NetOutput) -> tuple[Tensor, ...]:
        """Return the maps [B, C, H, W] in the order of ``stages``."""
        return tuple(output.stages[stage] if name is None else output.features[name] for stage, name in self._places)


def projection(in_channels: int, out_channels: int) -> nn.Sequential:
    """Make a 1×1 convolution with a batch norm, which no activation follows: a transformer's features have signs."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))


def bottleneck(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    """Make 1×1, 3×3 and 1×1 convolutions with batch norms; no activation follows the last."""
    return nn.Sequential(
        *projection(in_channels, hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        *projection(hidden, out_channels),
    )
