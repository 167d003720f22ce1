"""What a database is made of: columns, tables, keys."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

# What a cell can hold and a literal can say. Blobs are left out of statistics.
Value: TypeAlias = str | int | float

Dialect = Literal["sqlite", "postgresql", "mysql", "duckdb"]


@dataclass(frozen=True, slots=True)
class DialectNames:
    """How a dialect is called: in a sentence, and by sqlglot."""

    display: str
    sqlglot: str


DIALECTS: dict[Dialect, DialectNames] = {
    "sqlite": DialectNames("SQLite", "sqlite"),
    "postgresql": DialectNames("PostgreSQL", "postgres"),
    "mysql": DialectNames("MySQL", "mysql"),
    "duckdb": DialectNames("DuckDB", "duckdb"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column, with what was counted in it; a count is None where nothing was counted.

    ``type`` is as declared (SQLite allows any text, and none). ``frequent`` holds the most frequent values,
    most frequent first, without blobs, without cells of more than 200 characters, and without text that is not UTF-8.
    """

    name: str
    type: str
    table: str
    nullable: bool
    comment: str = ""  # the database's own comment
    description: str = ""  # what the column means, from a description file
    num_distinct: int | None = None  # NULL is not counted
    num_null: int | None = None
    minimum: Value | None = None
    maximum: Value | None = None
    frequent: tuple[Value, ...] = ()
    spoken_name: str = ""  # the name as a person says it, from a description file
    value_description: str = ""  # what its values stand for, from a description file


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A key from one table to another; both tuples of columns have the same length and order."""

    table: str
    columns: tuple[str, ...]
    referred_table: str
    referred_columns: tuple[str, ...]
    inferred: bool = False  # not declared in the database, guessed from names, types and values


@dataclass(frozen=True, slots=True)
class Table:
    """A table or a view. ``num_rows`` is None where rows were not counted."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    foreign_keys: tuple[ForeignKey, ...]
    num_rows: int | None
    is_view: bool
    comment: str = ""

    def column(self, name: str) -> Column:
        """Find a column by its name, whatever its case. Raises KeyError."""
        for column in self.columns:
            if column.name.casefold() == name.casefold():
                return column
        raise KeyError(f"{self.name}.{name}")


@dataclass(frozen=True)  # without slots, which leave no room for what is kept
class Catalog:
    """A database as introspection saw it. ``notes`` tells what was left out, and why."""

    db_id: str
    database: str  # the path of a SQLite file, or the URL of a server without its password
    dialect: Dialect
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()

    def table(self, name: str) -> Table:
        """Find a table by its name, whatever its case. Raises KeyError."""
        return self._by_name[name.casefold()]

    @cached_property
    def _by_name(self) -> dict[str, Table]:
        return {table.name.casefold(): table for table in reversed(self.tables)}  # of two, the first

    def column(self, table: str, name: str) -> Column:
        """Find a column by its table and name, whatever their case. Raises KeyError."""
        return self.table(table).column(name)

    @property
    def foreign_keys(self) -> tuple[ForeignKey, ...]:
        """The keys of all tables, declared and inferred."""
        return tuple(key for table in self.tables for key in table.foreign_keys)

    @cached_property
    def key_columns(self) -> frozenset[tuple[str, str]]:
        """Table and column, both case-folded, of what foreign keys lead from or to."""
        ends = [
            end
            for key in self.foreign_keys
            for end in ((key.table, key.columns), (key.referred_table, key.referred_columns))
        ]
        return frozenset((table.casefold(), column.casefold()) for table, columns in ends for column in columns)
