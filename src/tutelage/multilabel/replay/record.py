"""A teacher's record: a folder of the store, named by the hash of what the answers depend on.

``<store>/replays/<hash>/<field>/view-00000.bin``, with a manifest beside the fields; see `shards` for the files. Each
process that uses a record holds a shared lock on ``<hash>.lock``, so that none is dropped while it is in use.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.store import content_hash, write_atomically
from tutelage.multilabel.replay.fields import RecordedField
from tutelage.multilabel.replay.shards import Bytes, Flags, Integers, Shard, num_recorded, ranges

FOLDER = "replays"
MANIFEST = "manifest.json"
LOCK = ".lock"

_OPEN_VIEWS = 8  # several crops of a picture may be in one batch


class Record:
    """What one teacher answered, by field, view and sample.

    Attributes:
        stopped: Why nothing more is recorded; None while it is.
    """

    def __init__(self, root: Path, key: Mapping[str, Any], fields: Mapping[str, RecordedField]) -> None:
        """Open a record, or begin one.

        Args:
            root: ``<store>/replays``.
            key: Everything that the answers depend on, as JSON values.
            fields: What is wanted of it. Fields of other students lie beside these.

        Raises:
            OSError: It cannot be made.
        """
        self.folder = root / content_hash(key)
        self.fields = fields
        self.stopped: str | None = None
        self._shards: dict[tuple[int, str], Shard] = {}
        root.mkdir(parents=True, exist_ok=True)
        self._lock, self._closed = _open_lock(self.folder), False
        try:
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            os.utime(self.folder.with_suffix(LOCK))  # when it was last used
            self.folder.mkdir(exist_ok=True)
            shapes = {name: list(field.codec.shape) for name, field in fields.items()}
            known = read_manifest(self.folder).get("fields", {})
            manifest = {"key": key, "fields": {**known, **shapes}}
            write_atomically(self.folder / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the files. The record may then be dropped."""
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()
        if not self._closed:
            os.close(self._lock)
        self._closed = True

    def share(self, views: Sequence[int]) -> float:
        """Return which share of some views' answers is there, in [0, 1]; opens no view that nobody has begun."""
        found = 0
        for view in views:
            for field in self.fields.values():
                if (path := self._path(view, field)).exists():
                    found += num_recorded(path, field.layout)
        samples = sum(field.layout.num_samples for field in self.fields.values())
        return found / max(1, samples * len(views))

    def read(self, field: RecordedField, samples_B: Integers, views_B: Integers) -> tuple[Bytes, Flags]:
        """Return the samples' units one after the other, [U, unit_bytes], and which samples' are whole."""
        layout = field.layout
        units = np.empty((int(layout.counts(samples_B).sum()), layout.unit_bytes), np.uint8)
        whole_B = np.zeros(len(samples_B), bool)
        for view, positions, places in _by_view(field, samples_B, views_B):
            shard = self._shard(view, field)
            if shard is None:
                continue
            before = shard.damaged
            units[places], whole_B[positions] = shard.read(samples_B[positions])
            if shard.damaged and not before:
                print(f"replay: {shard.path} is damaged (checksum); its damaged rows are asked of the teacher again")
        return units, whole_B

    def write(self, field: RecordedField, samples_B: Integers, views_B: Integers, units: Bytes) -> Bytes:
        """Keep what was not kept yet; return what is kept, which may be another process's.

        A disk that is full, or any other failure to write, ends the recording and not the run.
        """
        kept = units.copy()
        for view, positions, places in _by_view(field, samples_B, views_B):
            shard = self._shard(view, field)
            if shard is None or self.stopped is not None:
                continue
            try:
                kept[places] = shard.write(samples_B[positions], units[places])
            except OSError as error:
                self._stop(error)
        return kept

    def _shard(self, view: int, field: RecordedField) -> Shard | None:
        """Open a view's file, or make it; None where it cannot be made."""
        key, path = (view, field.name), self._path(view, field)
        if key in self._shards:
            return self._shards[key]
        if self.stopped is not None and not path.exists():
            return None
        while len(self._shards) >= _OPEN_VIEWS * len(self.fields):
            self._shards.pop(next(iter(self._shards))).close()
        try:
            shard = Shard(path, field.layout)
        except OSError as error:
            self._stop(error)
            return None
        if shard.was_cut_off:
            print(f"replay: {path} was cut off; what is missing is asked of the teacher again")
        self._shards[key] = shard
        return shard

    def _stop(self, error: OSError) -> None:
        self.stopped = error.strerror or str(error)
        print(f"replay: recording ends here ({self.stopped}); the teacher answers what is not recorded")

    def _path(self, view: int, field: RecordedField) -> Path:
        return self.folder / field.name / f"view-{view:05}.bin"


