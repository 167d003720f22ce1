"""What a prediction job leaves: a row a label, kept as it goes so that a kill costs one batch at most."""

# K labels, H W map, R resolution

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tutelage.core.errors import ConfigError
from tutelage.core.results import read_json, write_json
from tutelage.core.store import write_atomically

PREDICTIONS = "predictions.csv"
FAILED = "failed.csv"
SETTINGS = "predict.json"
COLUMNS = ("path", "label", "probability", "predicted")


@dataclass(frozen=True, slots=True)
class Row:
    """One label of one picture; ``predicted`` says whether its probability is above the label's threshold."""

    path: str
    label: str
    probability: float
    predicted: bool


def rows_of(
    path: Path, logits_K: NDArray[np.float32], *, labels: Sequence[str], thresholds_K: NDArray[np.float32], top: int
) -> list[Row]:
    """Return the rows of one picture, likeliest first: every predicted label, and at least the ``top`` likeliest."""
    probability_K = 1 / (1 + np.exp(-logits_K.astype(np.float64)))
    rows = []
    for rank, k in enumerate(np.argsort(-probability_K, kind="stable")):
        predicted = bool(probability_K[k] > thresholds_K[k])
        if predicted or rank < top:
            rows.append(Row(str(path), labels[k], float(probability_K[k]), predicted))
    return rows


class PredictionsFile:
    """``predictions.csv`` and ``failed.csv``, appended to and safe on disk after each batch."""

    def __init__(self, folder: Path, *, settings: dict[str, str | float | None]) -> None:
        """Open the folder, or continue what a killed job left there.

        Args:
            folder: Made where it is missing.
            settings: Everything that rows depend on, such as the network's fingerprint.

        Raises:
            ConfigError: The folder holds predictions made with other settings, or cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            kept = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else None
            if kept is not None and kept != settings:
                changed = ", ".join(key for key in settings if kept.get(key) != settings[key])
                raise ConfigError("out", f"{folder} holds predictions with another {changed}", "give another folder")
            write_json(folder / SETTINGS, settings)
        except OSError as error:
            raise ConfigError("out", f"cannot write into {folder} ({error.strerror})", "give another folder") from None
        self.path = folder / PREDICTIONS
        self.done = self._continue()
        self._failed = _append(folder / FAILED, header=("path", "reason"), anew=True)  # they are tried again
        self._rows = _append(self.path, header=COLUMNS, anew=False)

    def __enter__(self) -> "PredictionsFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._rows.close()
        self._failed.close()

    def write(self, rows: Iterable[Row], failed: Iterable[tuple[str, str]]) -> None:
        """Append one batch and wait until it is on disk."""
        lines = ((row.path, row.label, f"{row.probability:.6f}", int(row.predicted)) for row in rows)
        csv.writer(self._rows).writerows(lines)
        csv.writer(self._failed).writerows(failed)
        for file in (self._rows, self._failed):
            file.flush()
            os.fsync(file.fileno())

    def _continue(self) -> set[str]:
        """Drop the last picture of an earlier job, whose rows may be cut off, and return the paths before it."""
        if not self.path.is_file():
            return set()
        text = self.path.read_bytes().decode("utf-8", errors="ignore")  # a kill may have cut a character
        lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))[1:]
        if not lines:
            self.path.unlink()
            return set()
        whole = [line for line in lines if line[0] != lines[-1][0]]
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([COLUMNS, *whole])
        write_atomically(self.path, buffer.getvalue())
        return {line[0] for line in whole}


def _append(path: Path, *, header: Sequence[str], anew: bool) -> io.TextIOWrapper:
    new = anew or not path.is_file()
    # A file's name need not be text; then it is in failed.csv, with its odd bytes written out.
    file = path.open("w" if anew else "a", newline="", encoding="utf-8", errors="backslashreplace")
    if new:
        csv.writer(file).writerow(header)
    return file


def read_rows(path: Path) -> list[Row]:
    """Read ``predictions.csv``."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(line["path"], line["label"], float(line["probability"]), line["predicted"] == "1")
            for line in csv.DictReader(file)
        ]


def map_path(out: Path, path: str, label: str) -> Path:
    """Where the map of a label over a picture is kept: the picture's own path below ``cams/``."""
    place = Path(*(part for part in Path(path).parts if part not in ("/", "..", "\\")))
    safe = "".join(letter if letter.isalnum() or letter in "-_ " else "_" for letter in label)
    return out / "cams" / place.with_name(f"{place.name}.{safe}.jpg")


def write_maps(
    out: Path, image_RR3: NDArray[np.uint8], cams: Mapping[str, NDArray[np.float32]], rows: Iterable[Row]
) -> None:
    """Write the map of each predicted label over its picture.

    Args:
        out: The folder of the predictions.
        image_RR3: uint8 [R, R, 3].
        cams: By label, each [H, W].
        rows: The picture's.
    """
    for row in rows:
        if row.predicted:
            path = map_path(out, row.path, row.label)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(overlay(image_RR3, cams[row.label])).save(path, quality=85)


def overlay(image_RR3: NDArray[np.uint8], cam_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Lay the positive part of a map over its picture, scaled to its own maximum.

    Returns:
        uint8 [R, R, 3]: grey where the map is not above zero, from dark red to yellow where it is.
    """
    import matplotlib

    positive = np.maximum(cam_HW, 0)
    heat = np.asarray(
        Image.fromarray(positive / max(float(positive.max()), 1e-6)).resize(
            (image_RR3.shape[1], image_RR3.shape[0]), Image.Resampling.BILINEAR
        )
    )[..., None]
    grey = image_RR3.mean(-1, keepdims=True) / 255
    colour = matplotlib.colormaps["inferno"](heat[..., 0])[..., :3]
    return np.asarray(((1 - 0.75 * heat) * grey + 0.75 * heat * colour) * 255, np.uint8)
