"""Facts that the rows themselves show: null markers, formats of dates, distributions, dependencies, fan-out.

All but the fan-out are read off a random sample, which is a function of the database alone.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from tutelage.core.randomness import generator
from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.database.schema import Catalog, Column, Table, Value
from tutelage.text2sql.database.sql_text import quote
from tutelage.text2sql.explore.facts.fact import Fact, Kind, subject_of
from tutelage.text2sql.explore.pair import Json
from tutelage.text2sql.explore.words import phrase

SAMPLE = 2_000  # rows of a table
_LONGEST = 300  # characters of a cell that are looked at
_MAX_COLUMNS = 40  # of a table, among which dependencies are looked for
_CHANCE = 0.001  # a dependency that chance would give as often as this, over all that are tried, is none

# By table and column: the cells of a random sample of its rows, in the rows' order.
Sample: TypeAlias = Mapping[tuple[str, str], Sequence[Value | None]]


def draw_sample(catalog: Catalog, execute: Callable[[str], Result], *, size: int = SAMPLE) -> Sample:
    """Draw random rows of each table, long texts cut; a table that cannot be read in time has none."""
    cells: dict[tuple[str, str], Sequence[Value | None]] = {}
    for table in catalog.tables:
        rows = _rows(table, execute, size)
        for place, column in enumerate(table.columns):
            cells[table.name, column.name] = [row[place] for row in rows]
    return cells


def _rows(table: Table, execute: Callable[[str], Result], size: int) -> list[tuple[Value | None, ...]]:
    if not table.num_rows:
        return []
    names = [quote(column.name) for column in table.columns]
    shown = ", ".join(
        f"CASE typeof({name}) WHEN 'text' THEN substr({name}, 1, {_LONGEST}) WHEN 'blob' THEN NULL ELSE {name} END"
        for name in names
    )
    source = quote(table.name)
    if table.num_rows <= size:
        return execute(f"SELECT {shown} FROM {source}").rows
    ends = execute(f"SELECT min(rowid), max(rowid) FROM {source}")
    low, high = ends.rows[0] if ends.status == "ok" and ends.rows else (None, None)
    if isinstance(low, int) and isinstance(high, int):
        # More are drawn than are wanted where deleted rows have left gaps.
        drawn = generator("facts", table.name).integers(low, high + 1, size=2 * size)
        chosen = ", ".join(str(number) for number in dict.fromkeys(drawn.tolist()))
        rows = execute(f"SELECT {shown} FROM {source} WHERE rowid IN ({chosen})").rows
        if len(rows) >= min(size // 4, table.num_rows):
            return [rows[place * len(rows) // size] for place in range(size)] if len(rows) > size else rows
    # A view, a table WITHOUT ROWID, or one with few rows over a wide range: each row by a hash of its number.
    share = int(2**32 * size / table.num_rows)
    numbered = f"SELECT {', '.join(names)}, row_number() OVER () AS place_of_row FROM {source}"
    return execute(
        f"SELECT {shown} FROM ({numbered}) WHERE (place_of_row * 2654435761) % 4294967296 < {share} LIMIT {size}"
    ).rows


def facts_from_data(catalog: Catalog, sample: Sample) -> Iterator[Fact]:
    """Yield what a sample of the rows shows, and how many rows each key leads from."""
    for table in catalog.tables:
        for column in table.columns:
            cells = [cell for cell in sample[table.name, column.name] if cell is not None]
            if cells:
                yield from _column_facts(table, column, cells)
        yield from _dependencies(table, {column.name: sample[table.name, column.name] for column in table.columns})
    yield from _fan_outs(catalog)


def _column_facts(table: Table, column: Column, cells: list[Value]) -> Iterator[Fact]:
    about = subject_of(column)
    keys = {name for key in table.foreign_keys for name in key.columns} | {*table.primary_key}
    if column.name not in keys:
        for value, confidence in null_markers(column, cells).items():
            yield Fact(subject_of(column, value=value), "null", True, "data", confidence)
        for value, meaning, confidence in _plain_codes(column, cells):
            yield Fact(subject_of(column, value=value), "code", meaning, "data", confidence)
        yield Fact(about, "distribution", _distribution(table, column, cells), "data", 1.0)
    if found := date_format(column, cells):
        yield Fact(about, "format", found[0], "data", found[1])


# ---- null markers

# Texts that say "nothing known", with how sure that is; 'NA' is Namibia and North America, too, and 'none' an answer.
_NULL_TEXTS = {
    "n/a": 0.95, "#n/a": 0.95, "n.a.": 0.9, "null": 0.95, "(null)": 0.95, "\\n": 0.95, "nan": 0.9, "nil": 0.8,
    "": 0.95, "-": 0.85, "--": 0.9, "—": 0.9, "–": 0.85, "?": 0.85, "??": 0.85, "...": 0.8, "unknown": 0.8, "unk": 0.7,
    "not available": 0.9, "not applicable": 0.85, "not known": 0.9, "unspecified": 0.75, "undefined": 0.8,
    "missing": 0.8, "tbd": 0.8, "tba": 0.8, "na": 0.7, "none": 0.4,
}  # fmt: skip
# What nothing has none of: a 0 among these was never measured.
_EXTENTS = {
    "height", "weight", "width", "length", "depth", "age", "year", "size", "mass", "horsepower", "latitude",
    "longitude", "elevation", "area", "perimeter", "circumference",
}  # fmt: skip


def null_markers(column: Column, cells: Sequence[Value]) -> dict[Value, float]:
    """The values of a column that seem to say that nothing is known, with how sure that is."""
    counts = Counter(cells)
    found: dict[Value, float] = {}
    texts = [value for value in counts if isinstance(value, str)]
    short = sum(counts[text] for text in texts if len(text.strip()) == 2 and text.strip().isalpha())
    for text in texts:
        said = text.strip().casefold()
        if (sure := _NULL_TEXTS.get(said)) is not None and len(counts) > 1:
            # Among codes of two letters, 'NA' is one of them.
            found[text] = 0.2 if said == "na" and short > 0.5 * len(cells) else sure
    words = set(phrase(column.name).lower().split())
    numbers = Counter({value: count for value, count in counts.items() if not isinstance(value, str)})
    rest = np.array(sorted(float(value) for value in numbers if value > 0))
    if rest.size < 5:
        return found
    typical = float(np.median(rest))
    for value, count in numbers.items():
        if value < 0 and not any(other < 0 and other != value for other in numbers) and count > 1:
            # One negative number, again and again, among positive ones.
            if value in (-1, -9, -99, -999, -9999):
                found[value] = 0.85 if value != -1 else 0.7
        elif value in (999, 9999, 99999, 999999) and count > 1 and value > 5 * float(np.quantile(rest[:-1], 0.99)):
            found[value] = 0.7
    zeros = counts.get(0, 0)
    if zeros and min(numbers) >= 0 and not words & {"number", "count", "num"}:
        # No value comes near 0 but 0 itself, which is much more frequent than any other: it was not measured.
        gap = rest[0] >= 0.02 * typical and rest[0] > 1
        usual = float(np.median([count for value, count in numbers.items() if value != 0]))
        if words & _EXTENTS and gap:
            found[0] = 0.8 if zeros >= 3 * usual else 0.6
        elif gap and zeros >= 0.02 * len(cells) and rest[0] >= 0.2 * typical and zeros >= 3 * usual:
            found[0] = 0.35  # a price that is waived, a count of none: for a person to judge
    return found


# ---- formats of dates and times

_TIME = r"(?P<time>\d{1,2}:\d\d(?P<seconds>:\d\d(?P<fraction>\.\d+)?)?)"
_ZONE = r"(?P<zone> ?(?:Z|UTC|[+-]\d\d:?\d\d|[+-]\d\d))?"
_DAYS = (
    (rf"\d{{4}}-\d{{1,2}}-\d{{1,2}}(?:(?P<t>[ T]){_TIME}{_ZONE})?", "%Y-%m-%d"),
    (rf"\d{{4}}/\d{{1,2}}/\d{{1,2}}(?:(?P<t> ){_TIME})?", "%Y/%m/%d"),
    (rf"\d{{1,2}}/\d{{1,2}}/\d{{4}}(?:(?P<t> ){_TIME}(?: ?[AP]M)?)?", "slashed"),
    (rf"\d{{1,2}}/\d{{1,2}}/\d{{2}}(?:(?P<t> ){_TIME})?", "slashed, short"),
    (rf"\d{{1,2}}\.\d{{1,2}}\.\d{{4}}(?:(?P<t> ){_TIME})?", "%d.%m.%Y"),
    (rf"\d{{1,2}}-[A-Z][a-z]{{2}}-\d{{4}}(?:(?P<t> ){_TIME})?", "%d-%b-%Y"),
    (r"\d{1,2}-[A-Z][a-z]{2}-\d{2}", "%d-%b-%y"),
    (r"\d{1,2} [A-Z][a-z]{2} \d{4}", "%d %b %Y"),
    (r"\d{1,2} [A-Z][a-z]{3,8} \d{4}", "%d %B %Y"),
    (r"[A-Z][a-z]{2}\.? \d{1,2}, ?\d{4}", "%b %d, %Y"),
    (r"[A-Z][a-z]{2,8} \d{1,2}, ?\d{4}", "%B %d, %Y"),
    (r"[A-Z][a-z]{2,8} \d{4}", "%B %Y"),
    (r"\d{4}-(?:0[1-9]|1[0-2])", "%Y-%m"),
    (rf"{_TIME}", "clock"),
)
# Seconds and milliseconds since 1970, for the years 2001 to 2096.
_EPOCHS = (("epoch seconds", 10**9, 4 * 10**9), ("epoch milliseconds", 10**12, 4 * 10**12))
_MOMENT = {"date", "time", "timestamp", "at", "on", "epoch", "unix", "created", "updated", "modified", "datetime", "ts"}


def date_format(column: Column, cells: Sequence[Value]) -> tuple[str, float] | None:
    """How a column writes dates or times, with how sure that is; None where it holds none."""
    words = {word.lower() for word in phrase(column.name).split()}
    texts = [cell.strip() for cell in cells if isinstance(cell, str) and cell.strip()]
    if len(texts) > 0.9 * len(cells):
        texts = [text for text in texts if text.casefold() not in _NULL_TEXTS]
        return _written_format(texts) or _number_format(words, _whole(texts))
    return _number_format(words, _whole(cells))


def _whole(cells: Sequence[Value]) -> list[int] | None:
    try:
        return [int(cell) for cell in cells if float(cell) == int(float(cell))] or None
    except (ValueError, OverflowError):
        return None


def _number_format(words: set[str], numbers: list[int] | None) -> tuple[str, float] | None:
    if not numbers:
        return None
    low, high = min(numbers), max(numbers)
    if words & _MOMENT:
        for name, least, most in _EPOCHS:
            if least <= low <= high < most:
                return name, 0.9
    if 19000101 <= low <= high <= 21001231 and _calendar(numbers, days=True):
        return "%Y%m%d", 0.9 if words & (_MOMENT | {"day"}) else 0.7
    if 190001 <= low <= high <= 210012 and _calendar(numbers, days=False):
        named = words & {"month", "yearmonth", "yearmon", "mon", "period", "ym", "date", "yyyymm"}
        return ("%Y%m", 0.9) if named else ("%Y%m", 0.45)
    if "year" in words and 1000 <= low <= high <= 2100:
        return "%Y", 0.95
    return None


def _calendar(numbers: Sequence[int], *, days: bool) -> bool:
    months = [number // 100 % 100 if days else number % 100 for number in numbers]
    return all(1 <= month <= 12 for month in months) and (not days or all(1 <= n % 100 <= 31 for n in numbers))


def _written_format(texts: Sequence[str]) -> tuple[str, float] | None:
    if not texts:
        return None
    for pattern, form in _DAYS:
        matches = [re.fullmatch(pattern, text) for text in texts]
        found = [match for match in matches if match is not None]
        if len(found) < 0.95 * len(texts):
            continue
        confidence = 0.98 if len(found) == len(texts) else 0.8
        if form.startswith("slashed"):
            form, sure = _slashed([match[0] for match in found], short="short" in form)
            confidence = min(confidence, sure)
        clock = next((match for match in found if match.groupdict().get("time")), None)
        if form == "clock":
            return ("%H:%M:%S" if clock and clock["seconds"] else "%H:%M"), 0.8
        if clock is not None:
            named = clock.groupdict()
            time = "%H:%M" + (":%S" if named["seconds"] else "") + (".%f" if named.get("fraction") else "")
            zone = named.get("zone") or ""
            form += f"{named['t']}{time}{'Z' if zone.strip() == 'Z' else '%z' if zone else ''}"
        return form, confidence
    return None


def _slashed(texts: Sequence[str], *, short: bool) -> tuple[str, float]:
    """Month or day first: the one that passes 12 is the day."""
    parts = [text.split(" ")[0].split("/") for text in texts]
    first, second = max(int(part[0]) for part in parts), max(int(part[1]) for part in parts)
    year = "%y" if short else "%Y"
    if first > 12 >= second:
        return f"%d/%m/{year}", 0.95
    return f"%m/%d/{year}", 0.95 if second > 12 >= first else 0.5


# ---- codes that need no description

_SEXES = {"m": "male", "f": "female"}
_ANSWERS = {"y": "yes", "n": "no"}
_TRUTHS = {"t": "true", "f": "false"}


def _plain_codes(column: Column, cells: Sequence[Value]) -> Iterator[tuple[Value, str, float]]:
    """What single letters stand for where their column leaves no doubt."""
    texts = {cell for cell in cells if isinstance(cell, str) and cell.strip()}
    letters = {text.strip().lower() for text in texts}
    words = set(phrase(column.name).lower().split())
    for codes, confidence in (
        (_SEXES, 0.95 if words & {"sex", "gender"} else 0.0),
        (_ANSWERS, 0.9),
        (_TRUTHS, 0.9 if "t" in letters else 0.0),
    ):
        if confidence and letters and letters <= codes.keys() and len(texts) <= 2:
            yield from ((text, codes[text.strip().lower()], confidence) for text in sorted(texts))
            return


# ---- distributions


def _distribution(table: Table, column: Column, cells: Sequence[Value]) -> dict[str, Json]:
    total = table.num_rows or len(cells)
    shares: dict[str, Json] = {"rows": total, "sampled": min(total, SAMPLE)}
    if column.num_distinct is not None:
        shares["distinct"] = column.num_distinct
    if column.num_null:
        shares["nulls"] = round(column.num_null / total, 3)
    numbers = [float(cell) for cell in cells if not isinstance(cell, str)]
    if len(numbers) == len(cells) and len(set(numbers)) > 10:
        shares["quartiles"] = [_short(float(part)) for part in np.quantile(numbers, (0, 0.25, 0.5, 0.75, 1))]
    else:
        frequent = sorted(Counter(cells).items(), key=lambda item: (-item[1], str(item[0])))[:5]
        shares["frequent"] = [
            [value, round(count / len(cells), 3)] for value, count in frequent if len(str(value)) < 60
        ]
    return shares


def _short(number: float) -> int | float:
    return int(number) if number == int(number) else float(f"{number:.4g}")


# ---- dependencies and hierarchies


def _dependencies(table: Table, cells: Mapping[str, Sequence[Value | None]]) -> Iterator[Fact]:
    """Yield the columns that follow from another one's value, and chains of them from fine to coarse."""
    rows = len(next(iter(cells.values()), ()))
    codes: dict[str, np.ndarray] = {}
    for name, values in list(cells.items())[:_MAX_COLUMNS]:
        if rows >= 20 and all(value is not None for value in values):
            _, inverse = np.unique([f"{type(value).__name__}{value}" for value in values], return_inverse=True)
            if 1 < inverse.max() + 1 < 0.8 * rows:
                codes[name] = inverse
    found: dict[str, list[str]] = {}
    tries = max(1, len(codes) * (len(codes) - 1))
    for name, code in codes.items():
        for other, theirs in codes.items():
            if name != other and _follows(code, theirs, tries):
                found.setdefault(name, []).append(other)
    for name, others in found.items():
        yield Fact(subject_of(table.column(name)), "determines", list(others), "data", 0.9)
    finer = {
        name: [other for other in others if name not in found.get(other, ()) and not _numeric(cells[other])]
        for name, others in found.items()
        if not _numeric(cells[name])
    }
    if chains := _chains(finer):
        yield Fact(subject_of(table), "hierarchies", [list(chain) for chain in chains], "data", 0.8)


