"""How a database is asked, mined from seed queries: which tables are joined and on what, and which shapes queries have.

Each has its support. Kept as JSON lines, a record a line. What the database means stands in ``facts/``.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlglot
from sqlglot.errors import SqlglotError

from tutelage.core.store import write_atomically
from tutelage.text2sql.database.schema import Catalog
from tutelage.text2sql.explore.reading import JoinRef, Reader, Reading, operators_of, skeleton_of
from tutelage.text2sql.explore.seeds import Seed


@dataclass(frozen=True, slots=True)
class JoinShape:
    """Columns by whose equality tables are joined in one query; a foreign key that no seed uses has support 0."""

    on: tuple[JoinRef, ...]
    support: int  # seed queries


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The shape of a query, its names and values taken out."""

    text: str  # SELECT _ FROM _ WHERE _ > ?
    operators: tuple[str, ...]
    support: int  # seed queries, of any database


@dataclass(frozen=True, slots=True)
class Knowledge:
    """All of it; joins and skeletons stand by falling support."""

    joins: tuple[JoinShape, ...]
    skeletons: tuple[Skeleton, ...]

    def write_jsonl(self, path: Path) -> None:
        """Write a record a line, each with its ``kind``."""
        kinds = (("join", self.joins), ("skeleton", self.skeletons))
        lines = [
            json.dumps({"kind": kind, **asdict(record)}, ensure_ascii=False)
            for kind, records in kinds
            for record in records
        ]
        write_atomically(path, "".join(line + "\n" for line in lines))


def mine(catalog: Catalog, *, seeds: Sequence[Seed], readings: Iterable[Reading]) -> Knowledge:
    """Mine how a database is asked.

    Args:
        catalog: The database, with its statistics and descriptions.
        seeds: Seeds of any database: shapes of queries carry over.
        readings: The seeds of this database, as :func:`read_fitting` read them.
    """
    return Knowledge(_joins(catalog, readings), _skeletons(seeds))


def read_fitting(catalog: Catalog, seeds: Iterable[Seed]) -> tuple[tuple[Reading, ...], dict[str, int]]:
    """Read the seeds that ask this database.

    Returns:
        The readings, and how many seeds were used and how many were not, by reason.
    """
    reader = Reader(catalog)
    readings: list[Reading] = []
    counts = {"used": 0, "of another database": 0, "unreadable": 0, "without a column of this database": 0}
    for seed in seeds:
        if not seed.asks(catalog.db_id):
            counts["of another database"] += 1
        elif (reading := reader.read(seed.sql)) is None:
            counts["unreadable"] += 1
        elif not reading.columns:
            counts["without a column of this database"] += 1
        else:
            counts["used"] += 1
            readings.append(reading)
    return tuple(readings), {reason: count for reason, count in counts.items() if count}


def _joins(catalog: Catalog, readings: Iterable[Reading]) -> tuple[JoinShape, ...]:
    support = Counter(tuple(sorted(reading.joins)) for reading in readings if reading.joins)
    for key in catalog.foreign_keys:
        sides = [
            ((key.table, here), (key.referred_table, there))
            for here, there in zip(key.columns, key.referred_columns, strict=True)
        ]
        support.setdefault(tuple(sorted((a, b) if a <= b else (b, a) for a, b in sides)), 0)
    ranked = sorted(support.items(), key=lambda item: (-item[1], item[0]))
    return tuple(JoinShape(on, count) for on, count in ranked)


def _skeletons(seeds: Iterable[Seed]) -> tuple[Skeleton, ...]:
    support = Counter[tuple[str, tuple[str, ...]]]()
    for seed in seeds:
        try:
            tree = sqlglot.parse_one(seed.sql, dialect="sqlite")
            support[skeleton_of(tree), operators_of(tree)] += 1
        except (SqlglotError, RecursionError):
            continue  # a seed in another dialect has no shape to teach here
    ranked = sorted(support.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Skeleton(text, operators, count) for (text, operators), count in ranked)
