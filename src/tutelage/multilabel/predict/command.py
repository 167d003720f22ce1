"""``python predict.py``: a folder of pictures in, labels with probabilities out."""

# B batch, K labels, H W map

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tutelage.core import results
from tutelage.core.arguments import split_names
from tutelage.core.errors import ConfigError
from tutelage.multilabel.predict.classifiers import Classifier, OnnxClassifier, RunClassifier
from tutelage.multilabel.predict.output import (
    FAILED,
    PREDICTIONS,
    PredictionsFile,
    Row,
    read_rows,
    rows_of,
    write_maps,
)
from tutelage.multilabel.predict.pictures import Pixels, Unreadable, find_pictures, read_ahead
from tutelage.multilabel.predict.sheet import write_sheet

USAGE = "python predict.py run=runs/… images=photos out=labels"
SAY_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictSettings:
    """The command line.

    Attributes:
        images: A folder, a glob or one file.
        out: Where the files go; a killed job continues there.
        run: The folder of a finished run of task=multilabel.
        onnx: Instead of a run, an exported ONNX file; it needs no torch, and has no maps.
        cams: Write the map of each predicted label over its picture.
        top: A picture's likeliest labels that are listed even where they are below their thresholds.
        threshold: One threshold for all labels; null for those that were tuned on the run's selection split.
        batch: Pictures that the network sees at once.
        sheet: Pictures on the contact sheet.
        device: auto, cpu or cuda.
        trust: Packages, with commas between them, whose classes the run's config may name.
    """

    images: str
    out: Path
    run: Path | None = None
    onnx: Path | None = None
    cams: bool = False
    top: int = 3
    threshold: float | None = None
    batch: int = 32
    sheet: int = 100
    device: str = "auto"
    trust: str = ""

    def __post_init__(self) -> None:
        if (self.run is None) == (self.onnx is None):
            raise ConfigError("run", "give a run or an exported network, one of them", f"{USAGE}, or onnx=….onnx")
        if self.onnx is not None and self.cams:
            raise ConfigError("cams", "an exported network has no maps", "use cams=true with run=…")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ConfigError("threshold", f"{self.threshold}", "give a probability between 0 and 1")
        if self.batch < 1 or self.top < 0:
            raise ConfigError("batch" if self.batch < 1 else "top", "too small", "batch=1 and top=0 are the least")


def predict(settings: PredictSettings) -> None:
    """Classify pictures into ``predictions.csv``, and show them on a contact sheet.

    A picture that cannot be read is counted, named in ``failed.csv``, and ends nothing.

    Raises:
        ConfigError: No such run or network, or a folder that holds other predictions.
        DataError: No picture.
    """
    paths = find_pictures(settings.images)
    classifier = _open(settings)
    thresholds_K = (
        classifier.thresholds_K
        if settings.threshold is None
        else np.full(len(classifier.labels), settings.threshold, np.float32)
    )
    kept: dict[str, str | float | None] = {
        "network": classifier.fingerprint,
        "top": settings.top,
        "threshold": settings.threshold,
        "cams": str(settings.cams),
    }
    failed: list[tuple[str, str]] = []
    console = Console()
    with PredictionsFile(settings.out, settings=kept) as file, _progress(console) as progress:
        left = [path for path in paths if str(path) not in file.done]
        if file.done:
            console.print(f"continuing: {len(paths) - len(left)} of {len(paths)} pictures are done", markup=False)
        bar = progress.add_task("pictures", total=len(left))
        started = said = time.monotonic()
        seen = 0
        for batch, bad in _batches(left, classifier, size=settings.batch):
            file.write(_classify(batch, classifier, thresholds_K=thresholds_K, settings=settings), bad)
            failed += bad
            seen += len(batch) + len(bad)
            progress.update(bar, completed=seen)
            if not console.is_terminal and time.monotonic() - said > SAY_EVERY_S:
                said = time.monotonic()
                console.print(f"{seen} of {len(left)} pictures, {seen / (said - started):.0f} a second")
        seconds = time.monotonic() - started
    rows = read_rows(settings.out / PREDICTIONS)
    write_sheet(settings.out, rows, classifier.read, num_pictures=settings.sheet, cams=settings.cams)
    _print_summary(settings, rows, failed=failed, seen=seen, seconds=seconds)


def _classify(
    batch: list[tuple[Path, Pixels]],
    classifier: Classifier,
    *,
    thresholds_K: NDArray[np.float32],
    settings: PredictSettings,
) -> list[Row]:
    """Return the rows of a batch. Its maps are written first, since the rows say that a picture is done."""
    if not batch:
        return []
    looked = classifier.look([pixels for _, pixels in batch], cams=settings.cams)
    rows: list[Row] = []
    for b, (path, pixels) in enumerate(batch):
        found = rows_of(
            path, looked.logits_BK[b], labels=classifier.labels, thresholds_K=thresholds_K, top=settings.top
        )
        if looked.cams_BKHW is not None:
            maps = {label: looked.cams_BKHW[b, k] for k, label in enumerate(classifier.labels)}
            write_maps(settings.out, pixels, maps, found)
        rows += found
    return rows


def _open(settings: PredictSettings) -> Classifier:
    if settings.onnx is not None:
        return OnnxClassifier(settings.onnx)
    assert settings.run is not None
    return RunClassifier(settings.run, device=settings.device, trusted=split_names(settings.trust))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _batches(
    paths: list[Path], classifier: Classifier, *, size: int
) -> Iterator[tuple[list[tuple[Path, Pixels]], list[tuple[str, str]]]]:
    """Put pictures that can be read into batches; with each go those that could not."""
    named = (path for path in paths if _is_text(str(path)))
    odd = [(str(path), "its name is no text in one line") for path in paths if not _is_text(str(path))]
    reading = read_ahead(named, classifier.read, ahead=2 * size, threads=_cores())
    while block := list(islice(reading, size)):
        good: list[tuple[Path, Pixels]] = []
        bad: list[tuple[str, str]] = []
        for path, pixels in block:
            if isinstance(pixels, Unreadable):
                bad.append((str(path), str(pixels)))
            else:
                good.append((path, pixels))
        yield good, bad
    if odd:
        yield [], odd


def _is_text(name: str) -> bool:
    return name.isprintable() and name.encode("utf-8", errors="replace").decode("utf-8") == name


def _print_summary(
    settings: PredictSettings, rows: list[Row], *, failed: list[tuple[str, str]], seen: int, seconds: float
) -> None:
    pictures = len({row.path for row in rows})
    counts: dict[str, int] = {}
    for row in rows:
        if row.predicted:
            counts[row.label] = counts.get(row.label, 0) + 1
    most = sorted(counts.items(), key=lambda item: -item[1])[:20]
    speed = f", {seen / seconds:.0f} a second" if seen else ""
    results.print_table(
        f"{pictures} pictures{speed}",
        ["label", "pictures"],
        [[label, str(count)] for label, count in most],
        caption=f"{settings.out / PREDICTIONS}, {settings.out / 'index.html'}",
    )
    if failed:
        shown = "\n".join(f"  {path}: {reason}" for path, reason in failed[:5])
        more = f"\n  … all of them in {settings.out / FAILED}" if len(failed) > 5 else ""
        Console(stderr=True).print(f"{len(failed)} files could not be read:\n{shown}{more}", markup=False)
