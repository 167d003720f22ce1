"""Data sets that are picture files and annotations: what COCO, VOC, NUS-WIDE and your own have in common.

A subclass reads annotations; here they meet the files, bad ones are refused or left out by name, and part of the
training split is held out for selection.
"""

# N samples, K labels

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.startup import cores
from tutelage.multilabel.data.images import BadImage, read_image
from tutelage.multilabel.data.source import Boxes, SkippedImage, SplitName
from tutelage.multilabel.data.splits import hold_out

OnBadImage = Literal["error", "skip"]


@dataclass(frozen=True, slots=True)
class SplitIndex:
    """A split as its annotations have it, before anybody has looked at the files.

    Attributes:
        ids: A unique name for each sample.
        files: Each sample's file, relative to the data set's root.
        targets_NK: int8, −1 ignored.
        boxes: Each sample's boxes, or None.
        origin: The annotation file or files, for messages.
    """

    ids: Sequence[str]
    files: Sequence[str]
    targets_NK: NDArray[np.int8]
    boxes: Sequence[Boxes | None]
    origin: str

    def take(self, indices: NDArray[np.int64]) -> "SplitIndex":
        """Keep some samples, in the order given."""
        return replace(
            self,
            ids=[self.ids[i] for i in indices],
            files=[self.files[i] for i in indices],
            targets_NK=self.targets_NK[indices],
            boxes=[self.boxes[i] for i in indices],
        )


@dataclass(frozen=True, slots=True)
class Annotations:
    """All that a subclass reads.

    Attributes:
        label_names: The K labels.
        splits: "train" and "test"; "val" too where the data set comes with one.
        digest: Hash of the annotation files' bytes.
        notes: What belongs beside the numbers, as JSON values.
    """

    label_names: tuple[str, ...]
    splits: Mapping[SplitName, SplitIndex]
    digest: str
    notes: Mapping[str, Any] = field(default_factory=dict)


class FileSplit:
    """A split whose pictures are files."""

    def __init__(self, entries: SplitIndex, *, root: Path, on_bad_image: OnBadImage) -> None:
        self.ids, self.targets_NK = entries.ids, entries.targets_NK
        self._index, self._root, self._on_bad_image = entries, root, on_bad_image

    def image(self, index: int) -> Tensor:
        """Decode one picture: uint8 [3, H, W].

        Raises:
            DataError: It cannot be read.
            SkippedImage: It cannot be read, and the user chose to skip such.
        """
        path = self._root / self._index.files[index]
        try:
            return read_image(path)
        except BadImage as bad:
            if self._on_bad_image == "skip":
                raise SkippedImage(f"{path}: {bad}") from None
            raise DataError(
                str(path),
                str(bad),
                "restore the file, or set data.on_bad_image=skip; data.verify=true finds all such before training",
            ) from None

    def boxes(self, index: int) -> Boxes | None:
        return self._index.boxes[index]


