import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from trees import coco_file, draw, write_coco

from tutelage.core.errors import ConfigError, DataError
from tutelage.multilabel.data.coco import Coco


def test_targets_ids_and_order_of_labels(coco_root: Path) -> None:
    source = Coco(root=coco_root, val_fraction=0.2)
    assert source.label_names == ("car", "dog", "toothbrush")  # by category id, whatever the file's order
    test = source.split("test")
    assert test.ids == ["100", "101", "102"]
    assert test.targets_NK.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]
    assert test.targets_NK.dtype == np.int8
    assert test.image(0).shape == (3, 30, 40)


def test_unlabelled_images_and_image_level_labels_are_counted(coco_root: Path) -> None:
    notes = Coco(root=coco_root, val_fraction=0.2).notes
    assert notes["test"]["images"] == 3
    assert notes["test"]["unlabelled_images"] == 1
    assert notes["test"]["labels_without_positives"] == ["toothbrush"]
    assert notes["annotations"]["train"]["image_level_labels"] == 2
    assert notes["selection"] == "held-out"
    assert notes["protocol"] == "COCO 2014: test is val2014"


def test_boxes_are_fractions_and_have_an_area(coco_root: Path) -> None:
    test = Coco(root=coco_root, val_fraction=0.2).split("test")
    first, second, third = (test.boxes(i) for i in range(3))
    assert first is not None and third is not None
    assert second is None
    # The second box has no width, the third annotation no box: their labels stand all the same.
    assert first.labels_N.tolist() == [0]
    assert first.xyxy_N4.tolist() == [[0, 0, 1, 1]]
    np.testing.assert_allclose(third.xyxy_N4, [[0.5, 0.5, 0.75, 1.0]])


def test_selection_on_the_test_split_is_marked(coco_root: Path) -> None:
    source = Coco(root=coco_root, selection="test")
    assert source.notes["selection"] == "test"
    assert source.split("val").ids == source.split("test").ids
    assert len(source.split("train").ids) == 10


def test_layout_of_2017_is_found_and_two_layouts_are_asked_about(coco_root: Path, tmp_path: Path) -> None:
    content = coco_file([(1, "1.jpg"), (2, "2.jpg"), (3, "3.jpg"), (4, "4.jpg")], [(1, 3, None), (2, 18, None)])
    test = coco_file([(9, "9.jpg")], [])
    write_coco(coco_root, train=content, test=test, year=2017)
    with pytest.raises(ConfigError, match=r"data\.year: .*2014 and 2017"):
        Coco(root=coco_root)
    assert Coco(root=coco_root, year=2017, val_fraction=0.5).split("test").ids == ["9"]
    shutil.rmtree(coco_root / "annotations")
    write_coco(coco_root, train=content, test=test, year=2017)
    assert Coco(root=coco_root, val_fraction=0.5).notes["protocol"] == "COCO 2017: test is val2017"


def test_foreign_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root: no annotations/instances_train2014\.json"):
        Coco(root=tmp_path)
    with pytest.raises(DataError, match=r"data\.root: there is no folder"):
        Coco(root=tmp_path / "nowhere")


def test_no_image_folder(coco_root: Path) -> None:
    shutil.rmtree(coco_root / "val2014")
    with pytest.raises(DataError, match="no val2014/"):
        Coco(root=coco_root)


def test_annotation_of_an_unknown_image(coco_root: Path) -> None:
    _change(coco_root, lambda d: d["annotations"].append({"image_id": 77, "category_id": 3}))
    with pytest.raises(DataError, match=r"instances_train2014\.json: 1 annotations are of images .*: 77"):
        Coco(root=coco_root)
    notes = Coco(root=coco_root, on_bad_image="skip", val_fraction=0.2).notes
    assert notes["annotations"]["train"]["of_unknown_images"] == {"count": 1, "image_ids": ["77"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["annotations"].append({"image_id": 1, "category_id": 4}), "unknown category 4"),
        (lambda d: d["images"].append({"id": 3, "file_name": "again.jpg"}), r"image id 3 occurs twice \(again.jpg\)"),
        (lambda d: d["categories"].append({"id": 3, "name": "bus"}), "two categories share an id or a name"),
        (
            lambda d: (
                d["categories"].append({"id": 4, "name": "bus"}),
                d["annotations"].append({"image_id": 1, "category_id": 4}),
            ),
            r"labels differ .*train2014.json: bus",
        ),
        (lambda d: d["annotations"][0].update(bbox=[1, 2]), r"of COCO's form .*annotations\[0\].bbox"),
        (lambda d: d["images"].append({"id": 55, "file_name": "../../etc/passwd"}), "leaves data.root"),
        (lambda d: d.pop("images"), "not an annotation file of COCO's form"),
    ],
)
def test_broken_annotations(coco_root: Path, change, message: str) -> None:
    _change(coco_root, change)
    with pytest.raises(DataError, match=message):
        Coco(root=coco_root)


def test_file_that_is_not_json(coco_root: Path) -> None:
    (coco_root / "annotations" / "instances_val2014.json").write_text("{")
    with pytest.raises(DataError, match=r"instances_val2014\.json: not an annotation file"):
        Coco(root=coco_root)


