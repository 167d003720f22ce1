"""Whether a database can be used, before the long part begins."""

from pathlib import Path

from tutelage.text2sql.database.address import Database
from tutelage.text2sql.database.sqlite_file import check_file


def check_database(database: Database, *, where: str = "database") -> None:
    """Find before the long part what is wrong with a database; a server is connected to once.

    Raises:
        ConfigError: Its driver is not installed.
        DataError: It is not there, or cannot be read.
    """
    if isinstance(database, Path):
        check_file(database, where=where)
        return
    from tutelage.text2sql.database.servers.session import check_server  # sqlglot takes long to load

    check_server(database)
