"""NUS-WIDE with its 81 concepts."""

# N images, K = 81 concepts

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.core.errors import DataError
from tutelage.multilabel.data.files import Annotations, FileSource, SplitIndex, digest, inside_root, shortened


@dataclass(kw_only=True)
class NusWide(FileSource):
    """NUS-WIDE (CIVR 2009): its train and test split; no boxes.

    Many of its Flickr pictures are gone from the web: with ``data.on_bad_image=skip`` those that are not there are
    left out, counted and named.

    Attributes:
        unlabelled: Whether pictures of none of the 81 concepts, about a fifth of all, stay as in the official lists, or
            are dropped as in some published work. The two give different numbers; `notes` say which it was.
    """

    unlabelled: Literal["keep", "drop"] = "keep"

    def read(self) -> Annotations:
        contents: list[bytes] = []
        concepts = self._lines(self._find("Concepts81.txt", "ConceptsList/Concepts81.txt"), contents)
        train = self._index("Train", concepts, contents)
        test = self._index("Test", concepts, contents)
        return Annotations(
            label_names=tuple(concepts),
            splits={"train": train, "test": test},
            digest=digest(*contents),
            notes={"protocol": f"NUS-WIDE, official train and test split, unlabelled images: {self.unlabelled}"},
        )

    def _index(self, split: Literal["Train", "Test"], concepts: list[str], contents: list[bytes]) -> SplitIndex:
        path = self._find(f"ImageList/{split}Imagelist.txt")
        files = [inside_root(line, folder="Flickr", origin=str(path)) for line in self._lines(path, contents)]
        labels = self._find("TrainTestLabels", "Groundtruth/TrainTestLabels")
        columns = [self._column(labels / f"Labels_{name}_{split}.txt", len(files), contents) for name in concepts]
        split_index = SplitIndex(
            ids=files,
            files=files,
            targets_NK=np.stack(columns, axis=1),
            boxes=[None] * len(files),
            origin=str(path),
        )
        if self.unlabelled == "drop":
            return split_index.take(np.flatnonzero(split_index.targets_NK.any(axis=1)))
        return split_index

    def _column(self, path: Path, count: int, contents: list[bytes]) -> NDArray[np.int8]:
        lines = self._lines(path, contents)
        if len(lines) != count:
            raise DataError(
                str(path), f"{len(lines)} lines for the {count} pictures of the image list", "restore the file"
            )
        other = sorted(set(lines) - {"0", "1"})
        if other:
            raise DataError(str(path), f"lines that are neither 0 nor 1: {shortened(other)}", "restore the file")
        return np.array(lines, dtype=np.int8)

    def _find(self, *places: str) -> Path:
        for place in places:
            if (self.root / place).exists():
                return self.root / place
        raise DataError(
            "data.root",
            f"no {' or '.join(places)} in {self.root}",
            "point data.root at the folder that holds Flickr/, ImageList/, ConceptsList/Concepts81.txt and "
            "TrainTestLabels/",
        )

    def _lines(self, path: Path, contents: list[bytes]) -> list[str]:
        try:
            contents.append(path.read_bytes())
            return [line.strip() for line in contents[-1].decode("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(str(path), f"cannot be read ({error})", "restore the file") from None
