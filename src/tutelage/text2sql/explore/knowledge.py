"""What is known of a database before questions are written: what its columns mean, and how it is asked.

Semantic knowledge is a record a column; structural knowledge is mined from seed queries: which tables are joined
and on what, and which shapes queries have, each with its support. Kept as JSON lines, a record a line.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlglot
from sqlglot.errors import SqlglotError

from tutelage.core.store import write_atomically
from tutelage.text2sql.database.schema import Catalog, Column, Value
from tutelage.text2sql.explore.reading import JoinRef, Reader, Reading, operators_of, skeleton_of
from tutelage.text2sql.explore.seeds import Seed
from tutelage.text2sql.explore.words import phrase

NUM_VALUES = 5  # values that show what a column holds

# A unit stands at the end of a name (height_cm) or in the description ("The unit of height is centimeter.").
_UNITS = {
    "cm": "centimeters", "mm": "millimeters", "km": "kilometers", "kmh": "kilometers per hour", "ft": "feet",
    "inch": "inches", "inches": "inches", "feet": "feet", "meters": "meters", "metres": "metres", "miles": "miles",
    "kg": "kilograms", "lb": "pounds", "lbs": "pounds", "grams": "grams", "tons": "tons", "mph": "miles per hour",
    "sec": "seconds", "secs": "seconds", "seconds": "seconds", "mins": "minutes", "minutes": "minutes",
    "ms": "milliseconds", "milliseconds": "milliseconds", "hrs": "hours", "hours": "hours", "days": "days",
    "weeks": "weeks", "months": "months",
    "usd": "US dollars", "dollars": "dollars", "eur": "euros", "euros": "euros", "gbp": "pounds sterling",
    "pct": "percent", "percent": "percent", "percentage": "percent", "celsius": "degrees Celsius",
    "fahrenheit": "degrees Fahrenheit", "millions": "millions", "billions": "billions", "thousands": "thousands",
    "bytes": "bytes", "kb": "kilobytes", "mb": "megabytes", "gb": "gigabytes", "degrees": "degrees", "hz": "hertz",
}  # fmt: skip
_UNIT_SENTENCE = re.compile(r"\bunits?(?: of [\w ]{1,40})? (?:is|are|:) *(?:in )?(?:the )?([a-zA-Z°/%²³ ]{1,30})")

# What people say for what a name says; both ways round.
_SYNONYMS = (
    ("amount", "sum"), ("salary", "pay", "wage"), ("price", "cost"), ("city", "town"), ("country", "nation"),
    ("gender", "sex"), ("phone", "telephone"), ("email", "e-mail address"), ("birthday", "date of birth", "birth date"),
    ("last name", "surname", "family name"), ("first name", "given name"), ("zip code", "postal code"),
    ("movie", "film"), ("car", "automobile"), ("employee", "worker"), ("company", "firm"), ("address", "location"),
    ("quantity", "number"), ("year", "calendar year"), ("rating", "score"), ("language", "tongue"), ("color", "colour"),
    ("population", "number of inhabitants"), ("area", "size"), ("job", "occupation"), ("airline", "carrier"),
    ("departure", "take-off"), ("arrival", "landing"), ("destination", "place of arrival"),
    ("origin", "place of departure"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ColumnMeaning:
    """What a column means."""

    table: str
    column: str
    name: str  # as a person says it
    description: str  # "" where nobody described it
    values: tuple[Value, ...]  # the most frequent
    value_description: str
    unit: str | None  # "centimeters"
    synonyms: tuple[str, ...]  # other names for the name


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

    columns: tuple[ColumnMeaning, ...]
    joins: tuple[JoinShape, ...]
    skeletons: tuple[Skeleton, ...]

    def write_jsonl(self, path: Path) -> None:
        """Write a record a line, each with its ``kind``."""
        kinds = (("column", self.columns), ("join", self.joins), ("skeleton", self.skeletons))
        lines = [
            json.dumps({"kind": kind, **asdict(record)}, ensure_ascii=False)
            for kind, records in kinds
            for record in records
        ]
        write_atomically(path, "".join(line + "\n" for line in lines))


def mine(catalog: Catalog, *, seeds: Sequence[Seed], readings: Iterable[Reading]) -> Knowledge:
    """Gather what is known of a database.

    Args:
        catalog: The database, with its statistics and descriptions.
        seeds: Seeds of any database: shapes of queries carry over.
        readings: The seeds of this database, as :func:`read_fitting` read them.
    """
    columns = tuple(_meaning(column) for table in catalog.tables for column in table.columns)
    return Knowledge(columns, _joins(catalog, readings), _skeletons(seeds))


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


def _meaning(column: Column) -> ColumnMeaning:
    name, unit = column.spoken_name or phrase(column.name), _unit(column)
    if unit and len(words := name.split()) > 1 and _UNITS.get(words[-1].lower()) == unit:
        name = " ".join(words[:-1]).removesuffix(" in")  # "height cm" is a height
    return ColumnMeaning(
        table=column.table,
        column=column.name,
        name=name,
        description=column.description or column.comment,
        values=column.frequent[:NUM_VALUES],
        value_description=column.value_description,
        unit=unit,
        synonyms=_synonyms(name),
    )


def _unit(column: Column) -> str | None:
    words = [word for word in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", column.name) if word]
    if len(words) > 1 and isinstance(column.maximum, int | float) and (unit := _UNITS.get(words[-1].lower())):
        return unit
    if said := _UNIT_SENTENCE.search(f"{column.value_description} {column.description} {column.comment}"):
        word = said[1].strip().lower()
        return _UNITS.get(word) or _UNITS.get(f"{word}s", word)
    return None


def _synonyms(name: str) -> tuple[str, ...]:
    padded = f" {name.lower()} "  # whole words only
    found = dict.fromkeys(
        padded.replace(f" {word} ", f" {other} ").strip()
        for group in _SYNONYMS
        for word in group
        if f" {word} " in padded
        for other in group
        if other != word
    )
    return tuple(found)


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
