"""MySQL and MariaDB, through PyMySQL."""

import re
from collections.abc import Sequence
from typing import Any

import pymysql
import sqlalchemy as sa
from pymysql.cursors import Cursor, SSCursor

from tutelage.text2sql.database.address import DatabaseUrl
from tutelage.text2sql.database.servers.driver import CONNECT_SECONDS, LOCK_SECONDS, Rows, ServerTooOld, in_batches
from tutelage.text2sql.database.session import Status

_OLDEST_MYSQL, _OLDEST_MARIADB = (8, 0), (10, 3)  # the first with what is used here: WITH, and limits on time
# Numbers of errors (dev.mysql.com/doc/mysql-errors; MariaDB's from 1900 on).
_TIMEOUTS = {1317, 1969, 3024}  # killed, max_statement_time, max_execution_time
_REFUSED = {1044, 1142, 1143, 1227, 1290, 1370, 1792}  # no right; the transaction is read-only
_TOO_LARGE = {1021, 1037, 1038, 1041, 1114, 1153, 1301}  # disk or memory full, packet too large
_LOCKED = {1205, 3572}
_GONE = {1053, 1927, 2006, 2013, 2055}


def connect(database: DatabaseUrl) -> "pymysql.Connection[Cursor]":
    """Connect, so that all transactions are read-only.

    Raises:
        pymysql.Error: The server is not there, or does not let us in.
        ServerTooOld: It is older than we know.
    """
    connection = pymysql.connect(**_arguments(database))
    said = connection.get_server_info()
    oldest = _OLDEST_MARIADB if _is_mariadb(connection) else _OLDEST_MYSQL
    version = tuple(int(part) for part in re.findall(r"\d+", said.removeprefix("5.5.5-"))[:2])
    if version < oldest:
        connection.close()
        raise ServerTooOld(f"it is {said}, and {'.'.join(map(str, oldest))} is the oldest that is known")
    lock = max(1, int(LOCK_SECONDS))
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION READ ONLY")
        cursor.execute(
            f"SET SESSION lock_wait_timeout = {lock}, innodb_lock_wait_timeout = {lock}, time_zone = '+00:00'"
        )
    return connection


def _arguments(database: DatabaseUrl) -> dict[str, Any]:
    url = sa.make_url(database.url).set(drivername="mysql+pymysql")
    _, named = url.get_dialect()().create_connect_args(url)
    named.pop("client_flag", None)  # SQLAlchemy's: counts found rows, which only writes have
    return {"connect_timeout": CONNECT_SECONDS, "charset": "utf8mb4", **named}


def _is_mariadb(connection: "pymysql.Connection[Any]") -> bool:
    return "mariadb" in connection.get_server_info().lower()


def what_it_may_write(connection: "pymysql.Connection[Cursor]") -> str:
    """Name a right that the user has and does not need; empty for none."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW GRANTS")
        grants = [str(row[0]).upper() for row in cursor.fetchall()]
    writing = ("ALL PRIVILEGES", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "SUPER", "FILE")
    for grant in grants:
        rights = grant.split(" ON ", 1)[0]
        if (found := next((right for right in writing if right in rights), None)) is not None:
            return f"it has the right {found}"
    return ""


class MySQL:
    """A read-only session."""

    def __init__(self, database: DatabaseUrl) -> None:
        """Connect; see ``connect``."""
        self._arguments = _arguments(database)
        self._connection = connect(database)
        self._connection.autocommit(True)
        self._connection.cursorclass = SSCursor
        self._is_mariadb = _is_mariadb(self._connection)
        self._reading = False

    def begin(self, sql: str, seconds: float) -> Rows:
        """Start the query; its rows stay on the server until they are fetched."""
        if self._is_mariadb:
            self._do(f"SET SESSION max_statement_time = {max(0.001, seconds):.3f}")
        else:
            self._do(f"SET SESSION max_execution_time = {max(1, int(seconds * 1000))}")
        self._do("START TRANSACTION READ ONLY")
        cursor = self._connection.cursor()
        self._reading = True
        cursor.execute(sql)
        columns = tuple(column[0] for column in cursor.description or ())

        def fetch(count: int) -> Sequence[Sequence[Any]]:
            rows = cursor.fetchmany(count)
            self._reading = bool(rows)
            fetched: Sequence[Sequence[Any]] = rows or ()
            return fetched

        return Rows(columns, in_batches(fetch))

    def end(self) -> None:
        """Roll back.

        Raises:
            pymysql.OperationalError: Rows are left that nobody reads. The query is ended, but to go on with this
                connection they would have to be fetched.
        """
        if self._reading:
            self.cancel()
            raise pymysql.OperationalError(2014, "rows are left")
        self._connection.rollback()

    def cancel(self) -> None:
        """End the query on the server, through a connection of its own."""
        with pymysql.connect(**self._arguments) as other, other.cursor() as cursor:
            cursor.execute(f"KILL QUERY {self._connection.thread_id()}")

    def close(self) -> None:
        """Close the connection at once: a polite end would first read all rows that are left."""
        self._connection._force_close()

    def verdict(self, error: Exception) -> tuple[Status, str]:
        """Read the error's number."""
        if not isinstance(error, pymysql.Error):
            return "error", " ".join(str(error).split())
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        said = " ".join(str(error.args[-1] if error.args else error).split())
        if number in _LOCKED:
            return "error", f"waited {LOCK_SECONDS:g} s for another session's lock: ask again later"
        if number in _TIMEOUTS:
            return "timeout", said
        if number in _REFUSED:
            return "refused", said
        if number in _TOO_LARGE:
            return "too_large", said
        if number in _GONE or not self._connection.open:
            return "crashed", f"the server closed the connection ({said})"
        return "error", said

    def _do(self, sql: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
