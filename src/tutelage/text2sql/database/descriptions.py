"""What columns mean, from a folder of CSV files as BIRD lays them out: one file a table.

Columns read: ``original_column_name``, ``column_name`` (as a person says it), ``column_description`` and
``value_description``.
"""

import csv
from dataclasses import replace
from pathlib import Path

from tutelage.core.errors import DataError
from tutelage.text2sql.database.schema import Catalog, Column, Table


def describe(catalog: Catalog, folder: Path) -> Catalog:
    """Add the descriptions of a folder to a catalog; a table or column without one stays as it is."""
    if not folder.is_dir():
        raise DataError("catalog.descriptions", f"no folder {folder}", "give a folder with one CSV file a table")
    files = {path.stem.strip().casefold(): path for path in sorted(folder.glob("*.csv"))}
    notes = list(catalog.notes)
    tables = []
    for table in catalog.tables:
        path = files.pop(table.name.casefold(), None)
        tables.append(table if path is None else _describe_table(table, path, notes))
    notes += [f"description {path.name} left out: no such table" for path in files.values()]
    return replace(catalog, tables=tuple(tables), notes=tuple(notes))


def _describe_table(table: Table, path: Path, notes: list[str]) -> Table:
    rows = _read(path)
    if rows and "original_column_name" not in rows[0]:
        raise DataError(
            "catalog.descriptions",
            f"{path} has no column original_column_name",
            "name its columns original_column_name, column_name, column_description, value_description",
        )
    known = {column.name.casefold() for column in table.columns}
    by_name = {(row["original_column_name"] or "").strip().casefold(): row for row in rows}
    unknown = [name for name in by_name if name and name not in known]
    notes += [f"description {path.name}: {table.name} has no column {name}" for name in unknown]

    def described(column: Column) -> Column:
        row = by_name.get(column.name.casefold())
        if row is None:
            return column
        return replace(
            column,
            description=_one_line(row.get("column_description")),
            spoken_name=_one_line(row.get("column_name")),
            value_description=_lines(row.get("value_description")),
        )

    return replace(table, columns=tuple(map(described, table.columns)))


def _read(path: Path) -> list[dict[str, str | None]]:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")  # some of BIRD's files come from a spreadsheet
    reader = csv.DictReader(text.replace("\0", "").splitlines(keepends=True))
    reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    return list(reader)


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _lines(text: str | None) -> str:
    """Keep the lines, which often explain a value each."""
    return "\n".join(line for part in (text or "").splitlines() if (line := _one_line(part)))
