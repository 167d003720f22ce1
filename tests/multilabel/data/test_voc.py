from pathlib import Path

import numpy as np
import pytest
from trees import WHOLE, annotation, write_voc

from tutelage.core.errors import DataError
from tutelage.multilabel.data.voc import LABELS, Voc

TRAINVAL = {f"{i:06}": [(("cat", "dog")[i % 2], 0, WHOLE)] for i in range(10)}
TEST = {
    "000100": [("cat", 0, (1, 1, 20, 15)), ("cat", 1, (21, 16, 40, 30)), ("person", 1, WHOLE)],
    "000101": [("person", 1, WHOLE), ("person", 0, (11, 1, 20, 30))],
    "000102": [],
}


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    write_voc(tmp_path, 2007, {"trainval": TRAINVAL, "test": TEST})
    return tmp_path


def test_labels_with_difficult_objects_alone_are_ignored(voc_root: Path) -> None:
    source = Voc(root=voc_root, year=2007)
    cat, person = LABELS.index("cat"), LABELS.index("person")
    test = source.split("test")
    assert test.ids == ["000100", "000101", "000102"]
    assert test.targets_NK[:, [cat, person]].tolist() == [[1, -1], [0, 1], [0, 0]]
    assert (test.targets_NK == 1).sum() == 2
    assert source.notes["test"]["ignored_targets"] == 1
    assert source.notes["protocol"] == "VOC 2007: train is trainval, test is test, difficult objects ignored"


def test_difficult_objects_counted(voc_root: Path) -> None:
    source = Voc(root=voc_root, year=2007, difficult="present")
    person = LABELS.index("person")
    assert source.split("test").targets_NK[:, person].tolist() == [1, 1, 0]
    assert source.fingerprint != Voc(root=voc_root, year=2007).fingerprint


def test_boxes_count_pixels_from_one_and_belong_to_present_labels(voc_root: Path) -> None:
    test = Voc(root=voc_root, year=2007).split("test")
    first = test.boxes(0)
    assert first is not None
    assert first.labels_N.tolist() == [LABELS.index("cat")] * 2  # the person is ignored, and so is where it is
    np.testing.assert_allclose(first.xyxy_N4, [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    assert test.boxes(2) is None


@pytest.mark.parametrize("inside", [".", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_any_level_of_the_folder_will_do(voc_root: Path, inside: str) -> None:
    source = Voc(root=voc_root / inside, year=2007)
    assert len(source.label_names) == 20
    assert source.split("test").image(0).shape == (3, 30, 40)


def test_voc2012_takes_val_for_the_test_where_the_test_has_no_annotations(tmp_path: Path) -> None:
    val = {f"2008_{i}": [("boat", 0, WHOLE)] for i in range(3)}
    folder = write_voc(tmp_path, 2012, {"train": TRAINVAL, "val": val})
    (folder / "ImageSets/Main/test.txt").write_text("2008_9\n")
    source = Voc(root=tmp_path, year=2012)
    assert source.notes["protocol"].startswith("VOC 2012: train is train, test is val")
    assert source.split("test").ids == list(val)


def test_voc2007_without_its_test_split(tmp_path: Path) -> None:
    write_voc(tmp_path, 2007, {"trainval": TRAINVAL})
    with pytest.raises(DataError, match=r"no annotated test split.*VOCtest_06-Nov-2007"):
        Voc(root=tmp_path, year=2007)
    with pytest.raises(DataError, match="no VOCdevkit/VOC2012/"):
        Voc(root=tmp_path, year=2012)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation>", "not an annotation of VOC's form"),
        (annotation([("unicorn", 0, WHOLE)]), "VOC has no class unicorn"),
        (annotation([("cat", 0, WHOLE)]).replace("<xmin>1</xmin><ymin>1", "<ymin>1", 1), "not an annotation of VOC's"),
    ],
)
def test_broken_annotation_is_named(voc_root: Path, content: str, message: str) -> None:
    (voc_root / "VOCdevkit/VOC2007/Annotations/000003.xml").write_text(content)
    with pytest.raises(DataError, match=rf"000003\.xml: {message}"):
        Voc(root=voc_root, year=2007)


def test_missing_annotation_is_named(voc_root: Path) -> None:
    (voc_root / "VOCdevkit/VOC2007/Annotations/000003.xml").unlink()
    with pytest.raises(DataError, match=r"000003\.xml"):
        Voc(root=voc_root, year=2007)
