"""Small copies of a SQLite database whose values differ from it, to tell queries apart that its own rows do not.

A copy is a function of the database's content, the seed and the copy's number. Tables are sampled, closed over their
foreign keys; then rows are added, values are redrawn from their own column (which makes and breaks ties), NULLs are
added where the schema allows them, some parents lose all children, and some children refer to no parent. Declared
keys stay unique. The copies are files, because model-written SQL only runs in the sandbox, which opens files; the
original is only read.

The method is test-suite accuracy's (Zhong et al., arXiv 2010.02840), with small copies of real rows in place of
fuzzed ones.
"""

import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.randomness import generator
from tutelage.text2sql.database.schema import Catalog, Column, ForeignKey, Table
from tutelage.text2sql.database.sql_text import quote
from tutelage.text2sql.database.sqlite_file import open_readonly

ROWS = 40  # sampled of a table; its parents' rows come on top
_FEWEST = 27  # rows that a copy's table has at least, where the table has any
# Rows that are followed, `_FEWEST` rows later, by a twin under another key. Planting counts rows in base 3, so that
# for up to three columns a row and its twin are given the same values.
_TWINS = 9
_REDRAWN = 0.3  # share of a column's cells that take the value of another row
_NULL = 0.08
_CHILDLESS = (0.3, 0.6, 0.1)  # share of a table's rows that nothing refers to, copy by copy
_ORPHANED = 0.1  # share of references that have no partner
_SECONDS = 5.0  # to read the rows of one table; a slow view is left empty

Row = list[Any]
Rows = dict[str, list[Row]]  # by table, cells in the catalog's order


@dataclass(frozen=True, slots=True)
class Copies:
    """The files.

    Attributes:
        sample: Rows as they are.
        shuffled: The same rows, stored in another order.
        perturbed: Rows that were changed.
    """

    sample: Path
    shuffled: Path
    perturbed: tuple[Path, ...]


def write_copies(database: Path, catalog: Catalog, folder: Path, *, copies: int, seed: int) -> Copies:
    """Write a database's copies into a folder.

    Args:
        database: A SQLite file; it is only read.
        catalog: Its catalog.
        folder: Where to; it exists.
        copies: How many perturbed ones.
        seed: For sampling and perturbing.
    """
    sample = sample_rows(database, catalog, seed=seed)
    files = Copies(
        folder / "sample.sqlite",
        folder / "shuffled.sqlite",
        tuple(folder / f"perturbed_{number}.sqlite" for number in range(copies)),
    )
    write_tables(files.sample, catalog, sample)
    # Reversed: every pair of rows changes places, also in a table of two.
    write_tables(files.shuffled, catalog, {name: rows[::-1] for name, rows in sample.items()})
    for number, path in enumerate(files.perturbed):
        write_tables(path, catalog, perturb(sample, catalog, number=number, seed=seed))
    return files


def sample_rows(database: Path, catalog: Catalog, *, seed: int) -> Rows:
    """Draw rows of every table, and add the rows that they refer to."""
    connection = open_readonly(database)
    try:
        rows = {
            table.name: _sample_table(connection, table, generator(seed, "sample", table.name))
            for table in catalog.tables
        }
        for _ in range(2):  # a parent's parents too
            for key in catalog.foreign_keys:
                _add_parents(connection, catalog, rows, key)
    finally:
        connection.close()
    return rows


def _fetch(connection: sqlite3.Connection, sql: str, values: Sequence[Any] = ()) -> list[Row]:
    """Run a statement of our own; an odd or slow view has no rows."""
    deadline = time.monotonic() + _SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
    try:
        return [list(row) for row in connection.execute(sql, values).fetchall()]
    except (sqlite3.Error, OverflowError):
        return []


def _select(table: Table) -> str:
    return f"SELECT {', '.join(quote(column.name) for column in table.columns)} FROM {quote(table.name)}"


def _sample_table(connection: sqlite3.Connection, table: Table, random: np.random.Generator) -> list[Row]:
    if table.num_rows is not None and table.num_rows <= ROWS:
        return _fetch(connection, _select(table))
    ends = [] if table.is_view else _fetch(connection, f"SELECT MIN(rowid), MAX(rowid) FROM {quote(table.name)}")
    if not ends or not all(isinstance(end, int) for end in ends[0]):  # a view, or WITHOUT ROWID
        first = _fetch(connection, f"{_select(table)} LIMIT 2000")
        drawn = sorted(random.permutation(len(first))[:ROWS].tolist())
        return [first[place] for place in drawn]
    low, high = ends[0]
    found: dict[int, Row] = {}
    for place in random.integers(low, high, size=3 * ROWS, endpoint=True).tolist():
        sql = _select(table).replace("SELECT ", "SELECT rowid, ", 1) + " WHERE rowid >= ? ORDER BY rowid LIMIT 1"
        for rowid, *cells in _fetch(connection, sql, (place,)):
            found[rowid] = cells
        if len(found) == ROWS:
            break
    return [found[rowid] for rowid in sorted(found)]


