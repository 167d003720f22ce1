"""The files of a record: what is written is read, and what was spoilt is known to be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tutelage.multilabel.replay import shards
from tutelage.multilabel.replay.shards import Layout, Shard, num_recorded, ranges

# Samples 0 to 4 have 2, 0, 1, 3 and 0 units of 4 bytes.
LAYOUT = Layout(4, np.array([0, 2, 2, 3, 6, 6]))


def units(samples: list[int], *, add: int = 0) -> np.ndarray:
    """Units that say their own number, plus something."""
    numbers = ranges(LAYOUT.starts[samples], LAYOUT.counts(np.array(samples)))
    return np.repeat((numbers + add).astype(np.uint8)[:, None], 4, axis=1)


def write(shard: Shard, samples: list[int], *, add: int = 0) -> np.ndarray:
    return shard.write(np.array(samples), units(samples, add=add))


def read(shard: Shard, samples: list[int]) -> tuple[list[int], list[bool]]:
    found, whole = shard.read(np.array(samples))
    return found[:, 0].tolist(), whole.tolist()


def test_ranges_follow_each_other() -> None:
    assert ranges(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]


def test_rows_of_any_length_come_back_in_the_order_of_the_batch(tmp_path: Path) -> None:
    shard = Shard(tmp_path / "field" / "view.bin", LAYOUT)
    assert read(shard, [3, 1])[1] == [False, False] and num_recorded(shard.path, LAYOUT) == 0
    write(shard, [3, 1, 0])
    assert read(shard, [0, 3, 1]) == ([0, 1, 3, 4, 5], [True, True, True])
    assert read(shard, [4, 2])[1] == [False, False] and num_recorded(shard.path, LAYOUT) == 3
    again = Shard(shard.path, LAYOUT)  # another process
    assert read(again, [3]) == ([3, 4, 5], [True])
    write(again, [2])
    assert read(shard, [2]) == ([2], [True])
    assert shard.path.stat().st_size == LAYOUT.file_bytes == 5 * 4 + 6 * 4


def test_who_writes_first_is_kept(tmp_path: Path) -> None:
    shard = Shard(tmp_path / "view.bin", LAYOUT)
    write(shard, [0])
    kept = write(Shard(shard.path, LAYOUT), [2, 0], add=100)
    assert kept[:, 0].tolist() == [102, 0, 1]
    assert read(shard, [0, 2])[0] == [0, 1, 102]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(("spoil", "left"), [(cut, [0, 2]), (flip, [0, 2]), (empty, [])])
def test_what_was_spoilt_is_found_and_written_anew(
    tmp_path: Path, spoil: Callable[[Path], None], left: list[int]
) -> None:
    path = tmp_path / "view.bin"
    write(Shard(path, LAYOUT), [0, 2, 3])
    spoil(path)
    shard = Shard(path, LAYOUT)
    assert shard.was_cut_off == (spoil is cut)
    assert read(shard, [0, 2, 3])[1] == [sample in left for sample in (0, 2, 3)]
    assert shard.damaged == (spoil is not empty)
    write(shard, [0, 2, 3])
    assert read(shard, [0, 2, 3]) == ([0, 1, 2, 3, 4, 5], [True] * 3)


def test_a_write_that_ends_half_way_is_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard, pwrite = Shard(tmp_path / "view.bin", LAYOUT), shards.os.pwrite

    def full(file: int, content: bytes, offset: int) -> int:
        if len(content) == 12:
            return int(pwrite(file, content[:5], offset))
        if len(content) == 7:
            raise OSError(28, "No space left on device")
        return int(pwrite(file, content, offset))

    monkeypatch.setattr(shards.os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        write(shard, [0, 3, 2])
    monkeypatch.undo()
    assert read(shard, [0, 3, 2])[1] == [True, False, False]
