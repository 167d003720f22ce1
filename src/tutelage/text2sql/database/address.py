"""Where a database lies: the path of a SQLite file, or a URL for everything else."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, get_args

from tutelage.core.errors import ConfigError
from tutelage.text2sql.database.schema import Dialect

if TYPE_CHECKING:
    import sqlalchemy as sa

# The first bytes of a DuckDB file follow an eight-byte checksum (duckdb.org/docs/internals/storage).
_DUCKDB_MAGIC = b"DUCK"
_SPELLINGS = {"postgres": "postgresql", "mariadb": "mysql"}
_HINT = "give the path of a SQLite or DuckDB file, or a postgresql://, mysql:// or duckdb:/// URL"


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A database that is no SQLite file. Printing it shows no password.

    Attributes:
        url: As SQLAlchemy reads it, password included. ``duckdb:///`` is followed by the path of a DuckDB file, or of a
            folder of Parquet or CSV files, each of which is a table.
        dialect: Of its SQL.
    """

    url: str = field(repr=False)
    dialect: Dialect

    def __str__(self) -> str:
        return _url(self.url).render_as_string(hide_password=True)

    @property
    def name(self) -> str:
        """What the database is called: its name on the server, or the file's without its ending."""
        return Path(_url(self.url).database or self.dialect).stem


# A path is always a SQLite file's.
Database: TypeAlias = Path | DatabaseUrl


def parse_database(text: str | Path, *, where: str = "database") -> Database:
    """Tell what a database is by how it is written, and a file by its first bytes. Nothing is connected to.

    Args:
        text: A path, a URL, or ``$NAME``: the URL then stands in that variable of the environment, so that no config or
            report holds its password.
        where: The config key that an error names.

    Raises:
        ConfigError: It is a URL, but of no known kind. The message repeats no part that may hold a password.
    """
    if isinstance(text, str) and text.startswith("$"):
        if not (found := os.environ.get(text[1:], "")):
            raise ConfigError(where, f"the environment has no {text[1:]}", f"set it: export {text[1:]}=postgresql://…")
        text = found
    if isinstance(text, str) and "://" in text:
        return _parse_url(text, where=where)
    path = Path(text)
    if path.is_file():
        with path.open("rb") as file:
            if file.read(12)[8:] == _DUCKDB_MAGIC:
                return DatabaseUrl(f"duckdb:///{path.absolute()}", "duckdb")
    return path


def _parse_url(text: str, *, where: str) -> DatabaseUrl:
    scheme = text.split("://", 1)[0]
    try:
        url = _url(text)
    except ValueError as error:
        raise ConfigError(
            where, f"what follows {scheme}:// cannot be read as a URL", "write postgresql://user@host/name"
        ) from error
    name = url.get_backend_name()
    name = _SPELLINGS.get(name, name)
    for dialect in get_args(Dialect):
        if dialect == name and dialect != "sqlite":
            if url.drivername.split("+")[0] != name:
                text = url.set(drivername=name).render_as_string(hide_password=False)
            if dialect != "duckdb" and not url.database:
                raise ConfigError(where, f"{scheme}://… names no database", f"write {scheme}://user@host/name")
            return DatabaseUrl(text, dialect)
    raise ConfigError(where, f"{scheme}:// is not a known kind of database", _HINT)


def _url(text: str) -> "sa.URL":
    import sqlalchemy as sa  # here, for every process of the sandbox loads this module

    try:
        return sa.make_url(text)
    except sa.exc.ArgumentError as error:
        raise ValueError(str(error)) from None


def dialect_of(database: Database) -> Dialect:
    """The dialect that a database speaks."""
    return "sqlite" if isinstance(database, Path) else database.dialect


def file_of(database: Database) -> Path | None:
    """The one file that a database is; None for a server, and for a folder of files."""
    if isinstance(database, DatabaseUrl):
        if database.dialect != "duckdb":
            return None
        database = Path(database.url.partition("///")[2])
    return database if database.is_file() else None


def name_of(database: Database) -> str:
    """The name to know a database by where nobody gave one."""
    return database.stem if isinstance(database, Path) else database.name


def text_of(database: Database) -> str:
    """Write an address so that ``parse_database`` reads it again; a URL with its password, so not to be shown."""
    return str(database) if isinstance(database, Path) else database.url
