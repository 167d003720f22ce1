"""Copies of a database that ask a right answer nothing hard, and give an answer that was written by heart away.

Rows are sampled, some are left out with whatever refers to them, and the values of each column that is no key change
places among its rows. So names that are unique stay unique, no tie, NULL or row without a partner is added, and
queries that mean the same on the original mostly agree here as well. `explore/verify` makes harder copies, which tell
apart queries that differ on rows that the original does not have.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tutelage.core.randomness import generator
from tutelage.text2sql.database.catalog import read_catalog
from tutelage.text2sql.database.schema import Catalog
from tutelage.text2sql.explore.verify.perturb import Row, Rows, in_key, sample_rows, write_tables

_LEFT_OUT = 0.25  # share of a table's rows


def write_moved_copies(database: Path, folder: Path, *, copies: int, seed: int) -> None:
    """Write ``moved_0.sqlite`` and so on, and ``empty.sqlite``, whose tables have no rows.

    They are a function of the database's content and the seed.

    Raises:
        DataError: The database cannot be read.
    """
    catalog = read_catalog(database, statistics=True, infer_keys=True)
    sample = sample_rows(database, catalog, seed=seed)
    write_tables(folder / "empty.sqlite", catalog, {table.name: [] for table in catalog.tables})
    for number in range(copies):
        moved = move(sample, catalog, random=generator(seed, "moved", number))
        write_tables(folder / f"moved_{number}.sqlite", catalog, moved)


def move(sample: Mapping[str, Sequence[Row]], catalog: Catalog, *, random: np.random.Generator) -> Rows:
    """Leave rows out, and let values change places within their column."""
    rows = _leave_out(sample, catalog, random)
    for table in catalog.tables:
        own = rows[table.name]
        for place, column in enumerate(table.columns):
            if not in_key(column, catalog):
                values = [row[place] for row in own]
                for row, source in zip(own, random.permutation(len(own)).tolist(), strict=True):
                    row[place] = values[source]
    return rows


def _leave_out(sample: Mapping[str, Sequence[Row]], catalog: Catalog, random: np.random.Generator) -> Rows:
    """Leave out rows, and rows that refer to them; one that referred to nothing before stays."""
    kept: Rows = {}
    gone: dict[str, list[Row]] = {}
    for table in catalog.tables:
        own = [list(row) for row in sample[table.name]]
        out = set(random.permutation(len(own))[: int(_LEFT_OUT * len(own))].tolist())
        kept[table.name] = [row for place, row in enumerate(own) if place not in out]
        gone[table.name] = [row for place, row in enumerate(own) if place in out]
    changed = True
    while changed:
        changed = False
        for key in catalog.foreign_keys:
            if len(key.columns) != 1:
                continue
            child, parent = catalog.table(key.table), catalog.table(key.referred_table)
            own_place = [column.name.casefold() for column in child.columns].index(key.columns[0].casefold())
            their_place = [column.name.casefold() for column in parent.columns].index(
                key.referred_columns[0].casefold()
            )
            absent = {_key(row[their_place]) for row in gone[parent.name]}
            absent -= {_key(row[their_place]) for row in kept[parent.name]}
            lost = [row for row in kept[child.name] if row[own_place] is not None and _key(row[own_place]) in absent]
            if lost:
                changed = True
                gone[child.name] += lost
                kept[child.name] = [row for row in kept[child.name] if not any(row is other for other in lost)]
    return kept


def _key(cell: object) -> str:
    return str(cell).casefold()
