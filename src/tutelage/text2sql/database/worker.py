"""A process of the sandbox: ``python -m tutelage.text2sql.database.worker <file descriptor> <text errors>``.

A module of its own, not a ``multiprocessing`` target: that would import the user's main script, and with it torch,
into every worker, and would fail in a script without a ``__main__`` guard.
"""

import signal
import sys
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

from tutelage.text2sql.database.guard import TextErrors
from tutelage.text2sql.database.session import Limits, Result, Scope, Session, Timing, failure, memory_limit


@dataclass(frozen=True, slots=True)
class Run:
    """Execute and fetch."""

    database: Path
    sql: str
    limits: Limits

    def __call__(self, session: Session) -> Result:
        return session.run(self.database, self.sql, self.limits)

    @property
    def seconds(self) -> float:
        """The longest that it may take."""
        return self.limits.seconds


@dataclass(frozen=True, slots=True)
class RunAll:
    """Execute and fetch several statements, within the time of one: what comes too late is ``timeout``."""

    database: Path
    statements: tuple[str, ...]
    limits: Limits

    def __call__(self, session: Session) -> tuple[Result, ...]:
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

    database: Path
    statements: tuple[str, ...]
    scope: Scope
    limits: Limits

    def __call__(self, session: Session) -> Timing:
        return session.time(self.database, self.statements, scope=self.scope, limits=self.limits)

    @property
    def seconds(self) -> float:
        """The longest that it may take."""
        return self.limits.seconds * len(self.statements)


Job = Run | RunAll | Time
Outcome = Result | tuple[Result, ...] | Timing


def serve(pipe: "Connection[Outcome | None, Job]", *, text_errors: TextErrors) -> None:
    """Answer jobs until the other end closes the pipe."""
    session = Session(text_errors=text_errors)
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


if __name__ == "__main__":
    main(sys.argv[1:])
