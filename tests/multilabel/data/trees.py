"""Small data sets in the true layouts, built from drawn pictures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def draw(path: Path, *, width: int = 40, height: int = 30) -> None:
    """Write a picture of coloured blocks that depends on its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(list(path.stem.encode())).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(path)


def coco_file(images: Sequence[tuple[int, str]], annotations: Sequence[tuple[int, int, Any]]) -> dict[str, Any]:
    """Make the content of an annotation file: images as (id, name), annotations as (image, category, box)."""
    return {
        "images": [{"id": i, "file_name": name, "width": 40, "height": 30} for i, name in images],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, **({"bbox": box} if box else {})}
            for n, (i, c, box) in enumerate(annotations)
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 90, "name": "toothbrush"}],
    }


def write_coco(root: Path, *, train: Mapping[str, Any], test: Mapping[str, Any], year: int = 2014) -> None:
    """Write the files, and a picture for each image, in a layout of COCO."""
    (root / "annotations").mkdir(exist_ok=True)
    for split, content in (("train", train), ("val", test)):
        (root / "annotations" / f"instances_{split}{year}.json").write_text(json.dumps(content))
        for image in content["images"]:
            draw(root / f"{split}{year}" / image["file_name"])
