"""The catalog of a SQLite file, by PRAGMA and one counting query a column."""

import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path

from tutelage.text2sql.database.schema import Catalog, Column, ForeignKey, Table, Value
from tutelage.text2sql.database.sql_text import quote
from tutelage.text2sql.database.sqlite_file import explain, open_readonly

NUM_FREQUENT = 20  # frequent values kept a column
MAX_TEXT = 200  # characters; a longer cell is prose, which no question quotes


def introspect_sqlite(path: Path, *, db_id: str, statistics: bool) -> Catalog:
    """Read the catalog of a SQLite file.

    Raises:
        DataError: The file cannot be read.
    """
    connection = open_readonly(path)
    notes: list[str] = []
    try:
        tables = _complete_keys(_declared_tables(connection, notes), notes)
        if statistics:
            counted = (_count(connection, table, notes) for table in tables)
            tables = [table for table in counted if table is not None]
    except sqlite3.Error as error:
        raise explain(error, path) from error
    finally:
        connection.close()
    return Catalog(db_id=db_id, database=str(path), dialect="sqlite", tables=tuple(tables), notes=tuple(notes))


def _declared_tables(connection: sqlite3.Connection, notes: list[str]) -> list[Table]:
    """Read tables and views as they were declared; a foreign key may still lack what it refers to."""
    tables = []
    listed = connection.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main'").fetchall()
    # The shadow tables of a full-text index are its storage, not data.
    names = [(name, kind) for name, kind in listed if kind != "shadow" and not name.casefold().startswith("sqlite_")]
    # table_list has no order of its own: take that of creation.
    created = {
        name: row
        for row, name in connection.execute("SELECT rowid, name FROM sqlite_master WHERE type IN ('table', 'view')")
    }
    for name, kind in sorted(names, key=lambda item: created.get(item[0], 0)):
        try:
            rows = connection.execute(f"PRAGMA table_xinfo({quote(name)})").fetchall()
        except sqlite3.OperationalError as error:
            # A view over a dropped table, a virtual table whose module is not here.
            notes.append(f"{kind} {name} left out: {error}")
            continue
        # hidden: 1 is a virtual table's own argument; 2 and 3 are generated columns, which can be read.
        columns = tuple(
            Column(name=column, type=declared, table=name, nullable=not (not_null or key))
            for _, column, declared, not_null, _, key, hidden in rows
            if hidden != 1
        )
        primary = tuple(row[1] for row in sorted((row for row in rows if row[5]), key=lambda row: row[5]))
        keys = () if kind == "view" else _declared_keys(connection, name)
        tables.append(Table(name, columns, primary, keys, num_rows=None, is_view=kind == "view"))
    return tables


def _declared_keys(connection: sqlite3.Connection, table: str) -> tuple[ForeignKey, ...]:
    """Read a table's foreign keys; referred columns are empty where the declaration names none."""
    parts: dict[int, list[tuple[str, str, str | None]]] = {}
    for number, _, referred, column, referred_column, *_ in connection.execute(
        f"PRAGMA foreign_key_list({quote(table)})"
    ):
        parts.setdefault(number, []).append((referred, column, referred_column))
    return tuple(
        ForeignKey(
            table=table,
            columns=tuple(column for _, column, _ in part),
            referred_table=part[0][0],
            referred_columns=tuple(referred for *_, referred in part if referred is not None),
        )
        # SQLite numbers them from the last declared to the first.
        for _, part in sorted(parts.items(), reverse=True)
    )


@dataclass(frozen=True, slots=True)
class _Names:
    """The true spelling of a table's name and of its columns' names, by their casefolded ones."""

    table: str
    columns: dict[str, str]
    primary_key: tuple[str, ...]


