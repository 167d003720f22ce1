"""DuckDB: a file, or a folder of Parquet or CSV files whose names are the tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import sqlalchemy as sa

from tutelage.text2sql.database.address import DatabaseUrl
from tutelage.text2sql.database.servers.driver import Rows, in_batches
from tutelage.text2sql.database.session import Status

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",  # no variables of this process as tables
    "threads": "1",  # rows and sums of floats come in the same order each time
    "memory_limit": "1GB",
    "temp_directory": "",  # what does not fit into memory fails: nothing is written to disk
}
_READERS = {".parquet": "read_parquet", ".csv": "read_csv"}


def connect(database: DatabaseUrl) -> duckdb.DuckDBPyConnection:
    """Open a file to read, or a folder's files as views, with no way to any other file.

    Raises:
        duckdb.Error: The file is not there, is no DuckDB file, or is open for writing elsewhere.
    """
    path = Path(sa.make_url(database.url).database or "")
    if path.is_dir():
        connection = duckdb.connect(":memory:", config=_CONFIG)
        # Before the files are looked into: their content must not choose what is read.
        folder = str(path.absolute()).replace("'", "''")
        connection.execute(f"SET allowed_directories = ['{folder}/']")
        connection.execute("SET enable_external_access = false")
        for file in sorted(path.iterdir()):
            if (reader := _READERS.get(file.suffix.lower())) is not None:
                name, at = file.stem.replace('"', '""'), str(file.absolute()).replace("'", "''")
                connection.execute(f"""CREATE VIEW "{name}" AS SELECT * FROM {reader}('{at}')""")
    else:
        connection = duckdb.connect(path, read_only=True, config=_CONFIG)
        connection.execute("SET enable_external_access = false")
    schemas = connection.execute(
        "SELECT schema_name FROM duckdb_schemas() WHERE database_name = current_database() AND NOT internal"
        " ORDER BY schema_name"
    ).fetchall()
    path_of_names = ",".join(["main", *(f'"{name}"' for (name,) in schemas if name != "main" and '"' not in name)])
    connection.execute(f"SET search_path = '{path_of_names.replace(chr(39), chr(39) * 2)}'")
    # Settings that an open connection alone knows.
    connection.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
    connection.execute("SET lock_configuration = true")
    return connection


class DuckDB:
    """A file opened to read only, in this process."""

    def __init__(self, database: DatabaseUrl) -> None:
        """Open it.

        Raises:
            duckdb.Error: It cannot be opened.
        """
        self._connection = connect(database)

    def begin(self, sql: str, seconds: float) -> Rows:
        """Start the query, if DuckDB's own parser, too, takes it for a single one."""
        statements = self._connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise duckdb.PermissionException("only one query may run")
        cursor = self._connection.execute(statements[0])
        columns = tuple(column[0] for column in cursor.description or ())

        def fetch(count: int) -> Sequence[Sequence[Any]]:
            rows: Sequence[Sequence[Any]] = cursor.fetchmany(count)
            return rows

        return Rows(columns, in_batches(fetch))

    def end(self) -> None:
        """Nothing is left open."""

    def cancel(self) -> None:
        """End the query."""
        self._connection.interrupt()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def verdict(self, error: Exception) -> tuple[Status, str]:
        """Read the error's class."""
        said = " ".join(str(error).split())
        match error:
            case duckdb.InterruptException():
                return "timeout", said
            case duckdb.PermissionException():
                return "refused", said
            case duckdb.OutOfMemoryException():
                return "too_large", said
        return "error", said