def _numeric(values: Sequence[Value | None]) -> bool:
    """Whether a column holds numbers, as text or not."""
    return all(not isinstance(value, str) or re.fullmatch(r"\s*(?:-?[\d.,:]+)?\s*", value) for value in values)


def _follows(code: np.ndarray, theirs: np.ndarray, tries: int) -> bool:
    """Whether one column's value decides another's, and not by chance."""
    paired = len(np.unique(code * (int(theirs.max()) + 1) + theirs))
    distinct = int(code.max()) + 1
    if paired != distinct:
        return False
    # Each further row of a value would have had the same other value by chance as often as two rows agree in it.
    agree = float(((np.bincount(theirs) / len(theirs)) ** 2).sum())
    return float((len(code) - distinct) * np.log(agree)) < float(np.log(_CHANCE / tries))


def _chains(finer: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """The longest chains: each column determines the next one, and none determines the first."""

    def longest(name: str, before: tuple[str, ...]) -> tuple[str, ...]:
        rest = [longest(other, (*before, name)) for other in finer.get(name, ()) if other not in before]
        return (name, *max(rest, key=len, default=()))

    chains = [longest(name, ()) for name in finer if not any(name in others for others in finer.values())]
    return [chain for chain in chains if len(chain) > 1 and all(a != b for a, b in pairwise(chain))]


# ---- keys


def _fan_outs(catalog: Catalog) -> Iterator[Fact]:
    """Count, from the catalog's statistics, how many rows lead to one by each key of one column."""
    kind: Kind = "fan_out"
    for key in catalog.foreign_keys:
        if len(key.columns) != 1:
            continue
        column, referred = catalog.column(key.table, key.columns[0]), catalog.table(key.referred_table)
        rows = (catalog.table(key.table).num_rows or 0) - (column.num_null or 0)
        if rows > 0 and column.num_distinct and referred.num_rows:
            reached = min(1.0, column.num_distinct / referred.num_rows)
            value: dict[str, Json] = {
                "mean": round(rows / column.num_distinct, 2),
                "without": round(1 - reached, 3),
            }
            yield Fact(subject_of(key), kind, value, "data", 1.0)
