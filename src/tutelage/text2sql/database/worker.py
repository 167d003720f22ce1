"""A process of the sandbox: ``python -m tutelage.text2sql.database.worker <file descriptor> <text errors>``.

A module of its own, not a ``multiprocessing`` target: that would import the user's main script, and with it torch,
into every worker, and would fail in a script without a ``__main__`` guard.
"""

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import cast

from tutelage.text2sql.database.address import Database
from tutelage.text2sql.database.guard import TextErrors
from tutelage.text2sql.database.session import Limits, Result, Scope, Timing, failure, memory_limit
from tutelage.text2sql.database.sessions import Sessions


@dataclass(frozen=True, slots=True)
class Run:
    """Execute and fetch."""

    database: Database
    sql: str
    limits: Limits

    def __call__(self, session: Sessions) -> Result:
        return session.run(self.database, self.sql, self.limits)

    @property
    def seconds(self) -> float:
        """The longest that it may take."""
        return self.limits.seconds


@dataclass(frozen=True, slots=True)
class RunAll:
    """Execute and fetch several statements, within the time of one: what comes too late is ``timeout``."""

    database: Database
    statements: tuple[str, ...]
    limits: Limits

    def __call__(self, session: Sessions) -> tuple[Result, ...]:
        results: list[Result] = []
        begin = time.monotonic()
        for sql in self.statements:
            left = self.limits.seconds - (time.monotonic() - begin)
            if left > 0:
                results.append(session.run(self.database, sql, replace(self.limits, seconds=left)))
            else:
                results.append(failure("timeout", f"{len(self.statements)} statements took too long together", 0.0))
        return tuple(results)

    @property
    def seconds(self) -> float:
        """The longest that it may take."""
        return self.limits.seconds


@dataclass(frozen=True, slots=True)
class Time:
    """Execute some statements for the clock, once each."""

    database: Database
    statements: tuple[str, ...]
    scope: Scope
    limits: Limits

    def __call__(self, session: Sessions) -> Timing:
        return session.time(self.database, self.statements, scope=self.scope, limits=self.limits)

    @property
    def seconds(self) -> float:
        """The longest that it may take."""
        return self.limits.seconds * len(self.statements)


Job = Run | RunAll | Time
Outcome = Result | tuple[Result, ...] | Timing


def _end_politely(session: Sessions) -> None:
    """At SIGTERM, end the query on its server first: it would go on there without us."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # this thread may be deep in a driver

    def wait() -> None:
        signal.sigwait({signal.SIGTERM})
        session.cancel()
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def serve(pipe: "Connection[Outcome | None, Job]", *, text_errors: TextErrors) -> None:
    """Answer jobs until the other end closes the pipe."""
    session = Sessions(text_errors=text_errors)
    _end_politely(session)
    pipe.send(None)  # ready: the time limits of jobs do not include this process's start
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        with memory_limit(job.limits.memory_mb):
            outcome: Outcome = job(session)
        try:
            pipe.send(outcome)
        except MemoryError:
            pipe.send(failure("too_large", "out of memory", 0.0))


def main(arguments: list[str]) -> None:
    """Run a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it closes the pipe
    serve(Connection(int(arguments[0])), text_errors=cast(TextErrors, arguments[1]))
    os._exit(0)  # DuckDB complains at an interpreter's end of what a thread of ours still holds


if __name__ == "__main__":
    main(sys.argv[1:])
