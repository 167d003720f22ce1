"""What a column is for, read from its name and its values: no average over telephone numbers."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias, get_args

from tutelage.core.randomness import generator
from tutelage.text2sql.database.catalog import Catalog, Column, ForeignKey, Table, Value
from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.database.nouns import singular
from tutelage.text2sql.database.sql_text import identifier, literal
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.words import phrase

Role = Literal[
    "key",  # names a row and nothing else
    "name",  # what people call a row
    "category",  # few values, many rows
    "flag",  # yes or no
    "measure",  # a number that can be averaged
    "ordinal",  # a number that can be compared, and no more: a rank, a grade
    "year",
    "date",
    "text",  # free text, and dates that do not sort
    "code",  # a number or a text to be shown only: telephone, zip code, e-mail address
    "empty",
]

# Table, columns, referred table, referred columns.
SoundKey: TypeAlias = tuple[str, tuple[str, ...], str, tuple[str, ...]]

# A column with more distinct values than this is known by this many of them.
MAX_VALUES = 1000
# A table with more rows than this is known by so many random ones.
SAMPLED_ABOVE = 100_000
SAMPLE_ROWS = 5_000

_YES = {"t", "true", "yes", "y", "1", "1.0"}
NO = {"f", "false", "no", "n", "0", "0.0"}
_CODE = {
    "code", "zip", "postcode", "postal", "phone", "telephone", "mobile", "cell", "fax", "ssn", "isbn", "url",
    "website", "email", "mail", "uid", "guid", "uuid", "identifier", "password", "login", "token", "hash", "ip",
    "serial", "latitude", "longitude", "lat", "lng", "number", "account", "street", "line", "postbox", "uri",
    "link", "picture",
}  # fmt: skip
# Numbers under these names stand for something that has a name elsewhere.
STANDS_FOR = {
    "major", "advisor", "type", "status", "category", "class", "group", "manager", "owner", "parent", "gender",
    "sex", "state", "country", "region", "department", "capital", "city", "role", "kind", "color", "colour",
    "district", "hand", "ref",
}  # fmt: skip
_ORDINAL = {
    "rank", "ranking", "grade", "level", "position", "finish", "place", "seed", "round", "order", "priority",
    "stage", "version", "floor", "quarter", "month", "day", "week", "hour", "season", "episode", "step",
    "sequence", "tier", "best", "size", "star",
}  # fmt: skip
_TIME_PARTS = {"second", "minute", "hour", "day", "week", "month", "quarter"}
_RANKS = {"rank", "ranking", "position", "finish", "place", "seed", "priority"}
_WEIGHED = {"weight", "price", "height", "length", "size", "rate", "rating", "score", "salary"}
_CATEGORY = {
    "country", "city", "type", "status", "sex", "gender", "nationality", "state", "category", "language",
    "format", "hand", "surface", "theme", "region", "district", "hometown", "location", "genre", "role",
    "class", "color", "citizenship", "continent", "county", "department", "brand", "currency", "result",
    "content", "option", "disposition", "province", "company", "maker", "manufacturer", "affiliation", "party",
    "season", "position", "code", "director", "writer", "major", "abbreviation", "government", "club", "team",
    "league", "airline", "airport", "colour", "level",
}  # fmt: skip
_NAME = {"name", "title", "label", "nickname"}
# Can be summed over rows and still mean something.
_ADDITIVE = {
    "population", "amount", "cost", "sales", "number", "count", "total", "quantity", "capacity", "attendance",
    "earnings", "killed", "injured", "bonus", "spent", "vote", "point", "revenue", "profit", "budget",
    "expense", "fee", "payment", "gnp", "gdp", "area", "casualty", "ticket", "passenger", "goal", "viewer",
    "download", "stock", "delivery", "minute", "worth", "prize", "income", "balance", "distance", "tax", "loss",
    "win", "hour", "staff", "enrollment", "product",
}  # fmt: skip
# The name already says a statistic: an average of averages asks for nothing.
STATISTIC = {"average", "highest", "lowest", "maximum", "minimum", "total", "mean", "median"}
_DATE = re.compile(r"[12]\d{3}-[01]\d-[0-3]\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?: ?(?:Z|[+-]\d\d(?::?\d\d)?))?)?")
# Dates in text that sort by their first number, which is no year.
_SLASHED = re.compile(r"\d{1,2}[/.]\d{1,2}[/.](?:\d{2}|\d{4})(?: .*)?")
# Seconds and milliseconds since 1970, for the years 2001 to 2096.
_EPOCHS = ((1_000_000_000, 4_000_000_000), (1_000_000_000_000, 4_000_000_000_000))
_MOMENTS = {"date", "time", "timestamp", "at", "on", "epoch", "unix", "created", "updated", "modified"}
_MONTHS_OF_YEARS = {"yearmonth", "yearmon", "yyyymm"}
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of a column: its role, and the values it takes.

    ``values`` are distinct, without NULL and blanks; numbers kept as text come as numbers when ``numeric_text``.
    """

    role: Role
    values: tuple[Value, ...]
    has_gaps: bool  # NULLs or blanks among its cells
    unique: bool  # no two rows share a value
    numeric_text: bool = False  # numbers in a text column: they compare as text unless cast
    has_blanks: bool = False  # empty text among its cells: cast, it would be 0
    markers: tuple[Value, ...] = ()  # values that say that nothing is known: they are not among ``values``
    fixed_width: bool = False  # numbers in a text column, all as long: as text they compare as numbers do
    whole: bool = False  # whole numbers only
    additive: bool = False  # a sum over rows means something
    statistic: bool = False  # its name says an aggregate already
    time_part: bool = False  # a month, an hour: asked by, and never asked for
    ranks: bool = False  # 1 is the best: "the highest rank" would say the least number or the greatest
    dated: Literal["day", "time", "compact", ""] = ""  # 2020-01-31, the same with a time, 20200131

    @property
    def comparable(self) -> bool:
        """Whether ``more than`` or ``before`` means something."""
        return self.role in ("measure", "ordinal", "year", "date")

    @property
    def listed(self) -> bool:
        """Whether anybody asks to see it: not a yes or no, nor the minute of an hour."""
        return self.role not in ("empty", "flag") and not self.time_part

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers to be reckoned with."""
        return self.role in ("measure", "ordinal", "year")


def _words(column: Column) -> list[str]:
    return [singular(word.lower()) for word in phrase(column.name).split()]


def as_number(value: Value) -> Value | None:
    """Read a number that may be kept as text; None for a blank and for any other text."""
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            return None
        return float(text) if "." in text else int(text)
    return value


def _profile(
    column: Column,
    table: Table,
    values: tuple[Value, ...],
    *,
    complete: bool,
    markers: tuple[Value, ...],
    has_blanks: bool,
    odd_text: bool,
    things: frozenset[str],
) -> Profile:
    """Decide a column's role.

    Args:
        column: The column.
        table: Its table.
        values: Its distinct values, NULLs left out, or a sample of them.
        complete: These are all of them.
        markers: Values that were left out because they say that nothing is known.
        has_blanks: Some cells are text without a letter.
        odd_text: Text beyond the sample that is no number.
        things: What other tables are about: a number under such a name stands for a row there.
    """
    filled = tuple(value for value in values if not isinstance(value, str) or value.strip())
    rows = table.num_rows or 0
    distinct = len(filled) if complete else (column.num_distinct or len(filled))
    nulls = column.num_null if column.num_null is not None else int(column.nullable)
    has_gaps = bool(nulls) or has_blanks or bool(markers)
    unique = distinct > 0 and distinct == rows and not has_gaps

    def profile(role: Role, kept: tuple[Value, ...] = filled) -> Profile:
        return Profile(role, kept, has_gaps, unique, markers=markers)

    if not filled:
        return profile("empty")
    words = _words(column)
    last, known = words[-1], set(words)
    key_columns = {name for key in table.foreign_keys for name in key.columns}
    numbers = [as_number(value) for value in filled]
    all_numbers = all(number is not None for number in numbers) and not odd_text
    named_id = last in ("id", "key") or (column.name.lower().endswith("id") and (column.name[-2:] == "ID" or unique))
    if named_id or table.primary_key == (column.name,) or (column.name in key_columns and all_numbers):
        return profile("key")

    lowered = {str(value).strip().lower() for value in filled}
    asks = phrase(column.name).split()[0] in ("is", "has", "if", "was", "can") or column.name.lower().endswith("_yn")
    letters = lowered & {"t", "true", "yes"} and lowered & {"f", "false", "no"}
    if lowered <= _YES | NO and len(lowered) <= 2 and (asks or letters or column.type.lower().startswith("bool")):
        return profile("flag")

    textual = any(isinstance(value, str) for value in filled)
    if all_numbers:
        reckoned: tuple[Value, ...] = tuple(sorted(number for number in numbers if number is not None))
        whole = all(float(number) == int(float(number)) for number in reckoned)
        low, high = min(float(number) for number in reckoned), max(float(number) for number in reckoned)
        texts = [str(value) for value in filled]
        fixed = (
            textual
            and not has_blanks
            and whole
            and low >= 0
            and len({len(text) for text in texts}) == 1
            and all(map(str.isdigit, texts))
        )
        padded = any(isinstance(value, str) and re.match(r"\s*0\d", value) for value in filled)
        if whole and known & _MOMENTS and any(least <= low <= high < most for least, most in _EPOCHS):
            return profile("code")  # nobody compares a moment with 1,735,689,600
        monthly = {"".join(words), *words} & _MONTHS_OF_YEARS
        if whole and monthly and all(1 <= int(float(number)) % 100 <= 12 for number in reckoned):
            return Profile(
                "ordinal",
                reckoned,
                has_gaps,
                unique,
                numeric_text=textual,
                has_blanks=has_blanks,
                markers=markers,
                whole=True,
            )
        if whole and ("date" in known or "date" in column.type.lower()) and 10_000_000 <= low <= high <= 99_999_999:
            return Profile("date", filled, has_gaps, unique, markers=markers, dated="compact")
        # Countries can be older than the calendar.
        if "year" in known and whole and low >= -4000 and 1000 <= high <= 2100:
            role: Role = "year"
        elif whole and 1900 <= low < high <= 2050 and len(reckoned) > 3 and not known & (_ADDITIVE | _CODE | _WEIGHED):
            role = "year"  # nothing else that is counted from zero stays there
        elif (
            padded
            or (known & _CODE and words[:2] != ["number", "of"])
            or known & STANDS_FOR
            or " ".join(words) in things
        ):
            return profile("ordinal" if "version" in known else "code")
        elif _ordinal(words) or (whole and _on_the_clock(words, low, high, reckoned)):
            role = "ordinal"
        else:
            role = "measure"
        return Profile(
            role,
            reckoned,
            has_gaps,
            unique,
            numeric_text=textual and not fixed,
            has_blanks=has_blanks,
            markers=markers,
            fixed_width=fixed,
            whole=whole,
            additive=role == "measure" and bool(known & _ADDITIVE),
            statistic=bool(known & STATISTIC),
            time_part=role == "ordinal" and last in _TIME_PARTS,
            ranks=role == "ordinal" and bool(known & _RANKS),
        )

    strings = [str(value) for value in filled]
    if all(_DATE.fullmatch(text.strip()) for text in strings):
        timed = any(len(text.strip()) > 10 for text in strings)
        return Profile("date", filled, has_gaps, unique, markers=markers, dated="time" if timed else "day")
    if all(_SLASHED.fullmatch(text.strip()) for text in strings):
        return profile("code")
    mixed = odd_text or sum(number is not None for number in numbers) > len(numbers) / 2
    length = sum(map(len, strings)) / len(strings)
    if mixed or (known & (_CODE - {"code", "number"})) or any("@" in text for text in strings[:5]):
        return profile("code")
    if length > 60 or any("\n" in text for text in strings):
        return profile("text")
    own_noun = singular(phrase(table.name).split()[-1].lower())
    if (last in _NAME or words == [own_noun]) and (distinct > 0.5 * rows or rows < 8):
        return profile("name")
    repeats = distinct <= 0.5 * rows and distinct <= max(50, rows // 20)
    if repeats or (known & _CATEGORY and distinct <= 0.95 * rows) or (last in _CATEGORY and rows <= 50):
        return profile("category")
    return profile("text")


def _corrected(profile: Profile, role: str) -> Profile:
    """Take the role that is known of a column, but for a number's where it holds none."""
    numbers = all(not isinstance(value, str) for value in profile.values)
    fits = role in get_args(Role) and (numbers or role not in ("measure", "ordinal", "year"))
    return replace(profile, role=role) if fits else profile  # type: ignore[arg-type]


