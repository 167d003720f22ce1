"""Small data sets in the true layouts."""

from pathlib import Path

import pytest
from trees import coco_file, draw, write_coco


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    """COCO in its 2014 layout: ten training images, three test images of which one is unlabelled."""
    train = coco_file(
        [(i, f"COCO_train2014_{i}.jpg") for i in range(10)],
        [(i, (3, 18)[i % 2], [4, 3, 20, 15]) for i in range(10)] + [(0, 90, None), (5, 90, None)],
    )
    test = coco_file(
        [(i, f"COCO_val2014_{i}.jpg") for i in (100, 101, 102)],
        [(100, 3, [0, 0, 40, 30]), (100, 18, [10, 6, 0, 5]), (100, 3, None), (102, 18, [20, 15, 10, 15])],
    )
    write_coco(tmp_path, train=train, test=test)
    return tmp_path


@pytest.fixture
def table_root(tmp_path: Path) -> Path:
    """Twenty pictures in train.csv, with a column of labels."""
    names = [f"pictures/{i:02}.png" for i in range(20)]
    for name in names:
        draw(tmp_path / name)
    labels = ["cat|dog", "dog", "cat", "", "bird | dog"]
    rows = [f"{name},{labels[i % 5]}" for i, name in enumerate(names)]
    (tmp_path / "train.csv").write_text("\n".join(["path,labels", *rows]))
    return tmp_path