def with_root(content: dict, name: str) -> dict:
    """Add the root category that Roboflow's exports have, which is no picture's."""
    categories = [{**category, "supercategory": name} for category in content["categories"]]
    return {**content, "categories": [{"id": 0, "name": name, "supercategory": "none"}, *categories]}


def test_a_category_that_no_picture_has_is_no_difference(tmp_path: Path) -> None:
    train = coco_file([(i, f"{i}.jpg") for i in range(6)], [(i, (3, 18, 90)[i % 3], [0, 0, 20, 15]) for i in range(6)])
    test = coco_file([(9, "9.jpg")], [(9, 18, [0, 0, 40, 30])])
    write_coco(tmp_path, train=with_root(train, "pets"), test=with_root(test, "pets-v2"), year=2017)
    with pytest.warns(UserWarning, match="categories that no picture has are left out: pets, pets-v2") as said:
        source = Coco(root=tmp_path, val_fraction=0.4)
    assert len(said) == 1 and source.notes["unused_categories"] == ["pets", "pets-v2"]
    assert source.label_names == ("car", "dog", "toothbrush")
    assert source.split("test").targets_NK.tolist() == [[0, 1, 0]]
    boxes = source.split("test").boxes(0)
    assert boxes is not None and boxes.labels_N.tolist() == [1]
    # One root in all files groups the others and is no label; what every file lists otherwise stays.
    write_coco(tmp_path, train=with_root(train, "pets"), test=with_root(test, "pets"), year=2017)
    with pytest.warns(UserWarning, match="left out: pets$"):
        assert Coco(root=tmp_path, val_fraction=0.4).label_names == source.label_names
    without = coco_file([(i, f"{i}.jpg") for i in range(6)], [(i, 3, None) for i in range(6)])
    write_coco(tmp_path, train=without, test=coco_file([(9, "9.jpg")], []), year=2017)
    assert Coco(root=tmp_path, val_fraction=0.4).label_names == source.label_names


def test_a_test_split_of_its_own_is_the_test(coco_root: Path) -> None:
    test = coco_file([(7, "7.jpg"), (8, "8.jpg")], [(7, 18, None)])
    (coco_root / "annotations" / "instances_test2014.json").write_text(json.dumps(test))
    for name in ("7.jpg", "8.jpg"):
        draw(coco_root / "test2014" / name)
    source = Coco(root=coco_root)
    assert [len(source.split(name).ids) for name in ("train", "val", "test")] == [10, 3, 2]
    assert source.split("test").targets_NK.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert source.notes["protocol"] == "COCO 2014: val is val2014, test is test2014"


def test_open_images_as_roboflow_exports_them(shared_data: Path) -> None:
    root = shared_data / "openimages5"
    if not root.is_dir():
        pytest.skip(f"no openimages5 in {shared_data}")
    with pytest.warns(UserWarning, match="left out: apple-boat-bicycle-person, apple-boat-bicycle-person-bird"):
        source = Coco(root=root)
    assert source.label_names == ("Apple", "Bicycle", "Bird", "Boat", "Person")
    assert [len(source.split(name).ids) for name in ("train", "val", "test")] == [600, 14, 58]
    several = sum(int((source.split(name).targets_NK.sum(axis=1) > 1).sum()) for name in ("train", "val", "test"))
    assert several == 81


def test_real_images(shared_data: Path) -> None:
    root = shared_data / "coco_mini"
    if not root.is_dir():
        pytest.skip(f"no coco_mini in {shared_data}")
    source = Coco(root=root)
    assert len(source.label_names) == 80
    assert len(source.split("train").ids) + len(source.split("val").ids) == 2312
    assert len(source.split("test").ids) == 771
    assert source.notes["annotations"]["train"]["image_level_labels"] == 6939
    raw = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    pairs = {(a["image_id"], a["category_id"]) for a in raw["annotations"]}
    assert sum(int(source.split(name).targets_NK.sum()) for name in ("train", "val")) == len(pairs)
    assert source.split("test").image(0).shape[0] == 3


def _change(root: Path, change) -> None:
    path = root / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_outlines_are_left_out_before_parsing(coco_root: Path) -> None:
    plain = Coco(root=coco_root, val_fraction=0.2).split("train").targets_NK
    polygons, runs = [[1.5, 2, 3], [4, 5, 6]], {"counts": [1, 2, 3], "size": [30, 40]}

    def outline(content: dict) -> None:
        for index, annotation in enumerate(content["annotations"]):
            annotation["segmentation"] = ([], polygons, runs, {"counts": 'a"b', "size": [1, 2]})[index % 4]
        content["images"][0]["note"] = 'she said "segmentation": [[1, 2], and no more'

    _change(coco_root, outline)
    assert np.array_equal(Coco(root=coco_root, val_fraction=0.2).split("train").targets_NK, plain)
    path = coco_root / "annotations" / "instances_train2014.json"
    for indent in (None, 1):
        path.write_text(json.dumps(json.loads(path.read_text()), indent=indent))
        assert np.array_equal(Coco(root=coco_root, val_fraction=0.2).split("train").targets_NK, plain)
