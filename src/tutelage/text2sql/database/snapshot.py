"""A server's or DuckDB's tables as a SQLite file, so that one sandbox serves every database.

Rows come in the order of their key. Of a table of more than ``max_rows`` rows a sample is taken, by a hash of the key,
so that the same database gives the same copy; rows that a copied row refers to are then added, and the notes say what
was left out.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tutelage.core.store import Store
from tutelage.text2sql.database.address import DatabaseUrl
from tutelage.text2sql.database.introspect_server import MAX_SCANNED_ROWS, as_value, connect, sampled_table, sql_table
from tutelage.text2sql.database.schema import Catalog, ForeignKey, Table, Value
from tutelage.text2sql.database.sql_text import quote

_PARENTS_AT_ONCE = 200  # rows that one statement asks for


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The file, and the catalog that describes it: comments and types are the server's."""

    path: Path
    catalog: Catalog
    is_whole: bool  # no table was cut


def snapshot(database: DatabaseUrl, catalog: Catalog, *, store: Store, max_rows: int) -> Snapshot:
    """Copy a database into the store; the copy is made again when the counts in the catalog change.

    Args:
        database: Where it lies.
        catalog: Its catalog, with statistics.
        store: Where the copy is kept.
        max_rows: Rows copied a table.
    """
    inputs = {"database": catalog.database, "catalog": repr(catalog), "max_rows": max_rows, "version": 3}

    def make(folder: Path) -> None:
        path = folder / "snapshot.sqlite"
        path.unlink(missing_ok=True)  # half a file of a killed run
        with connect(database) as server:
            _copy(server, catalog, path, max_rows=max_rows)

    path = store.make("databases", inputs, make) / "snapshot.sqlite"
    cut = _notes(path, [table for table in catalog.tables if _is_cut(table, max_rows)])
    return Snapshot(path, replace(catalog, database=str(path), dialect="sqlite", notes=catalog.notes + cut), not cut)


def _is_cut(table: Table, max_rows: int) -> bool:
    return table.num_rows is not None and table.num_rows > max_rows


def _notes(path: Path, cut: Sequence[Table]) -> tuple[str, ...]:
    with closing(sqlite3.connect(path)) as file:
        counts = [file.execute(f"SELECT count(*) FROM {quote(table.name)}").fetchone()[0] for table in cut]
    return tuple(
        f"{table.name}: {count} of {table.num_rows} rows are copied" for table, count in zip(cut, counts, strict=True)
    )


def _copy(server: sa.Connection, catalog: Catalog, path: Path, *, max_rows: int) -> None:
    with closing(sqlite3.connect(path)) as file:
        for table in catalog.tables:
            file.execute(_create(table))
            limit = max_rows if _is_cut(table, max_rows) else None
            _insert(file, table, _rows(server, _ordered(table, dialect=server.dialect.name, limit=limit)))
        cut = {table.name for table in catalog.tables if _is_cut(table, max_rows)}
        # A row that is added may refer to others.
        keys = [key for key in catalog.foreign_keys if key.referred_table in cut]
        for _ in catalog.tables:
            if not sum(_add_parents(server, file, catalog, key) for key in keys):
                break
        file.commit()


def _insert(file: sqlite3.Connection, table: Table, rows: Iterable[Sequence[Value | None]]) -> None:
    marks = ", ".join("?" * len(table.columns))
    file.executemany(f"INSERT INTO {quote(table.name)} VALUES ({marks})", rows)


def _add_parents(server: sa.Connection, file: sqlite3.Connection, catalog: Catalog, key: ForeignKey) -> int:
    """Copy the rows that a key refers to and a sample has left out; return how many values were looked for."""
    ours, theirs = [quote(name) for name in key.columns], [quote(name) for name in key.referred_columns]
    on = " AND ".join(f"child.{a} = parent.{b}" for a, b in zip(ours, theirs, strict=True))
    filled = " AND ".join(f"child.{name} IS NOT NULL" for name in ours)
    missing = file.execute(
        f"SELECT DISTINCT {', '.join(f'child.{name}' for name in ours)} FROM {quote(key.table)} AS child"
        f" LEFT JOIN {quote(key.referred_table)} AS parent ON {on} WHERE {filled} AND parent.rowid IS NULL"
    ).fetchall()
    table = catalog.table(key.referred_table)
    before = file.total_changes
    for first in range(0, len(missing), _PARENTS_AT_ONCE):
        source = sql_table(table.name, table.columns)
        wanted = [
            sa.and_(*(_equals(source.c[name], value) for name, value in zip(key.referred_columns, row, strict=True)))
            for row in missing[first : first + _PARENTS_AT_ONCE]
        ]
        _insert(
            file, table, _rows(server, sa.select(*source.c).where(sa.or_(*wanted)).order_by(*_order(table, source)))
        )
    return file.total_changes - before


def _equals(column: sa.ColumnElement[object], value: Value) -> sa.ColumnElement[bool]:
    # A date or a UUID was copied as text.
    return sa.cast(column, sa.Text) == value if isinstance(value, str) else column == value


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


def _order(table: Table, source: sa.TableClause) -> list[sa.ColumnElement[object]]:
    """The primary key, or else all columns that can be compared."""
    names = table.primary_key or [column.name for column in table.columns if column.num_distinct is not None]
    return [source.c[name] for name in names]


def _ordered(table: Table, *, dialect: str, limit: int | None) -> sa.Select[Any]:
    source = sql_table(table.name, table.columns)
    order = _order(table, source)
    if limit is None or not order:
        return sa.select(*source.c).order_by(*order).limit(limit)
    if (table.num_rows or 0) > MAX_SCANNED_ROWS:  # to hash and sort it would read it all
        sample = sampled_table(dialect, table, share=min(1.0, 1.2 * limit / (table.num_rows or 1)))
        return sa.select(*sample.c).limit(limit)
    hashed = sa.func.md5(sa.func.concat_ws("|", *(sa.cast(column, sa.Text) for column in order)))
    return sa.select(*source.c).order_by(hashed).limit(limit)


def _rows(server: sa.Connection, query: sa.Select[Any]) -> Iterator[list[Value | None]]:
    with server.execution_options(yield_per=10_000).execute(query) as rows:
        for row in rows:
            yield [as_value(value) for value in row]