def _complete_keys(tables: list[Table], notes: list[str]) -> list[Table]:
    """Spell keys as their tables do, fill in implied primary keys, and leave out keys to what is not there."""
    known = {
        table.name.casefold(): _Names(
            table.name, {column.name.casefold(): column.name for column in table.columns}, table.primary_key
        )
        for table in tables
    }
    completed = []
    for table in tables:
        keys: dict[ForeignKey, None] = {}  # a dict: Spider's databases declare some keys twice
        for key in table.foreign_keys:
            label = f"foreign key {key.table}({', '.join(key.columns)}) → {key.referred_table}"
            target = known.get(key.referred_table.casefold())
            if target is None:
                notes.append(f"{label} left out: no such table")
                continue
            own = known[table.name.casefold()].columns
            referred = key.referred_columns or target.primary_key
            missing = [name for name in key.columns if name.casefold() not in own]
            missing += [name for name in referred if name.casefold() not in target.columns]
            if missing or len(referred) != len(key.columns):
                notes.append(f"{label} left out: its columns do not fit ({', '.join(missing) or 'count differs'})")
                continue
            whole = ForeignKey(
                table=table.name,
                columns=tuple(own[name.casefold()] for name in key.columns),
                referred_table=target.table,
                referred_columns=tuple(target.columns[name.casefold()] for name in referred),
            )
            keys[whole] = None
        completed.append(replace(table, foreign_keys=tuple(keys)))
    return completed


def _count(connection: sqlite3.Connection, table: Table, notes: list[str]) -> Table | None:
    """Count rows, distinct and frequent values; None (and a note) where a view or virtual table cannot be read."""
    source = quote(table.name)
    try:
        (num_rows,) = connection.execute(f"SELECT count(*) FROM {source}").fetchone()
        columns = tuple(_count_column(connection, column, source, num_rows) for column in table.columns)
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise
        notes.append(f"{'view' if table.is_view else 'table'} {table.name} left out: {error}")
        return None
    return replace(table, num_rows=num_rows, columns=columns)


def _count_column(connection: sqlite3.Connection, column: Column, source: str, num_rows: int) -> Column:
    name = quote(column.name)
    # One pass groups the values; the rest is counted over the groups. Long cells and blobs count, but are not
    # brought here. Ties in frequency are ordered by value, so that two runs agree.
    rows = connection.execute(
        f"""
        WITH groups AS MATERIALIZED (
            SELECT {name} AS value, count(*) AS frequency FROM {source} WHERE {name} IS NOT NULL GROUP BY {name}
        ), shown AS (
            SELECT * FROM groups
            WHERE typeof(value) <> 'blob' AND NOT (typeof(value) = 'text' AND length(value) > {MAX_TEXT})
        )
        SELECT NULL, count(*), sum(frequency), 0, 0 FROM groups
        UNION ALL SELECT NULL, min(value), max(value), 1, 0 FROM shown
        UNION ALL SELECT * FROM (
            SELECT value, frequency, NULL, 2, row_number() OVER (ORDER BY frequency DESC, value) AS place
            FROM shown ORDER BY place LIMIT {NUM_FREQUENT}
        )
        ORDER BY 4, 5
        """
    ).fetchall()
    (_, num_distinct, num_present, *_), (_, minimum, maximum, *_), *frequent = rows
    return replace(
        column,
        num_distinct=num_distinct,
        num_null=num_rows - (num_present or 0),
        minimum=_clean(minimum),
        maximum=_clean(maximum),
        frequent=tuple(value for row in frequent if (value := _clean(row[0])) is not None),
    )


def _clean(value: Value | None) -> Value | None:
    """Drop text that was not UTF-8: no literal can say it."""
    if isinstance(value, str) and "\ufffd" in value:
        return None
    return value


def contained(connection: sqlite3.Connection, column: Column, key: Column) -> bool:
    """Ask whether each value of a column is found in a key."""
    here, there = quote(column.name), quote(key.name)
    stray = connection.execute(
        f"SELECT 1 FROM {quote(column.table)} WHERE {here} IS NOT NULL"
        f" AND {here} NOT IN (SELECT {there} FROM {quote(key.table)} WHERE {there} IS NOT NULL) LIMIT 1"
    )
    return stray.fetchone() is None
