"""Embedded scenes with several handwritten digits: real pen strokes, known boxes, no download.

The digits are scikit-learn's (1,797 scans of 8×8, from the UCI Optical Recognition set). A scene holds one to four
of them, of varying size, place, contrast and colour, overlapping, on a canvas with a gradient and clutter cut
from other scans. Train, val and test share no scan.
"""

# H W canvas, h w a scan, N scenes, K labels (the ten digits)

import gzip
import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core.randomness import generator
from tutelage.multilabel.data.source import ABSENT, PRESENT, Boxes, SplitName

SHARES: dict[SplitName, tuple[float, float]] = {"train": (0.0, 0.6), "val": (0.6, 0.75), "test": (0.75, 1.0)}


@dataclass(frozen=True)
class DigitScenes:
    """One split, drawn and ready."""

    ids: Sequence[str]
    targets_NK: NDArray[np.int8]
    images_N3HW: NDArray[np.uint8]
    all_boxes: tuple[Boxes, ...]

    def image(self, index: int) -> Tensor:
        return torch.from_numpy(self.images_N3HW[index])

    def boxes(self, index: int) -> Boxes:
        return self.all_boxes[index]


class Digits:
    """The embedded data set."""

    label_names = tuple(str(digit) for digit in range(10))

    def __init__(self, *, num_train: int, num_val: int, num_test: int, size: int, scene_seed: int) -> None:
        """Describe the scenes; they are drawn when a split is asked for.

        Args:
            num_train: Training scenes.
            num_val: Scenes for selection.
            num_test: Scenes that selection never sees.
            size: Side of the canvas, in pixels.
            scene_seed: Another seed gives another data set; ``seed`` does not touch it.
        """
        self.num_scenes: dict[SplitName, int] = {"train": num_train, "val": num_val, "test": num_test}
        self.size, self.scene_seed = size, scene_seed

    def split(self, name: SplitName) -> DigitScenes:
        """Return a split, drawn when it is first asked for."""
        return draw_split(name, num_scenes=self.num_scenes[name], size=self.size, scene_seed=self.scene_seed)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the settings and of the scans that they draw from."""
        settings = (sorted(self.num_scenes.items()), self.size, self.scene_seed, "scenes-1")
        return hashlib.sha256(repr(settings).encode() + load_scans()[0].tobytes()).hexdigest()[:16]

    @property
    def notes(self) -> dict[str, Any]:
        return {"scenes": dict(self.num_scenes), "selection": "held-out"}


@cache
def load_scans() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Read scikit-learn's digits: scans [1797, 64] of ink from 0 to 16, and which digit each one shows.

    Read from the file that comes with it: importing scikit-learn and scipy for this takes longer than drawing.
    """
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None and spec.origin is not None
    with gzip.open(Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    return np.ascontiguousarray(table[:, :-1]), table[:, -1].astype(np.int64)


@lru_cache(maxsize=3)  # the runs of one process, such as a teacher and its student, draw their scenes once
def draw_split(name: SplitName, *, num_scenes: int, size: int, scene_seed: int) -> DigitScenes:
    """Draw the scenes of one split."""
    scans, digits = load_scans()
    order = generator(scene_seed, "scans").permutation(len(scans))
    first, last = (round(share * len(scans)) for share in SHARES[name])
    mine = order[first:last]
    scans_Nhw = scans.reshape(-1, 8, 8)[mine] / 16.0
    drawn = [
        draw_scene(scans_Nhw, digits[mine], size=size, rng=generator(scene_seed, name, index))
        for index in range(num_scenes)
    ]
    targets_NK = np.full((len(drawn), len(Digits.label_names)), ABSENT, np.int8)
    for row, (_, boxes) in enumerate(drawn):
        targets_NK[row, boxes.labels_N] = PRESENT
    return DigitScenes(
        ids=[f"{name}-{index}" for index in range(len(drawn))],
        targets_NK=targets_NK,
        images_N3HW=np.stack([image for image, _ in drawn]) if drawn else np.zeros((0, 3, size, size), np.uint8),
        all_boxes=tuple(boxes for _, boxes in drawn),
    )


def draw_scene(
    scans_Nhw: NDArray[np.float64], digits_N: NDArray[np.int64], *, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Boxes]:
    """Draw one scene.

    Returns:
        The picture, uint8 [3, H, W], and a box around the ink of each digit.
    """
    ramp_HW = np.linspace(0, 1, size)[:, None] * rng.uniform(-0.2, 0.2) + np.linspace(0, 1, size) * rng.uniform(
        -0.3, 0.3
    )
    canvas_3HW = rng.uniform(0.1, 0.5, (3, 1, 1)) + ramp_HW + rng.normal(0, 0.03, (3, size, size))
    for _ in range(rng.integers(1, 5)):  # clutter: corners of scans, too small a piece to be read
        scan = scans_Nhw[rng.integers(len(scans_Nhw))]
        top, left = rng.integers(0, 5, 2)
        _stamp(canvas_3HW, scan[top : top + 4, left : left + 4], rng, side=int(rng.integers(6, 14)))
    labels, corners = [], []
    for _ in range(rng.integers(1, 5)):
        chosen = rng.integers(len(scans_Nhw))
        labels.append(digits_N[chosen])
        corners.append(_stamp(canvas_3HW, scans_Nhw[chosen], rng, side=int(rng.integers(size // 3, 2 * size // 3))))
    image = np.clip(canvas_3HW * 255, 0, 255).astype(np.uint8)
    return image, Boxes(np.array(labels, np.int64), np.array(corners, np.float32) / np.float32(size))


def _stamp(
    canvas_3HW: NDArray[np.float64], ink_hw: NDArray[np.float64], rng: np.random.Generator, *, side: int
) -> tuple[int, int, int, int]:
    """Paint ink over a random place; return its bounding box in pixels, (left, top, right, bottom)."""
    ink = _enlarge(ink_hw, side)
    top, left = rng.integers(0, canvas_3HW.shape[1] - side + 1, 2)
    place = canvas_3HW[:, top : top + side, left : left + side]
    contrast = rng.uniform(0.3, 0.9)
    colour = rng.uniform(0.5, 1.0, (3, 1, 1)) * contrast
    place += ink * colour
    rows, columns = np.nonzero(ink.max(1) > 0.1)[0], np.nonzero(ink.max(0) > 0.1)[0]
    if not len(rows):  # an empty corner of a scan
        return (left, top, left, top)
    return (int(left + columns[0]), int(top + rows[0]), int(left + columns[-1] + 1), int(top + rows[-1] + 1))


def _enlarge(ink_hw: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Bilinear enlargement in plain sums and products, which round alike on every machine."""
    at = np.clip((np.arange(side) + 0.5) * len(ink_hw) / side - 0.5, 0, len(ink_hw) - 1)
    low = np.minimum(at.astype(int), len(ink_hw) - 2)
    part = at - low
    rows: NDArray[np.float64] = ink_hw[low] * (1 - part)[:, None] + ink_hw[low + 1] * part[:, None]
    enlarged: NDArray[np.float64] = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    return enlarged
