"""What a data set shows to the rest: splits of pictures with a target for each label.

To add a data set, write one class with the members of `Source`; nothing needs to be inherited or registered.
"""

# N samples (in `Boxes`: boxes), K labels, H W pixels of the decoded picture

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

SplitName = Literal["train", "val", "test"]

PRESENT, ABSENT, IGNORED = 1, 0, -1


@dataclass(frozen=True, slots=True)
class Boxes:
    """Where the labels of one picture are.

    Attributes:
        labels_N: Index of each box's label, 0 to K − 1.
        xyxy_N4: Left, top, right, bottom as fractions of the original picture's width and height, so that they
            hold at any resolution that the picture is resized to.
    """

    labels_N: NDArray[np.int64]
    xyxy_N4: NDArray[np.float32]


class SkippedImage(Exception):
    """Raised by `Split.image` for a picture that cannot be read, where the user chose to pass such over.

    The data module turns it into a row whose targets are all ignored. A `DataError` ends the run instead.
    """


class Split(Protocol):
    """One split of a data set."""

    @property
    def ids(self) -> Sequence[str]:
        """A stable, unique name for each sample: augmentation is a function of it."""
        ...

    @property
    def targets_NK(self) -> NDArray[np.int8]:
        """1 present, 0 absent, −1 ignored by losses and scores (VOC's difficult objects)."""
        ...

    def image(self, index: int) -> Tensor:
        """Decode one picture: uint8 [3, H, W], RGB, upright (EXIF applied)."""
        ...

    def boxes(self, index: int) -> Boxes | None:
        """Return the boxes of one picture; None where the data set has none for it."""
        ...


class Source(Protocol):
    """A data set: what ``data._target_`` builds."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The K labels, in the order of the targets' columns."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of what the data set is: the same files and settings, the same fingerprint."""
        ...

    @property
    def notes(self) -> Mapping[str, Any]:
        """JSON values that belong beside every number: counts, exclusions, and ``selection``.

        ``selection`` is "held-out" where "val" was kept out of the training part, and "test" where the user
        asked to select on the test split.
        """
        ...

    def split(self, name: SplitName) -> Split:
        """Return one split; train, val and test share no sample (val is test under ``selection`` "test")."""
        ...


class Batch(NamedTuple):
    """What a step is given; a row with index −1 is padding or a skipped picture and counts nowhere."""

    images_BCHW: Tensor  # uint8, at the data's resolution; each network normalises for itself
    target_BK: Tensor  # int8: 1 present, 0 absent, −1 ignored
    index_B: Tensor  # int64, position in the split; −1 where the row counts nowhere
    view_B: Tensor  # int64, which augmented view of the sample, from 0; −1 where it is not augmented, or counts nowhere
