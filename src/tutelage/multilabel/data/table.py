"""Your own pictures: a CSV, or a file in COCO's format."""

# N images, K labels

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tutelage.core.errors import ConfigError, DataError
from tutelage.multilabel.data.coco import CocoFile
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


@dataclass(kw_only=True)
class Table(FileSource):
    """Pictures listed in files of your own, one file a split.

    A file is a CSV with a column ``path``, and either a column ``labels`` with ``|`` between labels (further columns
    are of no account) or one column a label that holds 1, 0 or −1 (unknown: ignored); or it is a ``.json`` in COCO's
    format.

    Attributes:
        train: The training file, relative to `root`.
        val: A file for selection; None holds `val_fraction` of the training file out.
        test: A file for the final score; None holds `test_fraction` of the training file out.
        test_fraction: Used where there is no test file.
        images: The folder, relative to `root`, that the paths in the files start from.
        labels: The labels and their order; None takes those of the training file.
    """

    train: str = "train.csv"
    val: str | None = None
    test: str | None = None
    test_fraction: float = 0.2
    images: str = "."
    labels: tuple[str, ...] | None = None

    def read(self) -> Annotations:
        names: dict[SplitName, str] = {"train": self.train}
        names |= {"val": self.val} if self.val is not None else {}
        names |= {"test": self.test} if self.test is not None else {}
        files = {split: self._file(name) for split, name in names.items()}
        label_names = self.labels or files["train"].label_names
        for split, file in files.items():
            # A column of labels need not use each of them in every split; columns and categories must agree.
            expected = set(file.label_names) & set(label_names) if file.names_only_what_occurs else set(label_names)
            refuse_different_labels(
                sorted(expected),
                sorted(file.label_names),
                origins=("data.labels" if self.labels else self.train, names[split]),
            )
        indexes = {split: file.split_index(label_names) for split, file in files.items()}
        protocol = ", ".join(f"{split} is {name}" for split, name in names.items())
        if self.test is None:
            indexes |= self._hold_out_test(indexes["train"])
            protocol += f"; test is a stratified {self.test_fraction:.0%} of {self.train}"
        return Annotations(
            label_names=label_names,
            splits=indexes,
            digest=digest(*(file.digest.encode() for file in files.values())),
            notes={"protocol": protocol},
        )

    def _file(self, name: str) -> "_File":
        path = self.root / inside_root(name, origin="data")
        if not path.is_file():
            raise DataError("data.root", f"no file {path}", "give its name relative to data.root, as data.train=…")
        if path.suffix != ".json":
            return _read_csv(path, folder=self.images)
        file = CocoFile(path)
        split_index = file.split_index(folder=self.images, on_bad_image=self.on_bad_image)
        return _File(file.label_names, split_index, file.digest, names_only_what_occurs=False)

    def _hold_out_test(self, split_index: SplitIndex) -> dict[SplitName, SplitIndex]:
        if not 0 < self.test_fraction < 1:
            raise ConfigError(
                "data.test_fraction", f"{self.test_fraction}", "give a share between 0 and 1, or a file: data.test=…"
            )
        kept, held = hold_out(split_index.targets_NK, fraction=self.test_fraction, seed=self.split_seed)
        return {"train": split_index.take(kept), "test": split_index.take(held)}


@dataclass(frozen=True, slots=True)
class _File:
    """One file as it stands, its targets in its own order of labels."""

    label_names: tuple[str, ...]
    own: SplitIndex
    digest: str
    names_only_what_occurs: bool

    def split_index(self, label_names: Sequence[str]) -> SplitIndex:
        """Bring the targets into an order of labels that holds all of the file's."""
        position = np.array([label_names.index(name) for name in self.label_names], dtype=np.int64)
        targets_NK = np.zeros((len(self.own.ids), len(label_names)), dtype=np.int8)
        targets_NK[:, position] = self.own.targets_NK
        boxes = [b if b is None else Boxes(position[b.labels_N], b.xyxy_N4) for b in self.own.boxes]
        return replace(self.own, targets_NK=targets_NK, boxes=boxes)


def _read_csv(path: Path, *, folder: str) -> _File:
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
            raise DataError(f"{path}, row {line}", f"{len(row)} columns where the header has {len(header)}", "mend it")
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
    return _File(label_names, own, digest(content), names_only_what_occurs=listed)


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
