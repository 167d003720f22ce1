"""MS COCO as multi-label data, in its 2014 and 2017 layouts, and any file in COCO's format."""

# N images, K categories

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tutelage.core.errors import ConfigError, DataError
from tutelage.multilabel.data.files import (
    Annotations,
    FileSource,
    OnBadImage,
    SplitIndex,
    digest,
    inside_root,
    refuse_different_labels,
    shortened,
)
from tutelage.multilabel.data.source import Boxes

# Outlines of objects, as polygons or run lengths: most of a file of the full set, and most of the time and memory of
# parsing it. Inside a string the quotes would be escaped, so only keys match.
_OUTLINES = re.compile(rb'"segmentation":\s*(?:\[(?:\s*\[[^\[\]]*\]\s*,?)*\s*\]|\{[^{}]*\})')


@dataclass(kw_only=True)
class Coco(FileSource):
    """COCO: its train split for training and selection, its val split as the test, as the field has it.

    Images without any annotation stay: leaving them out, as tools that start from the annotations do, drops 367 of
    val2014's 40,504.

    Attributes:
        year: Which layout; None takes the one that is there.
    """

    year: Literal[2014, 2017] | None = None

    def read(self) -> Annotations:
        year = self.year or self._year()
        paths = {split: self.root / "annotations" / f"instances_{split}{year}.json" for split in ("train", "val")}
        for split, path in paths.items():
            if not path.is_file() or not (self.root / f"{split}{year}").is_dir():
                raise DataError(
                    "data.root",
                    f"no {split}{year}/ and annotations/{path.name} in {self.root}",
                    f"point data.root at the folder that holds train{year}/, val{year}/ and annotations/",
                )
        files = {split: CocoFile(path) for split, path in paths.items()}
        refuse_different_labels(
            files["train"].label_names, files["val"].label_names, origins=(paths["train"].name, paths["val"].name)
        )
        train = files["train"].split_index(folder=f"train{year}", on_bad_image=self.on_bad_image)
        test = files["val"].split_index(folder=f"val{year}", on_bad_image=self.on_bad_image)
        return Annotations(
            label_names=files["train"].label_names,
            splits={"train": train, "test": test},
            digest=digest(*(file.digest.encode() for file in files.values())),
            notes={
                "protocol": f"COCO {year}: test is val{year}",
                "annotations": {split: file.notes for split, file in files.items()},
            },
        )

    def _year(self) -> Literal[2014, 2017]:
        there: list[Literal[2014, 2017]] = [
            year for year in (2014, 2017) if (self.root / f"annotations/instances_train{year}.json").is_file()
        ]
        if len(there) == 2:
            raise ConfigError("data.year", f"{self.root} holds COCO 2014 and 2017", "choose data.year=2014 or 2017")
        if not there:
            raise DataError(
                "data.root",
                f"no annotations/instances_train2014.json or instances_train2017.json in {self.root}",
                "point data.root at the folder that holds train2014/, val2014/ and annotations/ (or those of 2017)",
            )
        return there[0]


class CocoFile:
    """One annotation file in COCO's format."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            DataError: It is not JSON of COCO's form.
        """
        self.path = path
        try:
            content = path.read_bytes()
            self.digest = digest(content)
            whole = json.loads(_OUTLINES.sub(b'"segmentation": 0', content))
            self._images = [_image(image) for image in whole["images"]]
            categories = {int(c["id"]): str(c["name"]) for c in sorted(whole["categories"], key=lambda c: c["id"])}
            self._annotations = [(a["image_id"], a["category_id"], a.get("bbox")) for a in whole["annotations"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                str(path),
                f"not an annotation file of COCO's form ({type(error).__name__}: {error})",
                "it needs the lists images (id, file_name), annotations (image_id, category_id), categories (id, name)",
            ) from None
        self.label_names = tuple(categories.values())
        if len(categories) != len(whole["categories"]) or len(set(self.label_names)) != len(categories):
            raise DataError(str(path), "two categories share an id or a name", "give each its own")
        self._column = {category: column for column, category in enumerate(categories)}
        self.notes: dict[str, Any] = {}

    def split_index(self, *, folder: str, on_bad_image: OnBadImage) -> SplitIndex:
        """Return the file's images, which lie in ``folder``, with a target for each category.

        Raises:
            DataError: An annotation of an unknown category, or, unless such are skipped, of an unknown image.
        """
        by_id: dict[Any, int] = {}
        for row, (image_id, name, _, _) in enumerate(self._images):
            if by_id.setdefault(image_id, row) != row:
                raise DataError(str(self.path), f"image id {image_id} occurs twice ({name})", "keep one of them")
        targets_NK = np.zeros((len(self._images), len(self._column)), dtype=np.int8)
        boxes: list[tuple[int, int, list[float]]] = []  # row, column, and x, y, w, h in pixels
        unknown: list[str] = []
        without_box = 0
        for image_id, category_id, box in self._annotations:
            column = self._column.get(category_id)
            if column is None:
                raise DataError(
                    str(self.path), f"an annotation has the unknown category {category_id}", "add it to categories"
                )
            row_of_image = by_id.get(image_id)
            if row_of_image is None:
                unknown.append(str(image_id))
                continue
            targets_NK[row_of_image, column] = 1
            if box is None:
                without_box += 1  # an image-level label
            else:
                boxes.append((row_of_image, column, box))
        if unknown and on_bad_image == "error":
            raise DataError(
                str(self.path),
                f"{len(unknown)} annotations are of images that it does not list: {shortened(unknown)}",
                "add the images, or set data.on_bad_image=skip to leave these annotations out",
            )
        self.notes = {
            "image_level_labels": without_box,
            "of_unknown_images": {"count": len(unknown), "image_ids": sorted(set(unknown))},
        }
        return SplitIndex(
            ids=[str(image_id) for image_id, _, _, _ in self._images],
            files=[inside_root(name, folder=folder, origin=str(self.path)) for _, name, _, _ in self._images],
            targets_NK=targets_NK,
            boxes=_by_image(boxes, [(width, height) for _, _, width, height in self._images]),
            origin=str(self.path),
        )


def _image(image: Mapping[str, Any]) -> tuple[Any, str, float, float]:
    return image["id"], str(image["file_name"]), float(image.get("width", 0)), float(image.get("height", 0))


def _by_image(boxes: list[tuple[int, int, list[float]]], sizes: list[tuple[float, float]]) -> list[Boxes | None]:
    """Give each image its boxes, as fractions of its size; boxes without an area are dropped."""
    row_N = np.array([row for row, _, _ in boxes], dtype=np.int64)
    column_N = np.array([column for _, column, _ in boxes], dtype=np.int64)
    xywh_N4 = np.array([box for _, _, box in boxes], dtype=np.float64).reshape(-1, 4)
    size_N2 = np.array(sizes, dtype=np.float64).reshape(-1, 2)[row_N]
    order = np.argsort(row_N, kind="stable")
    order = order[(xywh_N4[order, 2:] > 0).all(axis=1) & (size_N2[order] > 0).all(axis=1)]
    xy_N2, wh_N2, size_N2 = xywh_N4[order, :2], xywh_N4[order, 2:], size_N2[order]
    xyxy_N4 = (np.concatenate([xy_N2, xy_N2 + wh_N2], axis=1) / np.tile(size_N2, 2)).clip(0, 1).astype(np.float32)
    starts = np.searchsorted(row_N[order], np.arange(len(sizes) + 1))
    return [
        Boxes(labels_N=column_N[order[start:end]], xyxy_N4=xyxy_N4[start:end]) if end > start else None
        for start, end in pairwise(starts)
    ]
