"""A record on the disk: fields beside each other, full disks, and room for new ones."""

import fcntl
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tutelage.core.store import content_hash
from tutelage.multilabel.replay import record as records
from tutelage.multilabel.replay import shards
from tutelage.multilabel.replay.fields import Positives, RecordedField, recorded_fields
from tutelage.multilabel.replay.record import Record, bytes_a_view, make_room, read_manifest

KEY = {"teacher": "a"}
SAMPLES, VIEWS = np.array([2, 0, 1]), np.array([0, 1, 0])


def fields(*names: str) -> dict[str, RecordedField]:
    shapes = {"logits_BK": (3,), "embedding_BC": (5,), "positive_cams": (2, 2)}
    positives = Positives(np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=np.int8))
    return recorded_fields({name: torch.zeros(1, *shapes[name]) for name in names}, positives, dtype="float32")


def units(field: RecordedField, *, value: int = 0) -> np.ndarray:
    total = int(field.layout.counts(SAMPLES).sum())
    return (np.arange(total)[:, None] + value + np.zeros(field.layout.unit_bytes)).astype(np.uint8)


def test_fields_and_views_lie_beside_each_other(tmp_path: Path) -> None:
    first = Record(tmp_path, KEY, fields("logits_BK", "positive_cams"))
    for field in first.fields.values():
        assert first.write(field, SAMPLES, VIEWS, units(field)).tolist() == units(field).tolist()
    # Samples 2, 0, 1 have 1, 2, 0 maps: a batch of two views is put together again.
    found, whole = first.read(first.fields["positive_cams"], SAMPLES, VIEWS)
    assert found[:, 0].tolist() == [0, 1, 2] and whole.all()
    assert not first.read(first.fields["logits_BK"], SAMPLES, 1 - VIEWS)[1].any()  # the same samples, other views
    assert first.share(range(3)) == pytest.approx((3 + 3) / (2 * 3 * 3))
    first.close()

    second = Record(tmp_path, KEY, fields("logits_BK", "embedding_BC"))
    assert second.read(second.fields["logits_BK"], SAMPLES, VIEWS)[1].all()
    assert not second.read(second.fields["embedding_BC"], SAMPLES, VIEWS)[1].any()
    assert set(read_manifest(second.folder)["fields"]) == {"logits_BK", "positive_cams", "embedding_BC"}
    second.close()
    other = Record(tmp_path, {"teacher": "b"}, fields("logits_BK"))
    assert not other.read(other.fields["logits_BK"], SAMPLES, VIEWS)[1].any()
    other.close()


def test_a_full_disk_ends_the_recording_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = Record(tmp_path, KEY, fields("logits_BK"))
    field = record.fields["logits_BK"]
    record.write(field, SAMPLES[:1], VIEWS[:1], units(field)[:1])

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.os, "pwrite", full)
    kept = record.write(field, SAMPLES, VIEWS, units(field, value=7))
    assert kept[:, 0].tolist() == [7, 8, 9] and record.stopped == "No space left on device"
    monkeypatch.undo()
    record.write(field, SAMPLES, VIEWS, units(field))
    assert record.read(field, SAMPLES, VIEWS)[1].tolist() == [True, False, False]  # nothing more, what was there stays
    assert capsys.readouterr().out.count("replay: recording ends here (No space left on device)") == 1
    record.close()


def test_damage_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(tmp_path, KEY, fields("logits_BK"))
    field = record.fields["logits_BK"]
    record.write(field, SAMPLES, np.zeros(3, int), units(field, value=5))
    record.close()
    path = record.folder / "logits_BK" / "view-00000.bin"
    content = bytearray(path.read_bytes())
    content[12] ^= 1  # of sample 0
    path.write_bytes(content)
    again = Record(tmp_path, KEY, fields("logits_BK"))
    for _ in range(2):
        assert again.read(field, SAMPLES, np.zeros(3, int))[1].tolist() == [True, False, True]
    assert capsys.readouterr().out.count("view-00000.bin is damaged (checksum)") == 1
    path.write_bytes(bytes(content[:20]))
    assert Record(tmp_path, KEY, fields("logits_BK")).read(field, SAMPLES, np.zeros(3, int))[1].sum() == 0
    assert "view-00000.bin was cut off" in capsys.readouterr().out


def recorded(root: Path, name: str, *, used: int) -> Path:
    """A record that takes one block of the disk, used so many seconds after 1970."""
    record = Record(root, {"teacher": name}, fields("logits_BK"))
    field = record.fields["logits_BK"]
    record.write(field, SAMPLES, np.zeros(3, int), units(field))
    record.close()
    os.utime(record.folder.with_suffix(".lock"), (used, used))
    return record.folder


def room(root: Path, *, needed: int, at_most: int, name: str = "new") -> str | None:
    return make_room(root, {"teacher": name}, needed=needed, at_most=at_most)


def test_the_ones_used_longest_ago_make_room(tmp_path: Path) -> None:
    assert room(tmp_path / "empty", needed=10, at_most=10) is None
    old, middle, new = (recorded(tmp_path, name, used=number) for number, name in enumerate(("c", "a", "b")))
    size = records._size(old)
    assert size > 0
    assert room(tmp_path, needed=size, at_most=3 * size) is None
    assert not old.exists() and middle.exists() and new.exists()
    # A record's own files are counted as what it will be.
    assert room(tmp_path, needed=size, at_most=2 * size, name="b") is None
    assert middle.exists() and new.exists()
    assert room(tmp_path, needed=size, at_most=size - 1) == f"more than teacher.replay_max_gb={(size - 1) / 1e9:g}"
    assert not list(tmp_path.glob(".*.dropped"))


def test_none_is_dropped_that_is_in_use_nor_in_vain(tmp_path: Path) -> None:
    used, idle = recorded(tmp_path, "used", used=1), recorded(tmp_path, "idle", used=2)
    holder = Record(tmp_path, {"teacher": "used"}, fields("logits_BK"))
    size = records._size(idle)
    why = room(tmp_path, needed=size, at_most=size)
    assert why is not None and "in use" in why and used.exists() and idle.exists()
    assert room(tmp_path, needed=size, at_most=2 * size) is None and used.exists() and not idle.exists()
    holder.close()
    with used.with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it any more


def test_half_of_the_free_disk_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(records.shutil, "disk_usage", lambda path: Usage())
    assert room(tmp_path, needed=500, at_most=10**9) is None
    assert room(tmp_path, needed=501, at_most=10**9) == "more than half of the 0.0 GB that are free there"


def test_bytes_are_known_before() -> None:
    # A checksum a sample, 3 logits a sample, 2·2 places for each of 3 present labels.
    assert bytes_a_view(fields("logits_BK", "positive_cams")) == 3 * (4 + 12) + 3 * 4 + 3 * 16
    assert content_hash(KEY) == content_hash({"teacher": "a"})
