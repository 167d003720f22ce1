"""Facts that texts tell: descriptions of columns, comments, and documents of the user's (data dictionaries, notes)."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tutelage.core.errors import DataError
from tutelage.text2sql.database.schema import Catalog, Column, Table
from tutelage.text2sql.explore.facts.fact import Fact, Source, subject_of
from tutelage.text2sql.explore.facts.sentences import codes_in, column_values, nulls_in, unit_in
from tutelage.text2sql.explore.words import phrase, plural_phrase, singular_phrase

_LONGEST_NAME = 5  # words


def facts_from_descriptions(catalog: Catalog) -> Iterator[Fact]:
    """Yield what BIRD's description files and the database's own comments say of columns."""
    for table in catalog.tables:
        for column in table.columns:
            if name := spoken_name(column):
                yield Fact(subject_of(column), "spoken", name, "descriptions", 0.9)
            meaning = column.description or column.comment
            if meaning := _meaning(meaning):
                yield Fact(subject_of(column), "meaning", meaning, "descriptions", 0.95)
            text = "\n".join((column.description, column.comment, column.value_description))
            yield from facts_in(column, text, source="descriptions", confidence=0.9)


def spoken_name(column: Column) -> str:
    """A name that a description gives and the identifier does not: ``A11`` is the average salary."""
    said = " ".join(phrase(column.spoken_name).split()) if "_" in column.spoken_name else column.spoken_name.strip()
    words = said.split()
    if not 0 < len(words) <= _LONGEST_NAME or not said.isascii():
        return ""
    own = {word.lower() for word in phrase(column.name).split()} | {column.name.lower()}
    if {word.lower() for word in words} <= own | {"id", "the", "of"}:
        return ""  # the identifier once more: what the catalog says is shorter
    return " ".join("ID" if word.lower() == "id" else word for word in words)


def _meaning(text: str) -> str:
    """The first line of a description; "Maps to superhero(id)" is what the key says."""
    lines = [line for line in re.split(r"\n| (?=Maps to )", text.strip()) if not line.startswith("Maps to ")]
    return " ".join(" ".join(lines).split())


def facts_in(column: Column, text: str, *, source: Source, confidence: float) -> Iterator[Fact]:
    """Yield the unit, the codes and the null markers that a text about a column names."""
    values = column_values(column)
    if unit := unit_in(text):
        yield Fact(subject_of(column), "unit", unit, source, confidence)
    nulls = nulls_in(text, values)
    for value in nulls:
        yield Fact(subject_of(column, value=value), "null", True, source, confidence)
    for value, meaning in codes_in(text, values):
        if value not in nulls:
            yield Fact(subject_of(column, value=value), "code", meaning, source, confidence)


def facts_from_documents(catalog: Catalog, paths: Sequence[Path]) -> Iterator[Fact]:
    """Yield what documents of the user's say: tables of a row a column (CSV, Markdown), and sentences that name one.

    A sentence is about a column where it writes its name as the database does, alone or behind its table's; a name of
    one plain word, or one that several tables have, only behind its table's name or under a heading that names it.

    Raises:
        DataError: There is no such file, or it is no text.
    """
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                "documents", f"{path} cannot be read ({error})", "give Markdown, text or CSV files"
            ) from None
        if path.suffix.lower() in (".csv", ".tsv"):
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            yield from _from_rows(list(csv.reader(text.splitlines(keepends=True), delimiter=delimiter)), catalog, None)
        else:
            yield from _from_prose(text, catalog)


# ---- tables of a row a column


def _from_rows(rows: list[list[str]], catalog: Catalog, table: Table | None) -> Iterator[Fact]:
    """Read rows of which one cell names a column, another its table perhaps, and others say what it is."""
    rows = [[cell.strip().strip("`*") for cell in row] for row in rows if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        return
    header = [cell.lower().replace("_", " ") for cell in rows[0]]
    tables = {known.name.lower(): known for known in catalog.tables}
    names = {column.name.lower() for known in catalog.tables for column in known.columns}
    width = min(map(len, rows))

    def place_of(known: set[str]) -> int | None:
        hits = [sum(row[place].lower().split(".")[-1] in known for row in rows[1:]) for place in range(width)]
        return hits.index(max(hits)) if hits and max(hits) >= 0.5 * (len(rows) - 1) else None

    of_table = next((place for place, cell in enumerate(header[:width]) if cell in ("table", "table name")), None)
    at = next((place for place, cell in enumerate(header[:width]) if cell in ("column", "column name", "field")), None)
    at = place_of(names) if at is None else at
    if at is None:
        return
    for row in rows[1:]:
        parts = row[at].lower().rsplit(".", 1)
        own = parts[0] if len(parts) == 2 else row[of_table].lower() if of_table is not None else ""
        column = _column(catalog, tables.get(own) if own else table, parts[-1])
        if column is not None:
            cells = {
                header[place]: cell for place, cell in enumerate(row[: len(header)]) if place not in (at, of_table)
            }
            yield from _from_cells(column, cells)


def _from_cells(column: Column, cells: dict[str, str]) -> Iterator[Fact]:
    about = subject_of(column)
    rest: list[str] = []
    for title, cell in cells.items():
        if not cell:
            continue
        if title in ("unit", "units"):
            yield Fact(about, "unit", unit_in(f"in {cell}") or cell, "documents", 0.95)
        elif title in ("name", "label", "display name", "business name", "spoken name"):
            yield Fact(about, "spoken", singular_phrase(cell), "documents", 0.95)
        elif title in ("synonyms", "aliases", "also known as"):
            yield Fact(about, "synonyms", [part.strip() for part in re.split(r"[,;]", cell)], "documents", 0.95)
        elif title not in ("type", "data type", "key", "nullable", "default", "example", "examples"):
            rest.append(cell)
    if rest:
        yield Fact(about, "meaning", max(rest, key=len), "documents", 0.95)
        yield from facts_in(column, "\n".join(rest), source="documents", confidence=0.92)


def _column(catalog: Catalog, table: Table | None, name: str) -> Column | None:
    """The column of a name: of a table, or of the only table that has one."""
    of = catalog.tables if table is None else (table,)
    found = [column for known in of for column in known.columns if column.name.lower() == name.lower()]
    return found[0] if len(found) == 1 else None


# ---- prose


def _from_prose(text: str, catalog: Catalog) -> Iterator[Fact]:
    table: Table | None = None
    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.lstrip().startswith("|"):
            cells = line.strip().strip("|").split("|")
            rows += [] if all(re.fullmatch(r"[\s:-]*", cell) for cell in cells) else [cells]
            continue
        yield from _from_rows(rows, catalog, table)
        rows = []
        if heading := re.match(r"#+ *(.*)|(\S.*):$|\*\*(.*)\*\*$", line):
            table = _table_named(next(filter(None, heading.groups()), ""), catalog)
        for sentence in re.split(r"(?<=[.!?]) +(?=[A-Z`'\"])", line):
            yield from _from_sentence(sentence.strip(" -*•\t"), catalog, table)


def _table_named(text: str, catalog: Catalog) -> Table | None:
    """The only table that a heading names, as the database or as a person writes it."""
    said = f" {re.sub(r'[^a-z0-9_ ]', ' ', text.lower())} "
    found = []
    for table in catalog.tables:
        one = singular_phrase(phrase(table.name)).lower()
        names = {table.name.lower(), phrase(table.name).lower(), one, plural_phrase(one)}
        if any(f" {name} " in said for name in names):
            found.append(table)
    return max(found, key=lambda table: len(table.name), default=None)


def _from_sentence(sentence: str, catalog: Catalog, table: Table | None) -> Iterator[Fact]:
    found = _columns_named(sentence, catalog, table)
    if len(found) != 1:
        return  # of two columns nobody can tell here which one a sentence explains
    column = found[0]
    yield from facts_in(column, sentence, source="documents", confidence=0.85)
    # "`height_cm`: how tall the hero is" and "height_cm is how tall the hero is" say what it means.
    opening = (
        rf"[`'\"]?(?:\w+\.)?{re.escape(column.name)}[`'\"]?\**(?: *\([^)]*\))? *(?::|–|—| - |\bis\b|\bmeans\b|=) *"
    )
    if match := re.match(opening, sentence, re.IGNORECASE):
        meaning = sentence[match.end() :].strip()
        if len(meaning.split()) > 1:
            yield Fact(subject_of(column), "meaning", meaning, "documents", 0.9)


def _columns_named(sentence: str, catalog: Catalog, table: Table | None) -> list[Column]:
    written = set(re.findall(r"\w+\.\w+|\w+", sentence.lower()))
    quoted = set(re.findall(r"[`'\"](\w+)[`'\"]", sentence.lower())) | set(
        re.findall(r"^\W*(\w+) *:", sentence.lower())
    )
    found = []
    for known in catalog.tables:
        for column in known.columns:
            name = column.name.lower()
            if f"{known.name.lower()}.{name}" in written:
                found.append(column)
            elif name in written:
                special = name in quoted or "_" in name or bool(re.search(r"[a-z][A-Z]|\d", column.name))
                if special and (table is known or _column(catalog, None, name) is not None):
                    found.append(column)
    return found
