"""An explored query in the user's own dialect: written by sqlglot, and run on the database itself."""

from collections.abc import Callable

import sqlglot
from sqlglot import exp

from tutelage.text2sql.database.address import DatabaseUrl
from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.database.introspect_server import as_value
from tutelage.text2sql.database.schema import DIALECTS, Catalog, Dialect
from tutelage.text2sql.evaluation.execution import Row, same_rows

_DIGITS = 9  # sums are added up in another order there


class NativeRunner:
    """Runs queries in a database's own dialect, and compares with what the copy of it gave."""

    def __init__(
        self, catalog: Catalog, database: DatabaseUrl, *, is_whole: bool, run_on: Callable[[DatabaseUrl, str], Result]
    ) -> None:
        """Keep what is needed.

        Args:
            catalog: Its tables, as the copy has them.
            database: The database itself.
            is_whole: Whether the copy holds all rows: results then have to be equal. A sample's need not be.
            run_on: Runs a query in the sandbox.
        """
        self._catalog, self._database, self._is_whole, self._run_on = catalog, database, is_whole, run_on
        self._written = ("", "")  # the last query, and what it is there: it is asked for again if it is accepted

    def native(self, sql: str) -> str:
        """Write a query of the copy's in the database's dialect."""
        if self._written[0] != sql:
            self._written = (sql, native_sql(sql, self._catalog, self._database.dialect))
        return self._written[1]

    def refuse(self, sql: str, result: Result) -> str | None:
        """Say what is wrong with a query there, given what it gave on the copy; None for nothing."""
        try:
            native = self.native(sql)
        except (sqlglot.errors.SqlglotError, RecursionError) as error:
            return f"cannot be written in it ({error})"
        found = self._run_on(self._database, native)
        if found.status != "ok":
            return f"{found.status}: {found.error}"
        if not found.rows:
            return "gives no rows there"
        # Texts may be ordered in another way there, which is as right.
        if self._is_whole and not same_rows(
            *(list(map(_as_copied, rows)) for rows in (result.rows, found.rows)), ordered=False
        ):
            return "gives other rows there"
        return None


def _as_copied(row: Row) -> Row:
    """A row as the copy would have it, its numbers without their last digits."""
    cells = map(as_value, row)
    return tuple(float(f"{cell:.{_DIGITS}g}") if isinstance(cell, int | float) else cell for cell in cells)


def native_sql(sql: str, catalog: Catalog, dialect: Dialect) -> str:
    """Write a query of SQLite's in another dialect: names as the catalog spells them, quoted where case would be lost.

    SQLite's LIKE ignores case, and so does ILIKE; MySQL's LIKE does by its usual collations.
    """
    tables = {table.name.lower(): table.name for table in catalog.tables}
    columns = {column.name.lower(): column.name for table in catalog.tables for column in table.columns}
    tree = sqlglot.parse_one(sql, dialect="sqlite")
    # Names of the query's own (aliases, steps) are written one way throughout.
    own = {alias.name.lower() for alias in tree.find_all(exp.TableAlias, exp.Alias) if alias.name}
    for name in tree.find_all(exp.Identifier):
        # A table and a column may have one name, in two spellings.
        of_table = isinstance(name.parent, exp.Table) or name.arg_key == "table"
        true = (tables if of_table else columns).get(name.this.lower())
        if true is not None and name.this.lower() not in own:
            name.set("this", true)
            name.set("quoted", name.args.get("quoted") or true != true.lower())
    if dialect in ("postgresql", "duckdb"):
        for like in list(tree.find_all(exp.Like)):
            like.replace(exp.ILike(this=like.this, expression=like.expression))
    return str(tree.sql(dialect=DIALECTS[dialect].sqlglot))
