"""What is in a database: ``read_catalog`` for a SQLite or DuckDB file, or the URL of a server. Nothing is written."""

import sqlite3
from pathlib import Path

from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.database.address import Database, DatabaseUrl, parse_database
from tutelage.text2sql.database.descriptions import describe
from tutelage.text2sql.database.infer_keys import add_inferred_keys
from tutelage.text2sql.database.introspect_server import connect, introspect_server
from tutelage.text2sql.database.introspect_server import contained as contained_on_server
from tutelage.text2sql.database.introspect_sqlite import contained, introspect_sqlite
from tutelage.text2sql.database.schema import Catalog, Column, Dialect, ForeignKey, Table, Value
from tutelage.text2sql.database.sqlite_file import explain, open_readonly

__all__ = ["Catalog", "Column", "Dialect", "ForeignKey", "Table", "Value", "read_catalog"]


def read_catalog(
    database: Database | str,
    *,
    db_id: str | None = None,
    descriptions: Path | None = None,
    statistics: bool = True,
    infer_keys: bool = False,
) -> Catalog:
    """Read the catalog of a database.

    Args:
        database: Where it lies; as text, the path of a SQLite or DuckDB file, or a URL such as
            ``postgresql://user@host/name``.
        db_id: The name to know it by; the file's stem or the database's name where none is given.
        descriptions: A folder of CSV files that say what columns mean; where none is given,
            ``database_description/`` beside a SQLite file is taken, as BIRD lays it out.
        statistics: Count rows, distinct and frequent values (one scan a column).
        infer_keys: Add foreign keys that were not declared, marked as inferred; needs the statistics.

    Raises:
        ConfigError: The URL is of no known kind, or its driver is not installed.
        DataError: The database cannot be read, or has no tables.
    """
    if infer_keys and not statistics:
        raise ConfigError("catalog.infer_keys", "keys are inferred from values", "set catalog.statistics to true")
    if not isinstance(database, DatabaseUrl):
        database = parse_database(database)
    if isinstance(database, Path):
        path = database
        catalog = introspect_sqlite(path, db_id=db_id or path.stem, statistics=statistics)
        if descriptions is None and (beside := path.parent / "database_description").is_dir():
            descriptions = beside
    else:
        catalog = introspect_server(database, db_id=db_id, statistics=statistics)
    if not catalog.tables:
        raise DataError("database", f"{catalog.database} has no tables", "give a database that has tables")
    if infer_keys:
        catalog = _with_inferred_keys(catalog, database)
    if descriptions is not None:
        catalog = describe(catalog, descriptions)
    return catalog


def _with_inferred_keys(catalog: Catalog, database: Database) -> Catalog:
    if isinstance(database, DatabaseUrl):
        with connect(database) as server:
            return add_inferred_keys(catalog, contained=lambda column, key: contained_on_server(server, column, key))
    path = database
    connection = open_readonly(path)
    try:
        return add_inferred_keys(catalog, contained=lambda column, key: contained(connection, column, key))
    except sqlite3.Error as error:
        raise explain(error, path) from error
    finally:
        connection.close()
