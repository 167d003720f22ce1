"""PASCAL VOC 2007 and 2012 as multi-label data."""

# N images, K = 20 classes

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from tutelage.core.errors import DataError
from tutelage.multilabel.data.files import Annotations, FileSource, SplitIndex, digest, inside_root, shortened
from tutelage.multilabel.data.source import ABSENT, IGNORED, PRESENT, Boxes

LABELS = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


@dataclass(kw_only=True)
class Voc(FileSource):
    """One year of VOC: trainval for training and selection, and the test split as the test.

    The annotations of VOC 2012's test split were never published: where they are not there, train is for training
    and selection, and val is the test. `notes` say which it was.

    Attributes:
        year: 2007 or 2012.
        difficult: What a label is whose only objects are marked difficult: ignored, as in VOC's own scoring, or
            present, which gives other numbers.
    """

    year: Literal[2007, 2012]
    difficult: Literal["ignored", "present"] = "ignored"

    def read(self) -> Annotations:
        folder = self._folder()
        lists = folder / "ImageSets" / "Main"
        has_test = (lists / "test.txt").is_file() and self._annotated(folder, lists / "test.txt")
        train, test = ("trainval", "test") if has_test else ("train", "val")
        if not has_test and self.year == 2007:
            raise DataError(
                "data.root",
                f"no annotated test split in {folder}",
                "unpack VOCtest_06-Nov-2007.tar beside VOCtrainval_06-Nov-2007.tar",
            )
        contents: list[bytes] = []
        indexes = {name: self._index(folder, lists / f"{name}.txt", contents) for name in (train, test)}
        return Annotations(
            label_names=LABELS,
            splits={"train": indexes[train], "test": indexes[test]},
            digest=digest(*contents),
            notes={
                "protocol": f"VOC {self.year}: train is {train}, test is {test}, difficult objects {self.difficult}",
            },
        )

    def _folder(self) -> Path:
        name = f"VOC{self.year}"
        places = [self.root / "VOCdevkit" / name, self.root / name] + [self.root] * (self.root.name == name)
        for folder in places:
            if (folder / "ImageSets" / "Main").is_dir():
                return folder
        raise DataError(
            "data.root",
            f"no VOCdevkit/{name}/ with ImageSets/Main, JPEGImages and Annotations in {self.root}",
            "point data.root at the folder that holds VOCdevkit/",
        )

    def _annotated(self, folder: Path, names: Path) -> bool:
        return all((folder / "Annotations" / f"{name}.xml").is_file() for name in _names(names))

    def _index(self, folder: Path, names: Path, contents: list[bytes]) -> SplitIndex:
        ids = _names(names)
        annotations = [self._annotation(folder / "Annotations" / f"{name}.xml", contents) for name in ids]
        inside = folder.relative_to(self.root).as_posix()
        return SplitIndex(
            ids=ids,
            files=[inside_root(f"{name}.jpg", folder=f"{inside}/JPEGImages", origin=str(names)) for name in ids],
            targets_NK=np.array([target_K for target_K, _ in annotations], dtype=np.int8).reshape(-1, len(LABELS)),
            boxes=[boxes for _, boxes in annotations],
            origin=str(names),
        )

    def _annotation(self, path: Path, contents: list[bytes]) -> tuple[NDArray[np.int8], Boxes | None]:
        """Read the targets and boxes of one picture."""
        try:
            contents.append(path.read_bytes())
            root = ElementTree.fromstring(contents[-1])
            objects = [_object(node) for node in root.findall("object")]  # direct children: not the parts of a person
            width, height = (float(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
        except (OSError, ElementTree.ParseError, ValueError) as error:
            raise DataError(str(path), f"not an annotation of VOC's form ({error})", "restore the file") from None
        unknown = sorted({name for name, _, _ in objects} - set(LABELS))
        if unknown:
            raise DataError(str(path), f"VOC has no class {shortened(unknown)}", "use data=table for other labels")
        target_K = np.full(len(LABELS), ABSENT, dtype=np.int8)
        for name, difficult, _ in objects:
            column = LABELS.index(name)
            if not difficult or self.difficult == "present":
                target_K[column] = PRESENT
            elif target_K[column] == ABSENT:
                target_K[column] = IGNORED
        shown = [(name, corners) for name, _, corners in objects if target_K[LABELS.index(name)] == PRESENT]
        return target_K, _boxes(shown, width, height)


Corners = tuple[float, float, float, float]
Object = tuple[str, bool, Corners]  # name, difficult, left top right bottom


def _object(node: ElementTree.Element) -> Object:
    left, top, right, bottom = (
        float(node.findtext(f"bndbox/{side}") or "") for side in ("xmin", "ymin", "xmax", "ymax")
    )
    return (
        (node.findtext("name") or "").strip(),
        node.findtext("difficult", "0").strip() == "1",
        (left, top, right, bottom),
    )


def _boxes(objects: list[tuple[str, Corners]], width: float, height: float) -> Boxes | None:
    if not objects or not width or not height:
        return None
    corners = np.array([corners for _, corners in objects])
    corners[:, :2] -= 1  # VOC counts pixels from 1, both ends included
    return Boxes(
        labels_N=np.array([LABELS.index(name) for name, _ in objects], dtype=np.int64),
        xyxy_N4=(corners / (width, height, width, height)).clip(0, 1).astype(np.float32),
    )


def _names(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(path), f"cannot be read ({error})", "restore the file") from None
