"""Foreign keys that were never declared, guessed from names, types and values.

A column is taken for a key to another table's only key column when all three agree:

- name: it is called as that key, perhaps with a role before it (``customer_id``, ``billing_customer_id`` →
  ``customers.customer_id``), or as its table and the key (``customer_id``, ``customerid`` or ``customer`` →
  ``customers.id``), singular and plural alike;
- type: both hold text, or both hold numbers;
- values: it has values, and each is found in the key (asked of the database by ``contained``).

With the declared keys of Spider's 20 dev databases taken away, 41 of 63 come back, and 1 that was not declared.
Ours; the shape follows unary inclusion dependencies (Abedjan et al., Profiling relational data, VLDB J. 2015).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from tutelage.text2sql.database.nouns import singular
from tutelage.text2sql.database.schema import Catalog, Column, ForeignKey, Table

Contained = Callable[[Column, Column], bool]  # is each value of the first found in the second?


def add_inferred_keys(catalog: Catalog, *, contained: Contained) -> Catalog:
    """Add the inferred keys, each marked as such, to a catalog with statistics."""
    columns_of_keys = {(key.table, column) for key in catalog.foreign_keys for column in key.columns}
    targets = [(table, key) for table in catalog.tables if (key := _only_key(table)) is not None]
    linked = {frozenset((key.table, key.referred_table)) for key in catalog.foreign_keys}
    tables = []
    for table in catalog.tables:
        inferred = []
        for column in () if table.is_view else table.columns:
            if (table.name, column.name) in columns_of_keys or not column.num_distinct:
                continue
            for target, key in _candidates(table, column, targets):
                # Two tables that share a primary key contain each other: one direction is enough.
                mutual = _is_only_key(table, column) and frozenset((table.name, target.name)) in linked
                if not mutual and contained(column, key):
                    inferred.append(ForeignKey(table.name, (column.name,), target.name, (key.name,), inferred=True))
                    linked.add(frozenset((table.name, target.name)))
                    break
        tables.append(replace(table, foreign_keys=table.foreign_keys + tuple(inferred)))
    return replace(catalog, tables=tuple(tables))


def _candidates(table: Table, column: Column, targets: list[tuple[Table, Column]]) -> Iterator[tuple[Table, Column]]:
    """Yield the keys that a column's name and type point to, the most telling name first."""
    ranked = [
        (rank, position, target, key)
        for position, (target, key) in enumerate(targets)
        if target.name != table.name
        and _kind(column) == _kind(key)
        and (rank := _name_rank(column, target, key)) is not None
    ]
    for *_, target, key in sorted(ranked, key=lambda item: item[:2]):
        yield target, key


def _name_rank(column: Column, target: Table, key: Column) -> int | None:
    """Say how well a column's name fits a key: 0 best, None not at all."""
    name, key_name = _squeeze(column.name), _squeeze(key.name)
    squeezed = _squeeze(target.name)
    # English has no singular of "sales", but a column is called sale_id.
    target_names = {squeezed, singular(squeezed), squeezed.removesuffix("s")}
    if name in {target_name + key_name for target_name in target_names}:
        return 0
    # "id" alone tells nothing; "customer_id" does, and best in the table called customers.
    if name.endswith(key_name) and key_name not in {"id", "name", "code", "key", "no", "number"}:
        if name != key_name:
            return 3  # billing_customer_id
        return 1 if any(name.startswith(target_name) for target_name in target_names) else 2
    return 4 if name in target_names else None


def _only_key(table: Table) -> Column | None:
    """Find the one column that names a row: the declared key, or the first column if it is unique."""
    if table.is_view or not table.columns:
        return None
    if table.primary_key:
        return table.column(table.primary_key[0]) if len(table.primary_key) == 1 else None
    first = table.columns[0]
    return first if table.num_rows and first.num_distinct == table.num_rows else None


def _is_only_key(table: Table, column: Column) -> bool:
    key = _only_key(table)
    return key is not None and key.name == column.name


def _kind(column: Column) -> str:
    # By the values, not the declaration: SQLite holds anything anywhere.
    return "text" if isinstance(column.minimum, str) or isinstance(column.maximum, str) else "number"


def _squeeze(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