def _ordinal(words: list[str]) -> bool:
    return bool(_ORDINAL.intersection(words)) and words[:2] != ["number", "of"] and not {"worth", "point"} & {*words}


def _on_the_clock(words: list[str], low: float, high: float, values: tuple[Value, ...]) -> bool:
    """Whether whole numbers are read off a clock and not to be averaged: 1430 for half past two, or its minutes."""
    if words[-1] in ("minute", "second"):
        return low >= 0 and high < 60
    together = low >= 0 and 1000 <= high <= 2400 and all(int(float(value)) % 100 < 60 for value in values)
    return "time" in words and together


class Roles:
    """The profiles of a database's columns, each read when it is first asked for."""

    def __init__(self, catalog: Catalog, *, execute: Callable[[str], Result], facts: Facts) -> None:
        """Read nothing yet.

        Args:
            catalog: The database.
            execute: Runs SQL in the sandbox.
            facts: Which values of a column say that nothing is known, and roles that are known already.
        """
        self._catalog, self._execute, self._facts = catalog, execute, facts
        self._profiles: dict[tuple[str, str], Profile] = {}
        self._samples: dict[str, str] = {}  # by table: see sampled_rows
        # Columns that could not be read, and why: nothing is asked of them.
        self.unread: dict[tuple[str, str], str] = {}

    @cached_property
    def things(self) -> frozenset[str]:
        """What the tables are about, in the singular."""
        return frozenset(
            " ".join(singular(word.lower()) for word in phrase(table.name).split()) for table in self._catalog.tables
        )

    def of(self, table: str, column: str) -> Profile:
        """Profile a column."""
        key = (table, column)
        if key not in self._profiles:
            known = self._catalog.column(table, column)
            name, source = identifier(column), identifier(table)
            rows = self.sampled_rows(table)
            filled = f"{name} IS NOT NULL{f' AND rowid IN {rows}' if rows else ''}"
            result = self._execute(f"SELECT DISTINCT {name} FROM {source} WHERE {filled} LIMIT {MAX_VALUES}")
            if result.status != "ok":
                self.unread[key] = f"{result.status}: {result.error}"
            values = tuple(
                row[0]
                for row in result.rows
                if isinstance(row[0], int | float) or (isinstance(row[0], str) and len(row[0]) <= 200)
            )
            # Sorted, because a database promises no order; as text, because a column may mix its types.
            values = tuple(
                sorted(
                    values,
                    key=lambda value: (isinstance(value, str), value if isinstance(value, str) else f"{value:030.9f}"),
                )
            )
            markers = tuple(value for value in self._facts.nulls(known) if value in values)
            has_blanks = any(isinstance(value, str) and not value.strip() for value in values)
            values = tuple(value for value in values if value not in markers)
            complete = len(result.rows) < MAX_VALUES and not rows
            unseen_text = not complete and any(isinstance(value, str) for value in values)
            texts = [literal(value) for value in markers if isinstance(value, str)]
            known_text = f" AND {name} NOT IN ({', '.join(texts)})" if texts else ""
            profile = _profile(
                known,
                self._catalog.table(table),
                values,
                complete=complete,
                markers=markers,
                has_blanks=has_blanks or (unseen_text and self._any(table, f"TRIM({name}) = ''")),
                odd_text=unseen_text
                and self._any(table, f"typeof({name}) = 'text' AND TRIM({name}) GLOB '*[^0-9.+-]*'{known_text}"),
                things=self.things - {table},
            )
            self._profiles[key] = _corrected(profile, self._facts.role(known))
        return self._profiles[key]

    def sampled_rows(self, table: str) -> str:
        """The rowids that a large table is known by, as SQL's list: its first rows are its oldest ones.

        Empty for a table that is read whole. A function of the table alone, so that a column's role depends neither
        on the load nor on what was asked.
        """
        if (self._catalog.table(table).num_rows or 0) <= SAMPLED_ABOVE or self._catalog.dialect != "sqlite":
            return ""
        if table not in self._samples:
            result = self._execute(f"SELECT MIN(rowid), MAX(rowid) FROM {identifier(table)}")
            low, high = result.rows[0] if result.status == "ok" and result.rows else (None, None)
            self._samples[table] = ""  # a view, or a table WITHOUT ROWID
            if isinstance(low, int) and isinstance(high, int):
                drawn = generator("sample", table).integers(low, high + 1, size=SAMPLE_ROWS)
                self._samples[table] = f"({', '.join(map(str, sorted(set(drawn.tolist()))))})"
        return self._samples[table]

    def _any(self, table: str, condition: str) -> bool:
        """Whether any row of a table meets a condition; one that takes too long to tell is taken to do so."""
        result = self._execute(f"SELECT 1 FROM {identifier(table)} WHERE {condition} LIMIT 1")
        return result.status != "ok" or bool(result.rows)

    @cached_property
    def sound_keys(self) -> tuple[SoundKey, ...]:
        """The foreign keys to follow: what they refer to is unique, and some row finds it."""
        sound = []
        for key in self._catalog.foreign_keys:
            referred = self._catalog.table(key.referred_table)
            if len(key.columns) == 1:
                unique = (
                    self.of(referred.name, key.referred_columns[0]).unique
                    or referred.primary_key == key.referred_columns
                )
            else:
                unique = set(referred.primary_key) == set(key.referred_columns)
            rows = bool(referred.num_rows) and bool(self._catalog.table(key.table).num_rows)
            if unique and rows and self._met(key):
                sound.append((key.table, key.columns, referred.name, key.referred_columns))
        return tuple(dict.fromkeys(sound))

    def _met(self, key: ForeignKey) -> bool:
        """Whether any row finds the one it refers to: a blank before each code, and a join is empty."""
        columns = zip(key.columns, key.referred_columns, strict=True)
        on = " AND ".join(f"T1.{identifier(ours)} = T2.{identifier(theirs)}" for ours, theirs in columns)
        sql = f"SELECT 1 FROM {identifier(key.table)} AS T1 JOIN {identifier(key.referred_table)} AS T2 ON {on} LIMIT 1"
        result = self._execute(sql)
        return result.status != "ok" or bool(result.rows)
