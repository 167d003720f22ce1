"""MS COCO as multi-label data, in its 2014 and 2017 layouts, and any file in COCO's format."""

# N images, K categories

import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec
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
from tutelage.multilabel.data.source import Boxes, SplitName


@dataclass(kw_only=True)
class Coco(FileSource):
    """COCO: its train split for training and selection, its val split as the test, as the field has it.

    COCO's own test labels are not public. A tree that brings ``instances_test*.json`` is somebody else's data in this
    layout; its val split selects and its test split is the test.

    Images without any annotation stay: leaving them out, as tools that start from the annotations do, drops 367 of
    val2014's 40,504.

    Attributes:
        year: Which layout; None takes the one that is there.
    """

    year: Literal[2014, 2017] | None = None

    def read(self) -> Annotations:
        year = self.year or self._year()
        folders = [f"{split}{year}" for split in ("train", "val", "test")]
        for folder in folders[:2]:
            if not self._annotations(folder).is_file() or not (self.root / folder).is_dir():
                raise DataError(
                    "data.root",
                    f"no {folder}/ and annotations/{self._annotations(folder).name} in {self.root}",
                    f"point data.root at the folder that holds train{year}/, val{year}/ and annotations/",
                )
        has_test = self._annotations(folders[2]).is_file()
        names: tuple[SplitName, ...] = ("train", "val", "test") if has_test else ("train", "test")
        files = {name: CocoFile(self._annotations(folder)) for name, folder in zip(names, folders)}
        unused = leave_out_unused(files.values())
        first = files["train"]
        for file in files.values():
            refuse_different_labels(first.label_names, file.label_names, origins=(first.path.name, file.path.name))
        return Annotations(
            label_names=first.label_names,
            splits={
                name: file.split_index(folder=folder, on_bad_image=self.on_bad_image)
                for (name, file), folder in zip(files.items(), folders)
            },
            digest=digest(*(file.digest.encode() for file in files.values())),
            notes={
                "protocol": f"COCO {year}: "
                + (f"val is val{year}, test is test{year}" if has_test else f"test is val{year}"),
                "annotations": {
                    folder.removesuffix(str(year)): file.notes for folder, file in zip(folders, files.values())
                },
                "unused_categories": list(unused),
            },
        )

    def _annotations(self, folder: str) -> Path:
        return self.root / "annotations" / f"instances_{folder}.json"

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


class _Image(msgspec.Struct):
    id: int | str
    file_name: str
    width: float | None = None
    height: float | None = None


class _Annotation(msgspec.Struct):
    image_id: int | str
    category_id: int
    bbox: tuple[float, float, float, float] | None = None  # left, top, width, height in pixels


class _Category(msgspec.Struct):
    id: int
    name: str
    supercategory: str | None = None


class _Content(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


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
            # Typed, so that the outlines of objects, most of a full file, are passed over and never become objects.
            whole = msgspec.json.decode(content, type=_Content, strict=False)
        except (OSError, msgspec.MsgspecError) as error:
            raise DataError(
                str(path),
                f"not an annotation file of COCO's form ({type(error).__name__}: {error})",
                "it needs the lists images (id, file_name), annotations (image_id, category_id), categories (id, name)",
            ) from None
        self.digest = digest(content)
        self._images, self._annotations = whole.images, whole.annotations
        self._categories = {c.id: c.name for c in sorted(whole.categories, key=lambda c: c.id)}
        if len(self._categories) != len(whole.categories) or len(set(self._categories.values())) != len(
            whole.categories
        ):
            raise DataError(str(path), "two categories share an id or a name", "give each its own")
        self.groups = {c.supercategory for c in whole.categories if c.supercategory is not None}
        self.notes: dict[str, Any] = {}

    @property
    def label_names(self) -> tuple[str, ...]:
        """The categories, by their id."""
        return tuple(self._categories.values())

    @property
    def used(self) -> set[str]:
        """The categories that a picture has."""
        occurring = {annotation.category_id for annotation in self._annotations}
        return {name for category, name in self._categories.items() if category in occurring}

    @property
    def file_names(self) -> list[str]:
        return [image.file_name for image in self._images]

    def leave_out(self, names: Collection[str]) -> None:
        """Drop categories, which no annotation may have."""
        self._categories = {category: name for category, name in self._categories.items() if name not in names}

    def split_index(self, *, folder: str, on_bad_image: OnBadImage) -> SplitIndex:
        """Return the file's images, which lie in ``folder``, with a target for each category.

        Raises:
            DataError: An annotation of an unknown category, or, unless such are skipped, of an unknown image.
        """
        by_id: dict[int | str, int] = {}
        for row, image in enumerate(self._images):
            if by_id.setdefault(image.id, row) != row:
                raise DataError(
                    str(self.path), f"image id {image.id} occurs twice ({image.file_name})", "keep one of them"
                )
        columns = {category: column for column, category in enumerate(self._categories)}
        targets_NK = np.zeros((len(self._images), len(columns)), dtype=np.int8)
        boxes: list[tuple[int, int, tuple[float, ...]]] = []  # row, column, and x, y, w, h in pixels
        unknown: list[str] = []
        without_box = 0
        for annotation in self._annotations:
            column = columns.get(annotation.category_id)
            if column is None:
                raise DataError(
                    str(self.path),
                    f"an annotation has the unknown category {annotation.category_id}",
                    "add it to categories",
                )
            row_of_image = by_id.get(annotation.image_id)
            if row_of_image is None:
                unknown.append(str(annotation.image_id))
                continue
            targets_NK[row_of_image, column] = 1
            if annotation.bbox is None:
                without_box += 1  # an image-level label
            else:
                boxes.append((row_of_image, column, annotation.bbox))
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
            ids=[str(image.id) for image in self._images],
            files=[inside_root(name, folder=folder, origin=str(self.path)) for name in self.file_names],
            targets_NK=targets_NK,
            boxes=_by_image(boxes, [(image.width or 0.0, image.height or 0.0) for image in self._images]),
            origin=str(self.path),
        )


def leave_out_unused(files: Iterable[CocoFile], *, other_labels: Iterable[Collection[str]] = ()) -> tuple[str, ...]:
    """Leave out the categories that no picture has and that not every split lists, or that only group others.

    Tools that export in COCO's format add a root category, often under another name in each file.

    Args:
        files: Of all splits; their categories change.
        other_labels: Of splits in another format, and those that the user asked for.

    Returns:
        The names that were left out; said in a warning, too.
    """
    files, other_lists = list(files), [set(labels) for labels in other_labels]
    lists = [*(set(file.label_names) for file in files), *other_lists]
    named_elsewhere = set().union(*other_lists)
    groups = set().union(*(file.groups for file in files)) - named_elsewhere
    unused = set().union(*(file.label_names for file in files)) - set().union(*(file.used for file in files))
    left_out = tuple(sorted(n for n in unused if n in groups or not all(n in labels for labels in lists)))
    for file in files:
        file.leave_out(left_out)
    if left_out:
        warnings.warn(f"categories that no picture has are left out: {', '.join(left_out)}", stacklevel=2)
    return left_out


def _by_image(boxes: list[tuple[int, int, tuple[float, ...]]], sizes: list[tuple[float, float]]) -> list[Boxes | None]:
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
