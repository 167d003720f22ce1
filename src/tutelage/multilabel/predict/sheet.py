"""The contact sheet: one page with pictures, their labels and, where they were drawn, the maps."""

import base64
import io
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tutelage.core.store import write_atomically
from tutelage.core.templates import render_page
from tutelage.multilabel.predict.output import Row, map_path
from tutelage.multilabel.predict.pictures import Reader, Unreadable

SHEET = "index.html"
SIDE = 160  # of a picture on the sheet, in pixels


def write_sheet(out: Path, rows: list[Row], read: Reader, *, num_pictures: int, cams: bool) -> None:
    """Write ``index.html``, which needs no other file.

    Args:
        out: The folder of the predictions; maps are found there.
        rows: The predictions, rows of one picture beside each other.
        read: How a picture is read.
        num_pictures: Pictures on the page, the first ones.
        cams: Show the map of each predicted label.
    """
    groups = [(path, list(of_path)) for path, of_path in groupby(rows, key=lambda row: row.path)]
    pictures: list[dict[str, Any]] = []
    for path, of_path in groups[:num_pictures]:
        try:
            uri = _jpeg(Image.fromarray(read(Path(path))))
        except Unreadable:  # it was there, and is not any more
            uri = ""
        maps = []
        for row in of_path:
            kept = map_path(out, path, row.label)
            if cams and row.predicted and kept.is_file():
                maps.append({"label": row.label, "uri": _jpeg(Image.open(kept))})
        pictures.append({"name": path, "uri": uri, "rows": of_path, "maps": maps})
    page = render_page(
        "tutelage.multilabel.predict",
        "sheet.html.jinja",
        pictures=pictures,
        total=len(groups),
        side=SIDE,
        predicted=int(np.sum([row.predicted for row in rows])),
    )
    write_atomically(out / SHEET, page)


def _jpeg(image: Image.Image) -> str:
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
