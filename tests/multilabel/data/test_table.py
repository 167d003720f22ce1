import json
import shutil
from pathlib import Path

import pytest
from trees import coco_file, draw

from tutelage.core.errors import ConfigError, DataError
from tutelage.multilabel.data.table import Table


def test_column_of_labels(table_root: Path) -> None:
    source = Table(root=table_root)
    assert source.label_names == ("bird", "cat", "dog")
    targets = {
        i: t.tolist()
        for name in ("train", "val", "test")
        for i, t in zip(source.split(name).ids, source.split(name).targets_NK, strict=True)
    }
    assert targets["pictures/00.png"] == [0, 1, 1]
    assert targets["pictures/03.png"] == [0, 0, 0]
    assert targets["pictures/19.png"] == [1, 0, 1]
    assert sum(source.notes[name]["unlabelled_images"] for name in ("train", "val", "test")) == 4
    assert source.notes["protocol"] == "train is train.csv; test is a stratified 20% of train.csv"


def test_column_a_label_with_unknowns_and_a_byte_order_mark(table_root: Path) -> None:
    rows = "\n".join(f"{i % 2},pictures/{i:02}.png,{-1 if i == 3 else 1.0}" for i in range(20))
    (table_root / "train.csv").write_text("\ufeffdog,path,cat\n" + rows, encoding="utf-8")
    source = Table(root=table_root, selection="test")
    assert source.label_names == ("dog", "cat")
    all_targets = {
        i: t.tolist()
        for name in ("train", "test")
        for i, t in zip(source.split(name).ids, source.split(name).targets_NK, strict=True)
    }
    assert all_targets["pictures/03.png"] == [1, -1]
    assert all_targets["pictures/04.png"] == [0, 1]


def test_three_files_and_an_order_of_labels(table_root: Path) -> None:
    for split, name in (("val", "v.png"), ("test", "t.png")):
        draw(table_root / name)
        (table_root / f"{split}.csv").write_text(f"path,labels\n{name},dog\n")
    source = Table(root=table_root, val="val.csv", test="test.csv", labels=("fish", "dog", "cat", "bird"))
    assert source.label_names == ("fish", "dog", "cat", "bird")
    assert source.split("val").ids == ["v.png"]
    assert source.split("test").targets_NK.tolist() == [[0, 1, 0, 0]]
    assert len(source.split("train").ids) == 20
    assert source.notes["train"]["labels_without_positives"] == ["fish"]


def test_json_of_coco(table_root: Path) -> None:
    images = [(i, f"{i:02}.png") for i in range(20)]
    content = coco_file(images, [(i, (3, 18)[i % 2], [0, 0, 20, 15]) for i in range(20)])
    (table_root / "labels.json").write_text(json.dumps(content))
    source = Table(root=table_root, train="labels.json", images="pictures")
    assert source.label_names == ("car", "dog", "toothbrush")
    boxes = source.split("train").boxes(0)
    assert boxes is not None
    assert boxes.xyxy_N4.tolist() == [[0, 0, 0.5, 0.5]]
    assert source.split("train").image(0).shape == (3, 30, 40)


def write_roboflow(root: Path, contents: dict) -> None:
    """Write a folder a split, each with its pictures and its annotations beside them."""
    for folder, content in contents.items():
        for image in content["images"]:
            draw(root / folder / image["file_name"])
        (root / folder / "_annotations.coco.json").write_text(json.dumps(content))


@pytest.mark.parametrize("named", [False, True])
def test_the_layout_of_roboflow(tmp_path: Path, named: bool) -> None:
    """The same file name and image id in two folders is two pictures."""
    contents = {}
    for folder, count in (("train", 6), ("valid", 2), ("test", 3)):
        images = [(i, f"{i}.jpg") for i in range(count)]
        content = coco_file(images, [(i, (3, 18, 90)[i % 3], [0, 0, 20, 15]) for i in range(count)])
        root_category = {"id": 0, "name": f"root of {folder}", "supercategory": "none"}
        contents[folder] = {**content, "categories": [root_category, *content["categories"]]}
    write_roboflow(tmp_path, contents)
    folders = {"train": "train", "val": "valid", "test": "test"}
    files = {split: f"{folder}/_annotations.coco.json" for split, folder in folders.items()}
    with pytest.warns(UserWarning, match="left out: root of test, root of train, root of valid"):
        source = Table(root=tmp_path, **(files if named else {}))
    assert source.label_names == ("car", "dog", "toothbrush")
    assert [len(source.split(name).ids) for name in ("train", "val", "test")] == [6, 2, 3]
    assert source.split("test").targets_NK.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert source.split("val").image(1).shape == (3, 30, 40)
    assert source.notes["protocol"] == ", ".join(f"{split} is {file}" for split, file in files.items())


