"""One process's part of the sandbox, whatever the database: SQLite files here, everything else in ``servers``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.text2sql.database.address import Database
from tutelage.text2sql.database.guard import TextErrors
from tutelage.text2sql.database.session import Limits, Result, Scope, Session, Timing

if TYPE_CHECKING:
    from tutelage.text2sql.database.servers.session import ServerSession


class Sessions:
    """Runs queries in this process. Only ``cancel`` may be called from another thread."""

    def __init__(self, *, text_errors: TextErrors) -> None:
        """Open nothing yet. ``text_errors`` is SQLite's; servers know the encoding of their text."""
        self._sqlite = Session(text_errors=text_errors)
        self._servers: ServerSession | None = None

    def run(self, database: Database, sql: str, limits: Limits) -> Result:
        """Execute one statement and fetch all of its rows; whatever is wrong stands in the result."""
        if isinstance(database, Path):
            return self._sqlite.run(database, sql, limits)
        return self._server().run(database, sql, limits)

    def time(self, database: Database, statements: Sequence[str], *, scope: Scope, limits: Limits) -> Timing:
        """Time statements once each, in turn; on a server always with the fetching of their rows."""
        if isinstance(database, Path):
            return self._sqlite.time(database, statements, scope=scope, limits=limits)
        return self._server().time(database, statements, limits=limits)

    def cancel(self) -> None:
        """End what is running on a server. A SQLite query ends with its process."""
        if self._servers is not None:
            self._servers.cancel()

    def close(self) -> None:
        """Close every database."""
        self._sqlite.close()
        if self._servers is not None:
            self._servers.close()

    def _server(self) -> "ServerSession":
        if self._servers is None:
            from tutelage.text2sql.database.servers.session import ServerSession  # sqlglot takes long to load

            self._servers = ServerSession()
        return self._servers
