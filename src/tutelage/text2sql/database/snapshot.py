"""A server's or DuckDB's tables as a SQLite file, so that one sandbox serves every database.

Rows are copied as they are read; a table of more than ``max_rows`` rows is cut, which the notes say.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import sqlalchemy as sa

from tutelage.core.store import Store
from tutelage.text2sql.database.introspect_server import as_value, connect, sql_table
from tutelage.text2sql.database.schema import Catalog, Table
from tutelage.text2sql.database.sql_text import quote


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The file, and the catalog that describes it: comments and types are the server's."""

    path: Path
    catalog: Catalog


def snapshot(url: str, catalog: Catalog, *, store: Store, max_rows: int) -> Snapshot:
    """Copy a database into the store; the copy is made again when the counts in the catalog change.

    Args:
        url: The database, password included.
        catalog: Its catalog, with statistics.
        store: Where the copy is kept.
        max_rows: Rows copied a table.
    """
    inputs = {"database": catalog.database, "catalog": repr(catalog), "max_rows": max_rows}

    def make(folder: Path) -> None:
        path = folder / "snapshot.sqlite"
        path.unlink(missing_ok=True)  # half a file of a killed run
        with connect(url) as (server, _):
            _copy(server, catalog, path, max_rows=max_rows)

    path = store.make("databases", inputs, make) / "snapshot.sqlite"
    cut = tuple(
        f"{table.name}: {max_rows} of {table.num_rows} rows are copied"
        for table in catalog.tables
        if table.num_rows is not None and table.num_rows > max_rows
    )
    return Snapshot(path, replace(catalog, database=str(path), dialect="sqlite", notes=catalog.notes + cut))


def _copy(server: sa.Connection, catalog: Catalog, path: Path, *, max_rows: int) -> None:
    file = sqlite3.connect(path)
    try:
        for table in catalog.tables:
            file.execute(_create(table))
            marks = ", ".join("?" * len(table.columns))
            insert = f"INSERT INTO {quote(table.name)} VALUES ({marks})"
            file.executemany(insert, _rows(server, table, max_rows=max_rows))
        file.commit()
    finally:
        file.close()


def _create(table: Table) -> str:
    # Types keep their names: SQLite reads an affinity out of them. Keys are the catalog's to know.
    columns = ", ".join(f"{quote(column.name)} {_affinity(column.type)}" for column in table.columns)
    return f"CREATE TABLE {quote(table.name)} ({columns})"


def _affinity(declared: str) -> str:
    kind = declared.upper()
    if "INTERVAL" in kind or "POINT" in kind:  # "INT" in them is no integer
        return "TEXT"
    if "INT" in kind or "SERIAL" in kind:
        return "INTEGER"
    if any(word in kind for word in ("REAL", "FLOA", "DOUB", "NUMERIC", "DECIMAL")):
        return "NUMERIC"
    return "TEXT"


def _rows(server: sa.Connection, table: Table, *, max_rows: int) -> Iterator[list[str | int | float | None]]:
    query = sa.select(*sql_table(table.name, table.columns).c).limit(max_rows)
    with server.execution_options(yield_per=10_000).execute(query) as rows:
        for row in rows:
            yield [as_value(value) for value in row]