@dataclass(kw_only=True)
class FileSource(ABC):
    """A data set of picture files.

    Attributes:
        root: The folder that holds it.
        val_fraction: Share of the training split that is held out for selection.
        selection: "held-out", or "test": the field's habit of choosing the checkpoint on the test split. It makes
            the test score an optimistic one, and is marked in the results.
        split_seed: Which part is held out. Not the run's seed: runs of a sweep compare on the same split.
        on_bad_image: What to do about pictures that are missing or cannot be read, and about annotations of
            unknown pictures: stop, or leave them out, counted and named.
        verify: Decode every picture before anything else.
    """

    root: Path
    val_fraction: float = 0.1
    selection: Literal["held-out", "test"] = "held-out"
    split_seed: int = 0
    on_bad_image: OnBadImage = "error"
    verify: bool = False

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise DataError("data.root", f"there is no folder {self.root}", "point it at the data set's folder")
        if not 0 <= self.val_fraction < 1:
            raise ConfigError("data.val_fraction", f"{self.val_fraction}", "give a share from 0 up to below 1")
        annotations = self.read()
        self.label_names = annotations.label_names
        self._notes: dict[str, Any] = {"selection": self.selection, **annotations.notes}
        sizes = _file_sizes(self.root, annotations.splits.values())
        for entries in annotations.splits.values():
            _refuse_duplicates(entries)
        _refuse_overlap(annotations.splits)
        indexes = self._select(self._readable(annotations.splits, sizes))
        for name, entries in indexes.items():
            self._notes[name] = _describe(entries, self.label_names)
        self.fingerprint = _fingerprint(annotations.digest, indexes, sizes, self.label_names)
        self._splits = {
            name: FileSplit(entries, root=self.root, on_bad_image=self.on_bad_image)
            for name, entries in indexes.items()
        }

    @abstractmethod
    def read(self) -> Annotations:
        """Read the annotations.

        Raises:
            DataError: They are not where, or what, they should be.
        """

    @property
    def notes(self) -> Mapping[str, Any]:
        return self._notes

    def split(self, name: SplitName) -> FileSplit:
        return self._splits[name]

    def _readable(
        self, indexes: Mapping[SplitName, SplitIndex], sizes: Mapping[str, int]
    ) -> dict[SplitName, SplitIndex]:
        """Leave out, or refuse, samples whose file is missing, empty or, under `verify`, unreadable."""
        bad = {name: self._bad(entries, sizes) for name, entries in indexes.items()}
        named = {
            name: [f"{indexes[name].files[i]} ({why})" for i, why in sorted(reasons.items())]
            for name, reasons in bad.items()
            if reasons
        }
        if named and self.on_bad_image == "error":
            every = [entry for entries in named.values() for entry in entries]
            raise DataError(
                "data.root",
                f"{len(every)} of {sum(len(entries.ids) for entries in indexes.values())} pictures cannot be read in "
                f"{self.root}: {shortened(every)}",
                "restore them, or set data.on_bad_image=skip to leave them out",
            )
        self._notes["bad_images"] = {name: {"count": len(files), "files": files} for name, files in named.items()}
        return {
            name: entries.take(np.array([i for i in range(len(entries.ids)) if i not in bad[name]], dtype=np.int64))
            if bad[name]
            else entries
            for name, entries in indexes.items()
        }

    def _bad(self, entries: SplitIndex, sizes: Mapping[str, int]) -> dict[int, str]:
        bad = {
            i: "no such file" if file not in sizes else "the file is empty"
            for i, file in enumerate(entries.files)
            if not sizes.get(file)
        }
        if self.verify:
            bad |= self._unreadable([i for i in range(len(entries.files)) if i not in bad], entries)
        return bad

    def _unreadable(self, indices: Sequence[int], entries: SplitIndex) -> dict[int, str]:
        def reason(index: int) -> str | None:
            try:
                read_image(self.root / entries.files[index])
            except BadImage as bad:
                return str(bad)
            return None

        with ThreadPoolExecutor(cores()) as threads:
            return {i: why for i, why in zip(indices, threads.map(reason, indices), strict=True) if why is not None}

    def _select(self, indexes: dict[SplitName, SplitIndex]) -> dict[SplitName, SplitIndex]:
        """Add the "val" split."""
        for name, entries in indexes.items():
            if not entries.ids:
                raise DataError(entries.origin, f"no picture is left for {name}", "check data.root and the annotations")
        if self.selection == "test":
            return {**indexes, "val": indexes["test"]}
        if "val" in indexes:
            return indexes
        if self.val_fraction == 0:
            raise ConfigError(
                "data.val_fraction",
                "nothing is held out, so there is nothing to select the checkpoint on",
                "give a share such as 0.1, or data.selection=test for the field's habit",
            )
        train = indexes["train"]
        kept, held = hold_out(train.targets_NK, fraction=self.val_fraction, seed=self.split_seed)
        if not len(kept) or not len(held):
            raise ConfigError(
                "data.val_fraction",
                f"{self.val_fraction} of {len(train.ids)} pictures leaves a part without any",
                "give another share",
            )
        return {"train": train.take(kept), "val": train.take(held), "test": indexes["test"]}


