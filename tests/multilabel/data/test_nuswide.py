from pathlib import Path

import numpy as np
import pytest
from trees import CONCEPTS, write_nus

from tutelage.core.errors import DataError
from tutelage.multilabel.data.nuswide import NusWide


@pytest.fixture
def nus_root(tmp_path: Path) -> Path:
    write_nus(tmp_path)
    return tmp_path


def test_targets(nus_root: Path) -> None:
    source = NusWide(root=nus_root, val_fraction=0.25)
    assert source.label_names == tuple(CONCEPTS)
    test = source.split("test")
    assert test.ids[0] == "Flickr/actor/0000_Test.jpg"
    expected = [[n % 4 != 3 and (n + k) % 3 == 0 for k in range(81)] for n in range(4)]
    assert np.array_equal(test.targets_NK, np.array(expected, dtype=np.int8))
    assert test.image(0).shape == (3, 30, 40)
    assert test.boxes(0) is None
    assert source.notes["test"]["unlabelled_images"] == 1


def test_unlabelled_pictures_dropped(nus_root: Path) -> None:
    source = NusWide(root=nus_root, val_fraction=0.25, unlabelled="drop")
    assert len(source.split("test").ids) == 3
    assert source.notes["protocol"].endswith("unlabelled images: drop")


def test_pictures_that_left_the_web(nus_root: Path) -> None:
    (nus_root / "Flickr/actor/0001_Test.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 16 pictures .*0001_Test\.jpg \(no such file\)"):
        NusWide(root=nus_root)
    source = NusWide(root=nus_root, on_bad_image="skip")
    assert source.notes["bad_images"]["test"] == {"count": 1, "files": ["Flickr/actor/0001_Test.jpg (no such file)"]}
    assert len(source.split("test").ids) == 3


def test_labels_in_the_download_of_groundtruth(nus_root: Path) -> None:
    (nus_root / "Groundtruth").mkdir()
    (nus_root / "TrainTestLabels").rename(nus_root / "Groundtruth/TrainTestLabels")
    (nus_root / "ConceptsList/Concepts81.txt").rename(nus_root / "Concepts81.txt")
    assert len(NusWide(root=nus_root).label_names) == 81


def test_broken_labels(nus_root: Path) -> None:
    path = nus_root / "TrainTestLabels/Labels_concept07_Train.txt"
    path.write_text("1\n" * 11)
    with pytest.raises(DataError, match=r"Labels_concept07_Train\.txt: 11 lines for the 12 pictures"):
        NusWide(root=nus_root)
    path.write_text("1\n" * 11 + "2\n")
    with pytest.raises(DataError, match="neither 0 nor 1: 2"):
        NusWide(root=nus_root)
    path.unlink()
    with pytest.raises(DataError, match=r"Labels_concept07_Train\.txt: cannot be read"):
        NusWide(root=nus_root)


def test_foreign_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no Concepts81\.txt or ConceptsList/Concepts81\.txt"):
        NusWide(root=tmp_path)
