"""Your own pictures: a CSV, or a file in COCO's format."""

# N images, K labels

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tutelage.core.errors import ConfigError, DataError
from tutelage.multilabel.data.coco import CocoFile, leave_out_unused
from tutelage.multilabel.data.files import (
    Annotations,
    FileSource,
    SplitIndex,
    digest,
    inside_root,
    refuse_different_labels,
)
from tutelage.multilabel.data.source import Boxes, SplitName
from tutelage.multilabel.data.splits import hold_out

ROBOFLOW = "_annotations.coco.json"
ROBOFLOW_FOLDERS: dict[SplitName, str] = {"train": "train", "val": "valid", "test": "test"}


@dataclass(kw_only=True)
class Table(FileSource):
    """Pictures listed in files of your own, one file a split.

    A file is a CSV with a column ``path``, and either a column ``labels`` with ``|`` between labels (further columns
    are of no account) or one column a label that holds 1, 0 or −1 (unknown: ignored); or it is a ``.json`` in COCO's
    format.

    Attributes:
        train: The training file, relative to `root`. None takes ``train.csv``, or, in a folder as Roboflow exports it
            (``train/_annotations.coco.json``, ``valid/``, ``test/``), its files for all three splits.
        val: A file for selection; None holds `val_fraction` of the training file out.
        test: A file for the final score; None holds `test_fraction` of the training file out.
        test_fraction: Used where there is no test file.
        images: The folder, relative to `root`, that the paths in the files start from. None takes `root` for a CSV;
            for a json the folder that it lies in where the pictures are there, else `root`.
        labels: The labels and their order; None takes those of the training file.
    """

    train: str | None = None
    val: str | None = None
    test: str | None = None
    test_fraction: float = 0.2
    images: str | None = None
    labels: tuple[str, ...] | None = None

    def read(self) -> Annotations:
        names = self._names()
        files = self._files(names)
        unused = leave_out_unused(
            (file for file in files.values() if isinstance(file, CocoFile)),
            other_labels=[
                *(file.label_names for file in files.values() if isinstance(file, _Csv)),
                *([self.labels] if self.labels else []),
            ],
        )
        label_names = self.labels or files["train"].label_names
        for split, file in files.items():
            # A column of labels need not use each of them in every split; columns and categories must agree.
            partial = isinstance(file, _Csv) and file.names_only_what_occurs
            expected = set(file.label_names) & set(label_names) if partial else set(label_names)
            refuse_different_labels(
                sorted(expected),
                sorted(file.label_names),
                origins=("data.labels" if self.labels else names["train"], names[split]),
            )
        indexes = {
            split: _in_order(self._index(file, names[split]), file.label_names, label_names)
            for split, file in files.items()
        }
        protocol = ", ".join(f"{split} is {name}" for split, name in names.items())
        if "test" not in names:
            indexes |= self._hold_out_test(indexes["train"])
            protocol += f"; test is a stratified {self.test_fraction:.0%} of {names['train']}"
        return Annotations(
            label_names=label_names,
            splits=indexes,
            digest=digest(*(file.digest.encode() for file in files.values())),
            notes={"protocol": protocol, "unused_categories": list(unused)},
        )

    def _names(self) -> dict[SplitName, str]:
        """Return the file of each split, relative to `root`."""
        given: dict[SplitName, str | None] = {"train": self.train, "val": self.val, "test": self.test}
        if self.train is None:
            found: dict[SplitName, str | None] = {
                split: f"{folder}/{ROBOFLOW}" if (self.root / folder / ROBOFLOW).is_file() else None
                for split, folder in ROBOFLOW_FOLDERS.items()
            }
            is_csv = (self.root / "train.csv").is_file() or found["train"] is None
            given = {**given, "train": "train.csv"} if is_csv else {s: given[s] or found[s] for s in found}
        return {split: name for split, name in given.items() if name is not None}

    def _files(self, names: Mapping[SplitName, str]) -> "dict[SplitName, _Csv | CocoFile]":
        paths = {split: self.root / inside_root(name, origin="data") for split, name in names.items()}
        for path in paths.values():
            if not path.is_file():
                raise DataError("data.root", f"no file {path}", "give its name relative to data.root, as data.train=…")
        return {
            split: CocoFile(path) if path.suffix == ".json" else _read_csv(path, folder=self.images or ".")
            for split, path in paths.items()
        }

    def _index(self, file: "_Csv | CocoFile", name: str) -> SplitIndex:
        if isinstance(file, _Csv):
            return file.own
        folder = self.images
        if folder is None:
            beside = name.rpartition("/")[0] or "."
            there = any((self.root / beside / picture).is_file() for picture in file.file_names[:100])
            folder = beside if there else "."
        return file.split_index(folder=folder, on_bad_image=self.on_bad_image)

    def _hold_out_test(self, split_index: SplitIndex) -> dict[SplitName, SplitIndex]:
        if not 0 < self.test_fraction < 1:
            raise ConfigError(
                "data.test_fraction", f"{self.test_fraction}", "give a share between 0 and 1, or a file: data.test=…"
            )
        kept, held = hold_out(split_index.targets_NK, fraction=self.test_fraction, seed=self.split_seed)
        return {"train": split_index.take(kept), "test": split_index.take(held)}


