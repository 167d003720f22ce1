"""The embedded scenes are the same everywhere, and what they say of themselves is true."""

import hashlib

import numpy as np

from tutelage.core.randomness import generator
from tutelage.multilabel.data.digits import SHARES, Digits, _stamp


def small(seed: int = 0) -> Digits:
    return Digits(num_train=6, num_val=3, num_test=3, size=48, scene_seed=seed)


def test_the_same_on_every_machine() -> None:
    pixels = small().split("train").images_N3HW
    assert pixels.shape == (6, 3, 48, 48) and pixels.dtype == np.uint8
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == "f4eca51df98bd1c6"
    assert not np.array_equal(pixels, small(seed=1).split("train").images_N3HW)


def test_splits_share_no_scan() -> None:
    order = generator(0, "scans").permutation(1797)
    parts = [set(order[round(a * 1797) : round(b * 1797)]) for a, b in SHARES.values()]
    assert sum(map(len, parts)) == 1797 == len(set.union(*parts))


def test_labels_are_the_digits_in_the_boxes() -> None:
    split = small().split("train")
    for index, target_K in enumerate(split.targets_NK):
        boxes = split.boxes(index)
        assert set(boxes.labels_N) == set(np.flatnonzero(target_K == 1)) and 1 <= len(boxes.labels_N) <= 4
        assert (boxes.xyxy_N4 >= 0).all() and (boxes.xyxy_N4 <= 1).all()
        assert (boxes.xyxy_N4[:, 2:] > boxes.xyxy_N4[:, :2]).all()


def test_a_box_holds_the_ink() -> None:
    canvas_3HW = np.zeros((3, 48, 48))
    scan_hw = np.zeros((8, 8))
    scan_hw[2:6, 3:5] = 1.0
    left, top, right, bottom = _stamp(canvas_3HW, scan_hw, generator(5), side=16)
    rows, columns = np.nonzero(canvas_3HW.max((0, 2)) > 0.1)[0], np.nonzero(canvas_3HW.max((0, 1)) > 0.1)[0]
    assert (left, top, right, bottom) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert (right - left, bottom - top) == (6, 10)  # twice the 2 by 4 of ink, and its blurred edge


def test_fingerprints_tell_data_sets_apart() -> None:
    assert small().fingerprint == small().fingerprint != small(seed=1).fingerprint