def _add_parents(connection: sqlite3.Connection, catalog: Catalog, rows: Rows, key: ForeignKey) -> None:
    """Add the rows that a key's children refer to and that were not drawn."""
    if len(key.columns) != 1:
        return
    own = _place(catalog.table(key.table), key.columns[0])
    parent = catalog.table(key.referred_table)
    theirs = _place(parent, key.referred_columns[0])
    present = {_hashable(row[theirs]) for row in rows[parent.name]}
    wanted = {_hashable(row[own]): row[own] for row in rows[catalog.table(key.table).name] if row[own] is not None}
    missing = [wanted[name] for name in sorted(wanted.keys() - present)][:ROWS]
    if missing:
        marks = ", ".join("?" * len(missing))
        sql = f"{_select(parent)} WHERE {quote(parent.columns[theirs].name)} IN ({marks})"
        rows[parent.name] += _fetch(connection, sql, missing)[:ROWS]


def _hashable(cell: Any) -> str:
    return f"{type(cell).__name__}:{cell!r}"


def _place(table: Table, name: str) -> int:
    return [column.name.casefold() for column in table.columns].index(name.casefold())


def perturb(sample: Mapping[str, Sequence[Row]], catalog: Catalog, *, number: int, seed: int) -> Rows:
    """Change the rows of a sample; primary keys stay unique.

    Args:
        sample: Rows by table.
        catalog: Of the database.
        number: Of the copy; how many children a parent has, and whether references may be NULL, goes by it.
        seed: For drawing.
    """
    random = generator(seed, "perturb", number)
    childless = _CHILDLESS[number % len(_CHILDLESS)]
    null_keys = number % 2 == 1  # one NULL in a subquery makes NOT IN empty: every other copy has none
    rows = {table.name: _with_more(sample[table.name], table, random) for table in catalog.tables}
    for table in catalog.tables:
        for place, column in enumerate(table.columns):
            if not in_key(column, catalog):
                _redraw(rows[table.name], place, column, random)
    for key in catalog.foreign_keys:
        if len(key.columns) == 1:
            _refer(rows, key, catalog, random, childless=childless, null_keys=null_keys)
    for table in catalog.tables:
        rows[table.name] = _unique(rows[table.name], table)
    for table in catalog.tables:
        _add_twins(rows, table, catalog)
    return rows


def _add_twins(rows: Rows, table: Table, catalog: Catalog) -> None:
    """Repeat rows under another key, with the rows that refer to them, so that DISTINCT shows."""
    own = rows[table.name]
    children = _children_by_pairs(table, catalog)
    references = {name.casefold() for key in table.foreign_keys for name in key.columns}
    free = [_place(table, name) for name in table.primary_key if name.casefold() not in references]
    if table.primary_key and not free:
        return  # pairs of keys are repeated with the rows that they refer to
    twins: list[Row] = []
    for number, row in enumerate(own[:_TWINS], 1):
        twin = list(row)
        if free:
            place = free[number % len(free)]
            numbers = [other[place] for other in own if isinstance(other[place], int)]
            twin[place] = max(numbers) + number if isinstance(row[place], int) else f"{row[place]} {number}"
            for child, own_place in children:
                for of_child in [other for other in rows[child] if other[own_place] == row[place]][:3]:
                    rows[child].append([*of_child[:own_place], twin[place], *of_child[own_place + 1 :]])
        twins.append(twin)
    rows[table.name] = own[:_FEWEST] + twins + own[_FEWEST:]


def _children_by_pairs(table: Table, catalog: Catalog) -> list[tuple[str, int]]:
    """Tables of pairs that refer to a table, and the place of the column that does: twins get their rows, too."""
    if len(table.primary_key) != 1:
        return []
    found = []
    for key in catalog.foreign_keys:
        if key.referred_table.casefold() == table.name.casefold() and len(key.columns) == 1:
            child = catalog.table(key.table)
            if len(child.primary_key) != 1:  # else its own rows have twins, which refer to the same parent
                found.append((child.name, _place(child, key.columns[0])))
    return found