@dataclass(frozen=True, slots=True)
class _Csv:
    """A CSV as it stands, its targets in its own order of labels."""

    label_names: tuple[str, ...]
    own: SplitIndex
    digest: str
    names_only_what_occurs: bool


def _in_order(own: SplitIndex, its_names: Sequence[str], label_names: Sequence[str]) -> SplitIndex:
    """Bring targets and boxes into an order of labels that holds all of theirs."""
    position = np.array([label_names.index(name) for name in its_names], dtype=np.int64)
    targets_NK = np.zeros((len(own.ids), len(label_names)), dtype=np.int8)
    targets_NK[:, position] = own.targets_NK
    boxes = [b if b is None else Boxes(position[b.labels_N], b.xyxy_N4) for b in own.boxes]
    return replace(own, targets_NK=targets_NK, boxes=boxes)


def _read_csv(path: Path, *, folder: str) -> _Csv:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")  # spreadsheets put a byte-order mark before the header
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(str(path), f"not a CSV in UTF-8 ({error})", "save it as one") from None
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise DataError(str(path), "no row after the header" if rows else "the file is empty", "add a row a picture")
    header, *rows = rows
    header = [name.strip() for name in header]
    if "path" not in header or len(header) < 2 or len(set(header)) != len(header):
        raise DataError(
            str(path),
            f"its first line is {','.join(header)!r}",
            "name the columns path,labels, or path and one column a label, each once",
        )
    for line, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise DataError(f"{path}, row {line}", f"{len(row)} columns where the header has {len(header)}", "fix it")
    paths = [row[header.index("path")].strip() for row in rows]
    listed = "labels" in header
    if listed:
        label_names, targets_NK = _listed([row[header.index("labels")] for row in rows])
    else:
        columns = [column for column, name in enumerate(header) if name != "path"]
        label_names = tuple(header[column] for column in columns)
        targets_NK = np.array(
            [
                [_target(row[column], header[column], f"{path}, row {line}") for column in columns]
                for line, row in enumerate(rows, 2)
            ],
            dtype=np.int8,
        )
    if not label_names:
        raise DataError(str(path), "no picture has a label", "put labels into the column labels, with | between them")
    own = SplitIndex(
        ids=paths,
        files=[inside_root(name, folder=folder, origin=f"{path}, row {line}") for line, name in enumerate(paths, 2)],
        targets_NK=targets_NK,
        boxes=[None] * len(rows),
        origin=str(path),
    )
    return _Csv(label_names, own, digest(content), names_only_what_occurs=listed)


def _listed(cells: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray[tuple[int, int], np.dtype[np.int8]]]:
    """Turn cells such as ``cat|dog`` into sorted label names and targets."""
    labels = [[label.strip() for label in cell.split("|") if label.strip()] for cell in cells]
    label_names = tuple(sorted({label for row in labels for label in row}))
    column = {name: k for k, name in enumerate(label_names)}
    targets_NK = np.zeros((len(cells), len(label_names)), dtype=np.int8)
    for n, row in enumerate(labels):
        targets_NK[n, [column[label] for label in row]] = 1
    return label_names, targets_NK


def _target(cell: str, label: str, where: str) -> int:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if value not in (1, 0, -1):
        raise DataError(where, f"{cell!r} in column {label!r}", "write 1 (present), 0 (absent) or -1 (unknown)")
    return int(value)
