"""The pictures that a classifier is to look at: found, read, and resized as in training. Imports no torch."""

# H W pixels, R resolution

import glob
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tutelage.core.errors import DataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
Pixels = NDArray[np.uint8]
Reader = Callable[[Path], Pixels]


class Unreadable(Exception):
    """A file that cannot be shown to a network; the message says why."""


def find_pictures(where: str) -> list[Path]:
    """List pictures, sorted by path.

    Args:
        where: A folder, which is searched with all folders below it, a glob (``photos/**/*.jpg``), or one file.
            In a folder only files with the suffix of a picture count.

    Raises:
        DataError: There is none.
    """
    place = Path(where)
    if place.is_dir():
        found = [path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
        kinds = ", ".join(sorted(SUFFIXES))
        what = f"no picture below {where} (looked for {kinds})"
    else:
        matches = glob.glob(where, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        found = [Path(path) for path in matches if Path(path).is_file()]
        what = f"{where} is no folder, and no file matches it"
    if not found:
        raise DataError("images", what, "give a folder of pictures or a glob in quotes, such as 'photos/**/*.jpg'")
    return sorted(found)


def read_with_pil(path: Path, *, resolution: int) -> Pixels:
    """Read one picture upright, as RGB, resized to a square.

    Returns:
        uint8 [R, R, 3].

    Raises:
        Unreadable: No picture, cut off, or too large to be one.
    """
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            return np.asarray(upright.convert("RGB").resize((resolution, resolution), Image.Resampling.BILINEAR))
    # What PIL raises on broken files depends on their format.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unreadable(str(error) or type(error).__name__) from None


def read_ahead(
    paths: Iterable[Path], read: Reader, *, ahead: int, threads: int
) -> Iterator[tuple[Path, Pixels | Unreadable]]:
    """Read pictures in threads, in order, at most ``ahead`` of them before they are asked for.

    Yields:
        Each path with its pixels, or with the reason why there are none.
    """

    def attempt(path: Path) -> Pixels | Unreadable:
        try:
            return read(path)
        except Unreadable as error:
            return error

    waiting: deque[tuple[Path, Future[Any]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for path in paths:
            waiting.append((path, pool.submit(attempt, path)))
            if len(waiting) > ahead:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
