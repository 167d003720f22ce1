"""What a connection to a server must be able to do."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tutelage.text2sql.database.session import Status

# Waiting for somebody else's lock longer than this would only hide it.
LOCK_SECONDS = 2.0
CONNECT_SECONDS = 10
# What one batch of rows may weigh on its way from the server, about.
_BATCH_BYTES = 4 * 1024 * 1024
_BATCH_ROWS = 5_000


class ServerTooOld(Exception):
    """The server is older than what is known to hold our promises."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A result that is being read: the names of its columns, and its rows, which come in batches."""

    columns: tuple[str, ...]
    rows: Iterator[Sequence[Any]]


class Driver(Protocol):
    """One connection that can only read. Used by one thread; only ``cancel`` is called from another one.

    Its methods raise what the driver's library raises; ``verdict`` says what that means.
    """

    def begin(self, sql: str, seconds: float) -> Rows:
        """Start a query in a new read-only transaction, which the server itself ends after ``seconds``."""
        ...

    def end(self) -> None:
        """Leave the transaction."""
        ...

    def cancel(self) -> None:
        """End the running query on the server."""
        ...

    def close(self) -> None:
        """Close the connection; also one that is broken."""
        ...

    def verdict(self, error: Exception) -> tuple[Status, str]:
        """Say how a query ended, by the error that it raised."""
        ...


def in_batches(fetch: Callable[[int], Sequence[Sequence[Any]]]) -> Iterator[Sequence[Any]]:
    """Read a result by batches that start small, grow, and stay small where rows are large."""
    count = 100
    while batch := fetch(count):
        yield from batch
        count = max(1, min(_BATCH_ROWS, 4 * count, _BATCH_BYTES // max(1, size_of(batch[0]))))


def size_of(value: object) -> int:
    """How many bytes a value holds, with all that is in it."""
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        return size + sum(size_of(key) + size_of(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return size + sum(map(size_of, value))
    return size
