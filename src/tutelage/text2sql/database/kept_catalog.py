"""Catalogs kept in the store: counting values reads every row, and a person who asks a question waits for it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tutelage.core.store import Store, content_hash, file_hash, write_atomically
from tutelage.text2sql.database.address import Database, DatabaseUrl
from tutelage.text2sql.database.catalog import read_catalog
from tutelage.text2sql.database.check import check_database
from tutelage.text2sql.database.schema import Catalog, Column, ForeignKey, Table

_VERSION = 2  # of what is written; a change of the schema's classes makes new files
_FILE = "catalog.json"


def kept_catalog(database: Database, *, db_id: str, descriptions: Path | None, store: Store) -> Catalog:
    """Read the catalog of a database with its statistics; that of a SQLite file is kept by the file's hash.

    Args:
        database: Where it lies. A server's catalog is read anew each time: nothing tells whether it has changed.
        db_id: The name to know it by.
        descriptions: A folder of CSV files; None for ``database_description/`` beside the file, if it is there.
        store: Where it is kept.

    Raises:
        DataError: The file is not there, or cannot be read.
    """
    check_database(database)
    if isinstance(database, DatabaseUrl):
        return read_catalog(database, db_id=db_id, descriptions=descriptions)
    path = database
    folder = descriptions or path.parent / "database_description"
    meanings = {file.name: file_hash(file) for file in sorted(folder.glob("*.csv"))}
    inputs = {"database": file_hash(path), "db_id": db_id, "descriptions": meanings, "version": _VERSION}

    def build(made: Path) -> None:
        catalog = read_catalog(path, db_id=db_id, descriptions=descriptions)
        write_atomically(made / _FILE, json.dumps(asdict(catalog), ensure_ascii=False))

    content = json.loads((store.make("catalogs", inputs, build) / _FILE).read_text(encoding="utf-8"))
    # The file may have been moved since.
    return _catalog(content | {"database": str(path)})


def fingerprint(database: Database) -> str:
    """A hash of a file's bytes; of a server, which would have to be read whole, of what its tables look like."""
    if isinstance(database, Path):
        return file_hash(database)
    return content_hash({"catalog": repr(read_catalog(database, statistics=False))})


def _catalog(content: dict[str, Any]) -> Catalog:
    tables = tuple(_table(table) for table in content["tables"])
    return Catalog(**content | {"tables": tables, "notes": tuple(content["notes"])})


def _table(content: dict[str, Any]) -> Table:
    lists = {
        "columns": tuple(Column(**c | {"frequent": tuple(c["frequent"])}) for c in content["columns"]),
        "primary_key": tuple(content["primary_key"]),
        "foreign_keys": tuple(_foreign_key(key) for key in content["foreign_keys"]),
    }
    return Table(**content | lists)


def _foreign_key(content: dict[str, Any]) -> ForeignKey:
    lists = {name: tuple(content[name]) for name in ("columns", "referred_columns")}
    return ForeignKey(**content | lists)
