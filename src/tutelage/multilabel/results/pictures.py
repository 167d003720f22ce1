"""The pictures of a run's report, for loggers that show pictures."""

# N images, V views, K labels, R resolution

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.core.figures import pixels
from tutelage.multilabel.results.report import EXAMPLES, MAPS, draw_classes, overlay, read_classes

Picture = tuple[str, NDArray[np.uint8]]  # its caption, and uint8 [H, W, 3]
MOST_LABELS = 4  # of one picture, as in the report


def pictures(folder: Path, *, label_names: Sequence[str]) -> dict[str, list[Picture]]:
    """Draw what a run's folder keeps for its report: scores by label, maps, training pictures and most wrong ones."""
    found = {"average_precision": [("by label", pixels(draw_classes(read_classes(folder))))]}
    with np.load(folder / MAPS) as kept:
        found["maps"] = _maps(dict(kept), label_names)
    with np.load(folder / EXAMPLES) as kept:
        train_NV3RR, wrong_N3RR = kept["train"], kept["wrong"]
        found["training_pictures"] = [
            (f"{name}, augmented", np.concatenate(list(views_V3RR.transpose(0, 2, 3, 1)), axis=1))
            for name, views_V3RR in zip(kept["train_ids"], train_NV3RR, strict=True)
        ]
        found["most_wrong"] = [
            (str(name), image_3RR.transpose(1, 2, 0))
            for name, image_3RR in zip(kept["wrong_ids"], wrong_N3RR, strict=True)
        ]
    return found


def _maps(kept: dict[str, NDArray[np.generic]], label_names: Sequence[str]) -> list[Picture]:
    """Lay each network's map of each label that is there over the picture, side by side."""
    roles = [role for role in ("teacher", "student") if f"cams_{role}" in kept]
    rows = []
    for n, image_3RR in enumerate(kept["images"]):
        for k in np.flatnonzero(kept["targets"][n] == 1)[:MOST_LABELS]:
            drawn = [overlay(image_3RR, kept[f"cams_{role}"][n, k]) for role in roles]
            caption = f"{kept['ids'][n]}, {label_names[k]}: {', '.join(['picture', *roles])}"
            rows.append((caption, np.concatenate([image_3RR.transpose(1, 2, 0), *drawn], axis=1)))
    return rows
