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


Object = tuple[str, int, tuple[int, int, int, int]]
WHOLE = (1, 1, 40, 30)


def annotation(objects: Sequence[Object], *, width: int = 40, height: int = 30) -> str:
    written = "".join(
        f"<object><name>{name}</name><pose>Left</pose><difficult>{difficult}</difficult><bndbox>"
        f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"
        # VOC's person layout: parts are objects inside objects, and no classes.
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
        "</object>"
        for name, difficult, (x1, y1, x2, y2) in objects
    )
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{written}</annotation>"


def write_voc(root: Path, year: int, lists: dict[str, dict[str, Sequence[Object]]]) -> Path:
    """Write a VOCdevkit whose lists hold pictures, each with its objects."""
    folder = root / "VOCdevkit" / f"VOC{year}"
    for inside in ("ImageSets/Main", "Annotations"):
        (folder / inside).mkdir(parents=True)
    for name, pictures in lists.items():
        (folder / f"ImageSets/Main/{name}.txt").write_text("".join(f"{picture}\n" for picture in pictures))
        for picture, objects in pictures.items():
            draw(folder / f"JPEGImages/{picture}.jpg")
            (folder / f"Annotations/{picture}.xml").write_text(annotation(objects))
    return folder


CONCEPTS = [f"concept{k:02}" for k in range(81)]


def write_nus(root: Path) -> None:
    """The official layout: backslashes in the lists, one file of labels a concept and split."""
    (root / "ConceptsList").mkdir()
    (root / "ConceptsList/Concepts81.txt").write_text("\n".join(CONCEPTS) + "\n")
    for folder in ("ImageList", "TrainTestLabels"):
        (root / folder).mkdir()
    for split, count in (("Train", 12), ("Test", 4)):
        names = [f"actor/{i:04}_{split}.jpg" for i in range(count)]
        (root / f"ImageList/{split}Imagelist.txt").write_text(
            "".join(name.replace("/", "\\") + "\r\n" for name in names)
        )
        for name in names:
            draw(root / "Flickr" / name)
        for k, concept in enumerate(CONCEPTS):
            column = "".join(f"{int(n % 4 != 3 and (n + k) % 3 == 0)}\n" for n in range(count))
            (root / f"TrainTestLabels/Labels_{concept}_{split}.txt").write_text(column)