def _by_view(field: RecordedField, samples_B: Integers, views_B: Integers) -> list[tuple[int, Integers, Integers]]:
    """Return of each view: its number, the places of its samples in the batch, and of their units."""
    counts_B = field.layout.counts(samples_B)
    starts_B = np.cumsum(counts_B) - counts_B
    found = []
    for view in np.unique(views_B).tolist():
        positions = np.flatnonzero(views_B == view)
        found.append((view, positions, ranges(starts_B[positions], counts_B[positions])))
    return found


def bytes_a_view(fields: Mapping[str, RecordedField]) -> int:
    """Return how much disk one view takes."""
    return sum(field.layout.file_bytes for field in fields.values())


def make_room(root: Path, key: Mapping[str, Any], *, needed: int, at_most: int) -> str | None:
    """Drop the records that were used longest ago until another fits; none that a process has open.

    Args:
        root: ``<store>/replays``.
        key: Of the record that needs room.
        needed: Its bytes when it is whole.
        at_most: Bytes of all records together.

    Returns:
        None where there is room now, else why there is not; then nothing was dropped.
    """
    mine = root / content_hash(key)
    if needed > at_most:
        return f"more than teacher.replay_max_gb={at_most / 1e9:g}"
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(".*.dropped"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    locks = {lock: lock.stat().st_mtime for lock in root.glob(f"*{LOCK}") if lock.stem != mine.name}
    sizes = {lock: _size(lock.with_suffix("")) for lock in locks}
    over = needed + sum(sizes.values()) - at_most
    to_drop: list[tuple[Path, int]] = []
    why = None
    try:
        for lock in sorted(locks, key=lambda each: locks[each]):
            if over <= 0:
                break
            file = _open_lock(lock.with_suffix(""))
            to_drop.append((lock.with_suffix(""), file))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # in use
                os.close(to_drop.pop()[1])
                continue
            over -= sizes[lock]
        freed = sum(sizes[folder.with_suffix(LOCK)] for folder, _ in to_drop)
        if over > 0:
            why = f"with the records that are in use more than teacher.replay_max_gb={at_most / 1e9:g}"
        # The other half is for what else is written: a full disk would take the checkpoints with it.
        elif needed - _size(mine) > (free := shutil.disk_usage(root).free + freed) / 2:
            why = f"more than half of the {free / 1e9:.1f} GB that are free there"
        if why is None:
            for folder, _ in to_drop:
                with suppress(FileNotFoundError):
                    gone = folder.rename(folder.with_name(f".{folder.name}.dropped"))
                    shutil.rmtree(gone, ignore_errors=True)
        return why
    finally:
        for _, file in to_drop:
            os.close(file)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a record's manifest; empty where there is none."""
    path = folder / MANIFEST
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content


def _open_lock(folder: Path) -> int:
    return os.open(folder.with_suffix(LOCK), os.O_RDWR | os.O_CREAT, 0o644)


def _size(folder: Path) -> int:
    """Return what a folder takes of the disk; files are as long as they will be, and have gaps until then."""
    with suppress(FileNotFoundError):
        return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))
    return 0