def inside_root(name: str, *, folder: str = ".", origin: str) -> str:
    """Return a file's name, given relative to a folder of the root, relative to the root and in normal form.

    Raises:
        DataError: It leaves the root; annotations that are not yours could then read any file of the machine.
    """
    name = name.replace("\\", "/")
    whole = os.path.normpath(f"{folder}/{name}")
    if name.startswith("/") or whole.startswith("/") or whole.split("/")[0] == ".." or whole == ".":
        raise DataError(origin, f"the path {name!r} leaves data.root", "give paths relative to data.root, inside it")
    return whole


def shortened(names: Sequence[str], *, most: int = 5) -> str:
    """Join the first few names and say how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def digest(*contents: bytes) -> str:
    """Hash the bytes of annotation files."""
    whole = hashlib.sha256()
    for content in contents:
        whole.update(hashlib.sha256(content).digest())
    return whole.hexdigest()


def refuse_different_labels(first: Sequence[str], second: Sequence[str], *, origins: tuple[str, str]) -> None:
    """Refuse splits that do not name the same labels in the same order.

    Raises:
        DataError: With what is in one and not in the other.
    """
    if tuple(first) == tuple(second):
        return
    lacking, extra = sorted(set(first) - set(second)), sorted(set(second) - set(first))
    what = "; ".join(
        [f"only in {origins[0]}: {shortened(lacking)}"] * bool(lacking)
        + [f"only in {origins[1]}: {shortened(extra)}"] * bool(extra)
    )
    raise DataError(
        " and ".join(origins),
        f"their labels differ ({what or 'in order or number'})",
        "give every split the same labels",
    )


def _refuse_duplicates(entries: SplitIndex) -> None:
    for what, names in (("id", entries.ids), ("file", entries.files)):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise DataError(
                entries.origin,
                f"{len(twice)} {what}s occur more than once: {shortened(twice)}",
                "keep one entry of each",
            )


def _refuse_overlap(indexes: Mapping[SplitName, SplitIndex]) -> None:
    for one, other in combinations(indexes, 2):
        both = sorted(set(indexes[one].files) & set(indexes[other].files))
        if both:
            raise DataError(
                f"{indexes[one].origin} and {indexes[other].origin}",
                f"{len(both)} pictures are in both {one} and {other}: {shortened(both)}",
                "leave each picture in one split: a score on pictures that were trained on says nothing",
            )


def _file_sizes(root: Path, indexes: Iterable[SplitIndex]) -> dict[str, int]:
    """Size in bytes of every listed file that is there; folders are listed once, not asked file by file."""
    folders = {file.rpartition("/")[0] for entries in indexes for file in entries.files}
    sizes: dict[str, int] = {}
    for folder in sorted(folders):
        if (root / folder).is_dir():
            with os.scandir(root / folder) as entries:
                prefix = f"{folder}/" if folder else ""
                sizes |= {f"{prefix}{entry.name}": entry.stat().st_size for entry in entries if entry.is_file()}
    return sizes


def _describe(entries: SplitIndex, label_names: Sequence[str]) -> dict[str, Any]:
    positives_K = (entries.targets_NK == 1).sum(axis=0)
    return {
        "images": len(entries.ids),
        "unlabelled_images": int((~(entries.targets_NK == 1).any(axis=1)).sum()),
        "ignored_targets": int((entries.targets_NK == -1).sum()),
        "labels_without_positives": [n for n, count in zip(label_names, positives_K, strict=True) if count == 0],
    }


def _fingerprint(
    annotations: str, indexes: Mapping[SplitName, SplitIndex], sizes: Mapping[str, int], label_names: Sequence[str]
) -> str:
    """Hash labels, annotations, which file is in which split, its size and targets; not the pixels: that is cheap."""
    whole = hashlib.sha256(annotations.encode())
    whole.update("\n".join(label_names).encode())
    for name in sorted(indexes):
        entries = indexes[name]
        whole.update(f"\n{name}\n".encode())
        whole.update("\n".join(f"{file} {sizes[file]}" for file in entries.files).encode())
        whole.update(np.ascontiguousarray(entries.targets_NK).tobytes())
    return whole.hexdigest()[:16]