def test_a_json_elsewhere_names_its_pictures_from_the_root(table_root: Path) -> None:
    images = [(i, f"pictures/{i:02}.png") for i in range(20)]
    content = coco_file(images, [(i, (3, 18, 90)[i % 3], None) for i in range(20)])
    (table_root / "lists").mkdir()
    (table_root / "lists" / "all.json").write_text(json.dumps(content))
    assert Table(root=table_root, train="lists/all.json").split("train").image(0).shape == (3, 30, 40)


def test_open_images_in_the_layout_of_roboflow(shared_data: Path, tmp_path: Path) -> None:
    real = shared_data / "openimages5"
    if not real.is_dir():
        pytest.skip(f"no openimages5 in {shared_data}")
    for folder, split in (("train", "train2017"), ("valid", "val2017"), ("test", "test2017")):
        shutil.copytree(real / split, tmp_path / folder)
        shutil.copy(real / "annotations" / f"instances_{split}.json", tmp_path / folder / "_annotations.coco.json")
    with pytest.warns(UserWarning, match="categories that no picture has"):
        source = Table(root=tmp_path)
    assert source.label_names == ("Apple", "Bicycle", "Bird", "Boat", "Person")
    assert [len(source.split(name).ids) for name in ("train", "val", "test")] == [600, 14, 58]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("path,labels\n", "no row after the header"),
        ("file,labels\na.png,cat\n", "its first line is 'file,labels'"),
        ("path\na.png\n", "its first line is 'path'"),
        ("path,cat,cat\na.png,1,1\n", "its first line is"),
        ("path,labels\npictures/00.png\n", "row 2: 1 columns where the header has 2"),
        ("path,labels\npictures/00.png,\npictures/01.png, \n", "no picture has a label"),
        ("path,cat\npictures/00.png,yes\n", "row 2: 'yes' in column 'cat'"),
        ("path,cat\npictures/00.png,2\n", "row 2: '2' in column 'cat'"),
        ("path,labels\npictures/00.png,cat\npictures/00.png,dog\n", "1 ids occur more than once: pictures/00.png"),
        ("path,labels\n../secret.png,cat\n", "row 2: the path '../secret.png' leaves data.root"),
    ],
)
def test_broken_csv(table_root: Path, content: str, message: str) -> None:
    (table_root / "train.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        Table(root=table_root)


def test_csv_in_another_encoding(table_root: Path) -> None:
    (table_root / "train.csv").write_bytes("path,labels\npictures/00.png,bär".encode("latin-1"))
    with pytest.raises(DataError, match="not a CSV in UTF-8"):
        Table(root=table_root)


def test_labels_that_differ_between_splits(table_root: Path) -> None:
    draw(table_root / "t.png")
    (table_root / "test.csv").write_text("path,labels\nt.png,fish|dog\n")
    with pytest.raises(DataError, match=r"train\.csv and test\.csv: their labels differ \(only in test\.csv: fish\)"):
        Table(root=table_root, test="test.csv")
    (table_root / "test.csv").write_text("path,dog\nt.png,1\n")
    with pytest.raises(DataError, match=r"only in train\.csv: bird, cat"):
        Table(root=table_root, test="test.csv")
    with pytest.raises(DataError, match=r"data\.labels and train\.csv: .*only in train\.csv: bird"):
        Table(root=table_root, labels=("cat", "dog"))


def test_a_picture_in_two_splits(table_root: Path) -> None:
    (table_root / "test.csv").write_text("path,labels\npictures/04.png,dog\n")
    with pytest.raises(DataError, match=r"1 pictures are in both train and test: pictures/04\.png"):
        Table(root=table_root, test="test.csv")


def test_file_that_is_not_there(table_root: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root: no file .*validation\.csv"):
        Table(root=table_root, val="validation.csv")
    with pytest.raises(ConfigError, match=r"data\.test_fraction: 0"):
        Table(root=table_root, test_fraction=0)
