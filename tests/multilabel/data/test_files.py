"""What all data sets of picture files share: bad pictures, held-out part, fingerprint."""

from itertools import chain
from pathlib import Path

import pytest
from trees import draw

from tutelage.core.errors import ConfigError, DataError
from tutelage.multilabel.data.files import inside_root, shortened
from tutelage.multilabel.data.source import SkippedImage
from tutelage.multilabel.data.table import Table


def test_missing_picture_is_named(table_root: Path) -> None:
    (table_root / "pictures/07.png").unlink()
    (table_root / "pictures/08.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"2 of 20 pictures cannot be read in .*07.png \(no such file\), .*08.png \(the file is empty"
    ):
        Table(root=table_root)
    source = Table(root=table_root, on_bad_image="skip")
    _assert_bad(source, count=2)
    assert sum(len(source.split(name).ids) for name in ("train", "val", "test")) == 18


def _assert_bad(source: Table, *, count: int) -> None:
    """Which split lost them depends on the draw; all of them are in the notes."""
    bad = source.notes["bad_images"].values()
    assert sum(entry["count"] for entry in bad) == sum(len(entry["files"]) for entry in bad) == count


def test_truncated_picture_is_found_by_verify_and_at_its_turn_otherwise(table_root: Path) -> None:
    broken = table_root / "pictures/04.png"
    broken.write_bytes(broken.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"1 of 20 .*04\.png"):
        Table(root=table_root, verify=True)
    skipped = Table(root=table_root, verify=True, on_bad_image="skip")
    _assert_bad(skipped, count=1)
    assert sum(len(skipped.split(name).ids) for name in ("train", "val", "test")) == 19
    for policy, error in (("error", DataError), ("skip", SkippedImage)):
        source = Table(root=table_root, on_bad_image=policy)
        name, index = _find(source, "pictures/04.png")
        with pytest.raises(error, match=r"04\.png"):
            source.split(name).image(index)


def _find(source: Table, sample_id: str):
    for name in ("train", "val", "test"):
        if sample_id in source.split(name).ids:
            return name, source.split(name).ids.index(sample_id)
    raise AssertionError(f"{sample_id} is in no split")


def test_splits_share_no_sample_and_do_not_depend_on_the_machine(table_root: Path) -> None:
    first, again = Table(root=table_root), Table(root=table_root)
    ids = [first.split(name).ids for name in ("train", "val", "test")]
    assert sorted(chain.from_iterable(ids)) == sorted(f"pictures/{i:02}.png" for i in range(20))
    assert ids == [again.split(name).ids for name in ("train", "val", "test")]
    assert ids != [Table(root=table_root, split_seed=1).split(name).ids for name in ("train", "val", "test")]


def test_fingerprint_follows_what_the_data_are(table_root: Path) -> None:
    first = Table(root=table_root).fingerprint
    assert Table(root=table_root).fingerprint == first
    assert Table(root=table_root, split_seed=1).fingerprint != first
    assert Table(root=table_root, selection="test").fingerprint != first
    moved = table_root.with_name(table_root.name + "-moved")
    table_root.rename(moved)
    assert Table(root=moved).fingerprint == first
    draw(moved / "pictures/00.png", width=90)
    assert Table(root=moved).fingerprint != first


def test_nothing_held_out(table_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.val_fraction: nothing is held out"):
        Table(root=table_root, val_fraction=0.0)
    with pytest.raises(ConfigError, match=r"data\.val_fraction: 1\.5"):
        Table(root=table_root, val_fraction=1.5)
    with pytest.raises(ConfigError, match="leaves a part without any"):
        Table(root=table_root, val_fraction=0.001)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.jpg", "a/../../x.jpg", "..\\x.jpg", "."])
def test_paths_that_leave_the_root(name: str) -> None:
    with pytest.raises(DataError, match=r"x\.csv: the path .* leaves data\.root"):
        inside_root(name, origin="x.csv")


def test_a_path_may_leave_its_folder_but_not_the_root() -> None:
    assert inside_root("../b.jpg", folder="a", origin="") == "b.jpg"
    for folder, name in (("a", "../../b.jpg"), ("a", "/b.jpg"), ("/a", "b.jpg"), ("..", "b.jpg")):
        with pytest.raises(DataError, match=r"leaves data\.root"):
            inside_root(name, folder=folder, origin="x.csv")


def test_paths_in_normal_form() -> None:
    assert inside_root("./a//b.jpg", origin="") == "a/b.jpg"
    assert inside_root("actor\\0001.jpg", origin="") == "actor/0001.jpg"


def test_some_names() -> None:
    assert shortened(["a", "b"]) == "a, b"
    assert shortened(list("abcdefg")) == "a, b, c, d, e and 2 more"
