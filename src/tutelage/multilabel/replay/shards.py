"""The files of a record: the rows of one field in one view, each with a checksum.

A file begins with a checksum for each sample (CRC-32; 0 where nothing is recorded yet), then come the rows, at places
that the layout alone gives. So any part of it may be missing or damaged: what does not agree with its checksum counts
as not recorded. Nothing needs to be renamed or flushed in a certain order, and a file whose writer was killed, or that
was cut off, still serves all other samples.
"""

# B samples of a batch, N samples, U units

import fcntl
import mmap
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


def ranges(starts: Integers, counts: Integers) -> Integers:
    """Return ``starts[0] … starts[0] + counts[0] − 1, starts[1] …`` as one array."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where the rows of samples lie: sample n has the units ``starts[n]`` to ``starts[n + 1] − 1``.

    Attributes:
        unit_bytes: Of one unit: a sample's logits, or the map of one of its labels.
        starts: int64 [N + 1].
    """

    unit_bytes: int
    starts: Integers

    @property
    def num_samples(self) -> int:
        return len(self.starts) - 1

    @property
    def num_units(self) -> int:
        return int(self.starts[-1])

    @property
    def file_bytes(self) -> int:
        """Size of a whole file."""
        return 4 * self.num_samples + self.num_units * self.unit_bytes

    def counts(self, samples_B: Integers) -> Integers:
        """Return how many units each sample has."""
        counts: Integers = self.starts[samples_B + 1] - self.starts[samples_B]
        return counts


class Shard:
    """One file, read through a memory map and written in place. Several processes may hold it at once.

    Attributes:
        damaged: How many rows were found that did not agree with their checksum.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        """Open a file, and make or lengthen it where it is missing or cut off.

        It takes up room on the disk only where rows were written.

        Raises:
            OSError: It cannot be made.
        """
        self.path, self.layout, self.damaged = path, layout, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        size = os.fstat(self._file).st_size
        self.was_cut_off = 0 < size < layout.file_bytes
        if size < layout.file_bytes:
            os.ftruncate(self._file, layout.file_bytes)
        # Written with pwrite and not through the map: on a full disk that is an error, and this a signal that kills.
        mapped = mmap.mmap(self._file, layout.file_bytes, access=mmap.ACCESS_READ)
        mapped.madvise(mmap.MADV_WILLNEED)  # an epoch will want all of it, in random order
        head = 4 * layout.num_samples
        self._checksums_N = np.frombuffer(mapped, np.uint32, layout.num_samples)
        units = np.frombuffer(mapped, np.uint8, layout.file_bytes - head, offset=head)
        self._units_US = units.reshape(layout.num_units, layout.unit_bytes)

    def close(self) -> None:
        os.close(self._file)  # the map closes with the last array that shows it

    def read(self, samples_B: Integers) -> tuple[Bytes, Flags]:
        """Return the samples' units one after the other, [U, unit_bytes], and which samples' are whole."""
        units_US, whole_B = self._read(samples_B)
        self.damaged += int((~whole_B & (self._checksums_N[samples_B] != 0)).sum())
        return units_US, whole_B

    def write(self, samples_B: Integers, units_US: Bytes) -> Bytes:
        """Keep the samples' units, unless another process was first; return those that are kept.

        Raises:
            OSError: The disk is full, for one. What could not be written counts as not recorded.
        """
        counts_B = self.layout.counts(samples_B)
        ends_B = np.cumsum(counts_B)
        checksums_B = _checksums(units_US, counts_B)
        with self._one_writer():
            kept_US, whole_B = self._read(samples_B)
            for position in np.flatnonzero(~whole_B):
                sample, end = int(samples_B[position]), int(ends_B[position])
                row = units_US[end - int(counts_B[position]) : end]
                start = 4 * self.layout.num_samples + int(self.layout.starts[sample]) * self.layout.unit_bytes
                _write_all(self._file, row.tobytes(), start)
                _write_all(self._file, checksums_B[position].tobytes(), 4 * sample)
                kept_US[end - int(counts_B[position]) : end] = row
        return kept_US

    def _read(self, samples_B: Integers) -> tuple[Bytes, Flags]:
        counts_B = self.layout.counts(samples_B)
        units_US = self._units_US[ranges(self.layout.starts[samples_B], counts_B)]
        return units_US, _checksums(units_US, counts_B) == self._checksums_N[samples_B]

    @contextmanager
    def _one_writer(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


def num_recorded(path: Path, layout: Layout) -> int:
    """Count the samples that have a row in a file, without reading the rows."""
    return int(np.count_nonzero(np.fromfile(path, np.uint32, layout.num_samples)))


def _checksums(units_US: Bytes, counts_B: Integers) -> NDArray[np.uint32]:
    """CRC-32 of each sample's units; 1 where it is 0, which stands for nothing."""
    ends = np.cumsum(counts_B).tolist()
    starts = [0, *ends[:-1]]
    return np.array([zlib.crc32(units_US[a:b].data) or 1 for a, b in zip(starts, ends, strict=True)], np.uint32)


def _write_all(file: int, content: bytes, offset: int) -> None:
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written
