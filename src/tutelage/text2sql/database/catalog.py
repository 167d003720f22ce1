"""What is in a database: ``read_catalog`` for a SQLite file or the URL of a server. Nothing is ever written."""

from pathlib import Path

from tutelage.core.errors import DataError
from tutelage.text2sql.database.descriptions import describe
from tutelage.text2sql.database.introspect_sqlite import introspect_sqlite
from tutelage.text2sql.database.schema import Catalog, Column, Dialect, ForeignKey, Table, Value

__all__ = ["Catalog", "Column", "Dialect", "ForeignKey", "Table", "Value", "read_catalog"]


def read_catalog(
    database: str | Path,
    *,
    db_id: str | None = None,
    descriptions: Path | None = None,
    statistics: bool = True,
) -> Catalog:
    """Read the catalog of a database.

    Args:
        database: The path of a SQLite file.
        db_id: The name to know it by; the file's stem where none is given.
        descriptions: A folder of CSV files that say what columns mean; where none is given,
            ``database_description/`` beside a SQLite file is taken, as BIRD lays it out.
        statistics: Count rows, distinct and frequent values (one scan a column).

    Raises:
        DataError: The database cannot be read, or has no tables.
    """
    path = Path(database)
    catalog = introspect_sqlite(path, db_id=db_id or path.stem, statistics=statistics)
    if descriptions is None and (beside := path.parent / "database_description").is_dir():
        descriptions = beside
    if not catalog.tables:
        raise DataError("database", f"{database} has no tables", "give a database that has tables")
    if descriptions is not None:
        catalog = describe(catalog, descriptions)
    return catalog