def _with_more(sample: Sequence[Row], table: Table, random: np.random.Generator) -> list[Row]:
    """Copy the rows, leave some out of many, and add some under new keys."""
    own = [list(row) for row in sample]
    if len(own) > _FEWEST:
        kept = sorted(random.permutation(len(own))[: max(_FEWEST, round(0.9 * len(own)))].tolist())
        own = [own[place] for place in kept]
    if not own:
        return own
    places = [_place(table, name) for name in table.primary_key]
    numbers = [
        max((row[place] for row in own if isinstance(row[place], int)), default=0) if places else 0 for place in places
    ]
    for number in range(1, max(_FEWEST - len(own), 3) + 1):
        row = list(own[int(random.integers(len(own)))])
        if len(places) == 1:
            cell = row[places[0]]
            row[places[0]] = numbers[0] + number if isinstance(cell, int) else f"{cell}_{number}"
        own.append(row)
    return own


def in_key(column: Column, catalog: Catalog) -> bool:
    """Whether a column takes part in a key, whose values are not moved freely."""
    if column.name in catalog.table(column.table).primary_key:
        return True
    return (column.table.casefold(), column.name.casefold()) in catalog.key_columns


def _redraw(rows: list[Row], place: int, column: Column, random: np.random.Generator) -> None:
    values = [row[place] for row in rows]
    if not values:
        return
    draws, others = random.random(len(rows)), random.integers(len(rows), size=len(rows))
    for row, draw, other in zip(rows, draws.tolist(), others.tolist(), strict=True):
        if draw < _REDRAWN:
            row[place] = values[other]
        elif column.nullable and draw > 1 - _NULL:
            row[place] = None


def _refer(
    rows: Rows, key: ForeignKey, catalog: Catalog, random: np.random.Generator, *, childless: float, null_keys: bool
) -> None:
    """Draw a key's references anew: several to one parent, none to some, and a few to nothing."""
    child, parent = catalog.table(key.table), catalog.table(key.referred_table)
    own, theirs = _place(child, key.columns[0]), _place(parent, key.referred_columns[0])
    there = list(dict.fromkeys(row[theirs] for row in rows[parent.name] if row[theirs] is not None))
    if not there:
        return
    order = random.permutation(len(there)).tolist()
    kept = [there[place] for place in order[: max(1, round((1 - childless) * len(there)))]]
    alone = (child.columns[own].name,) == child.primary_key
    draws, picks = random.random(len(rows[child.name])), random.integers(len(kept), size=len(rows[child.name]))
    for number, (row, draw, pick) in enumerate(zip(rows[child.name], draws.tolist(), picks.tolist(), strict=True)):
        if draw < _ORPHANED:
            nobody = f"nobody {number}" if isinstance(there[0], str) else 900_000_000 + number
            row[own] = None if null_keys and child.columns[own].nullable and not alone else nobody
        else:
            row[own] = kept[number % len(kept)] if alone else kept[pick]


def _unique(rows: list[Row], table: Table) -> list[Row]:
    """Leave out rows whose primary key another row has."""
    if not table.primary_key:
        return rows
    places = [_place(table, name) for name in table.primary_key]
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        found.setdefault(tuple(_hashable(row[place]) for place in places), row)
    return list(found.values())


def write_tables(path: Path, catalog: Catalog, rows: Mapping[str, Sequence[Row]]) -> None:
    """Write rows as plain tables: views too, and without constraints, so that rowids count from 1."""
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
    with connection:
        for table in catalog.tables:
            columns = ", ".join(f"{quote(column.name)} {affinity(column)}" for column in table.columns)
            connection.execute(f"CREATE TABLE {quote(table.name)} ({columns})")
            marks = ", ".join("?" * len(table.columns))
            cells = [[_storable(cell) for cell in row] for row in rows[table.name]]
            connection.executemany(f"INSERT INTO {quote(table.name)} VALUES ({marks})", cells)
    connection.close()


def _storable(cell: Any) -> Any:
    return cell.encode("utf-8", "replace").decode("utf-8") if isinstance(cell, str) else cell


def affinity(column: Column) -> str:
    """The affinity of a declared type, by SQLite's own rules (sqlite.org/datatype3.html, section 3.1)."""
    declared = column.type.upper()
    if "INT" in declared:
        return "INTEGER"
    if any(part in declared for part in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in declared or not declared:
        return "BLOB"
    return "REAL" if any(part in declared for part in ("REAL", "FLOA", "DOUB")) else "NUMERIC"
