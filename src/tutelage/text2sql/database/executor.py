"""The sandbox: model-written SQL runs here and nowhere else.

Every query runs on a connection that can only read (SQLite: `guard`; servers and DuckDB: `servers`), within limits on
time, rows, bytes and memory (`session`), and by default in a process of its own (`worker`) that is killed and replaced
when it hangs or dies. On a server, the query is ended there first.
"""

import pickle
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Self

from tutelage.text2sql.database import worker as worker_module
from tutelage.text2sql.database.address import Database, DatabaseUrl
from tutelage.text2sql.database.guard import TextErrors
from tutelage.text2sql.database.session import (
    NO_STATEMENT,
    Limits,
    Query,
    Result,
    Scope,
    Status,
    Timing,
    failure,
)
from tutelage.text2sql.database.sessions import Sessions
from tutelage.text2sql.database.worker import Job, Outcome, Run, RunAll, Time

__all__ = ["NO_STATEMENT", "Executor", "Limits", "Query", "Result", "Status", "Timing"]

# How long past its limit a worker may be silent. SQLite looks at the clock between instructions only, and one
# instruction (a LIKE over a long text) can take for ever.
_GRACE_SECONDS = 2.0
_START_SECONDS = 60.0
# A worker's first query on a server also loads the driver and connects.
_FIRST_SECONDS = 20.0
# How long a query on a server may take to end when it is cancelled, before its process is killed.
_CANCEL_SECONDS = 1.5
# Results that may wait for a slow one before them, for each worker.
_WINDOW = 16
# And how much they may hold; each alone may have as much as `Limits.bytes`.
_HELD_BYTES = 256 * 1024 * 1024


class Executor:
    """Executes read-only SQL on any database. To be used as a context manager, by one thread at a time.

    ``run`` and ``map`` may be mixed: a query may be run while the results of a map are being read.
    """

    def __init__(self, *, workers: int, limits: Limits, text_errors: TextErrors = "ignore") -> None:
        """Start nothing yet: workers start at the first query.

        Args:
            workers: Processes. 0 runs in this process: all that cannot write, time (between SQLite's
                instructions), rows and bytes are held, but memory is not, and a query inside one endless
                instruction is not stopped. For SQL of one's own making.
            limits: For queries that bring none.
            text_errors: What to do with text that is not UTF-8: ``strict`` makes the query fail.
        """
        self._limits = limits
        self._text_errors: TextErrors = text_errors
        self._local = None if workers else Sessions(text_errors=text_errors)
        self._size = workers
        self._workers: list[_Worker] = []
        self._tickets = 0
        self._waiting: deque[tuple[int, Job]] = deque()
        self._done: dict[int, Outcome] = {}
        self._sizes: dict[int, int] = {}  # of what is done and unread, in bytes
        self._forgotten: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, database: Database, sql: str) -> Result:
        """Execute one statement; whatever is wrong with it stands in the result, and nothing is raised."""
        outcome = self._finish(Run(_absolute(database), sql, self._limits))
        assert isinstance(outcome, Result)
        return outcome

    def run_all(self, database: Database, statements: Sequence[str]) -> list[Result]:
        """Execute several statements on one database, together within the time of one; results in their order."""
        outcome = self._finish(RunAll(_absolute(database), tuple(statements), self._limits))
        if isinstance(outcome, Result):  # its process was killed, or died
            return [outcome] * len(statements)
        assert isinstance(outcome, tuple)
        return list(outcome)

    def map(self, queries: Iterable[Query]) -> Iterator[Result]:
        """Execute many; their results come in the order of the queries, whatever the number of workers."""
        jobs = (Run(_absolute(query.database), query.sql, query.limits or self._limits) for query in queries)
        if self._local is not None:
            for job in jobs:
                yield job(self._local)
            return
        tickets: deque[int] = deque()
        try:
            for job in jobs:
                tickets.append(self._submit(job))
                if len(tickets) == _WINDOW * self._size:
                    yield self._result(tickets)
            while tickets:
                yield self._result(tickets)
        finally:  # the reader may stop early
            self._forget(tickets)

    def time(
        self, database: Database, statements: Sequence[str], *, repeats: int, scope: Scope, limits: Limits | None = None
    ) -> Timing:
        """Time statements in turn, ``repeats`` times, each on a fresh connection.

        Args:
            database: The database.
            statements: Usually the prediction and the gold.
            repeats: Rounds over all statements.
            scope: ``execute``: of ``execute`` alone, as VES has it (BIRD, evaluation_ves.py). ``fetch``: of execute,
                fetch and close, as R-VES has it (mini_dev). On a server it is always execute and fetch.
            limits: For each single execution; rows and bytes do not count. None: the executor's.

        Times are comparable only if nothing else runs: use one worker.
        """
        job = Time(_absolute(database), tuple(statements), scope, limits or self._limits)
        rounds: list[tuple[float, ...]] = []
        for _ in range(repeats):
            outcome = self._finish(job)
            assert isinstance(outcome, Timing | Result)
            if not isinstance(outcome, Timing) or outcome.status != "ok":
                return Timing(outcome.status, outcome.error, rounds)
            rounds += outcome.seconds
        return Timing("ok", "", rounds)

    def interrupt(self) -> None:
        """End what is running, whose result is then ``crashed``. May be called from another thread."""
        for worker in list(self._workers):
            worker.interrupt()

    def close(self) -> None:
        """Stop the workers, whatever they are doing."""
        while self._workers:
            self._workers.pop().kill()
        self._waiting.clear()
        if self._local is not None:
            self._local.close()

    def _finish(self, job: Job) -> Outcome:
        if self._local is not None:
            return job(self._local)
        return self._outcome(self._submit(job, before_others=True))

    def _result(self, tickets: deque[int]) -> Result:
        outcome = self._outcome(tickets[0])
        tickets.popleft()
        assert isinstance(outcome, Result)
        return outcome

    def _submit(self, job: Job, *, before_others: bool = False) -> int:
        self._tickets += 1
        if before_others:  # somebody waits for it, and for nothing else
            self._waiting.appendleft((self._tickets, job))
        else:
            self._waiting.append((self._tickets, job))
        self._dispatch()
        return self._tickets

    def _outcome(self, ticket: int) -> Outcome:
        while ticket not in self._done:
            self._pump(ticket)
        del self._sizes[ticket]
        return self._done.pop(ticket)

    def _forget(self, tickets: Iterable[int]) -> None:
        unread = set(tickets)
        never_begun = unread & {ticket for ticket, _ in self._waiting}
        self._waiting = deque(entry for entry in self._waiting if entry[0] not in never_begun)
        running = unread - never_begun - self._done.keys()
        self._forgotten |= running
        for ticket in unread & self._done.keys():
            del self._done[ticket], self._sizes[ticket]

    def _dispatch(self, wanted: int = 0) -> None:
        """Hand out work; where too much is held unread already, only what is wanted and what was asked before it."""
        while len(self._workers) < self._size:
            self._workers.append(_Worker(self._text_errors))
        for index, worker in enumerate(self._workers):
            if not self._waiting:
                return
            if self._waiting[0][0] > wanted and sum(self._sizes.values()) > _HELD_BYTES:
                return
            if worker.idle and worker.died:
                worker.kill()
                self._workers[index] = _Worker(self._text_errors)
            elif worker.idle:
                worker.give(*self._waiting.popleft())

    def _pump(self, wanted: int) -> None:
        """Hand out work, then wait for the first thing to happen: an answer, a death, or a time limit."""
        self._dispatch(wanted)
        timeout = min(worker.deadline for worker in self._workers if not worker.idle) - time.monotonic()
        readable = wait([worker.pipe for worker in self._workers], max(timeout, 0.0))
        for index, worker in enumerate(self._workers):
            if worker.pipe in readable:
                self._keep(worker.receive())
            elif worker.overdue:
                self._keep(worker.stop("timeout", "stuck in one instruction: its process was killed"))
            if worker.stopped:
                self._workers[index] = _Worker(self._text_errors)

    def _keep(self, answer: "_Answer | None") -> None:
        if answer is None:
            return
        ticket, outcome, size = answer
        if ticket in self._forgotten:
            self._forgotten.remove(ticket)
        else:
            self._done[ticket], self._sizes[ticket] = outcome, size


def _absolute(database: Database) -> Database:
    return database.absolute() if isinstance(database, Path) else database


_Answer = tuple[int, Outcome, int]  # ticket, outcome, bytes


class _Worker:
    """A process, and the one job it has."""

    def __init__(self, text_errors: TextErrors) -> None:
        self.pipe, theirs = Pipe()
        self._process = subprocess.Popen(
            # -P: a sqlite3.py in the user's folder is not the sqlite3 that is meant.
            [sys.executable, "-P", "-m", worker_module.__name__, str(theirs.fileno()), text_errors],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self.stopped = False
        self._connected: set[DatabaseUrl] = set()
        self._on_server = False
        self._ready = False
        self._ticket: int | None = None
        self._begin = time.monotonic()
        self.deadline = self._begin + _START_SECONDS

    @property
    def idle(self) -> bool:
        """Whether it waits for a job."""
        return self._ready and self._ticket is None

    @property
    def overdue(self) -> bool:
        """Whether it is silent past its limit."""
        return not self.idle and time.monotonic() > self.deadline

    @property
    def died(self) -> bool:
        """Whether it ended by itself, or somebody else ended it."""
        return self._process.poll() is not None

    def give(self, ticket: int, job: Job) -> None:
        """Send a job to an idle worker."""
        self._ticket = ticket
        self._begin = time.monotonic()
        self.deadline = self._begin + job.seconds + _GRACE_SECONDS
        self._on_server = isinstance(job.database, DatabaseUrl)
        if isinstance(job.database, DatabaseUrl) and job.database not in self._connected:
            self._connected.add(job.database)
            self.deadline += _FIRST_SECONDS
        with suppress(BrokenPipeError):  # it died just now: `receive` finds out
            self.pipe.send(job)

    def receive(self) -> _Answer | None:
        """Take what it sends: an answer, or None for the sign that it has started."""
        try:
            content = self.pipe.recv_bytes()
        except (EOFError, ConnectionResetError):
            return self.stop("crashed", "its process died")
        outcome: Outcome | None = pickle.loads(content)
        if outcome is None:
            self._ready = True
            return None
        assert self._ticket is not None
        answer, self._ticket = (self._ticket, outcome, len(content)), None
        return answer

    def interrupt(self) -> None:
        """End its process, if it is at work; whoever waits for it finds out."""
        if self._ticket is not None:
            self._end()

    def kill(self) -> int:
        """End it, whatever it is doing.

        Returns:
            The exit status, which is negative for a signal.
        """
        self.stopped = True
        self._end()
        self.pipe.close()
        return self._process.wait()

    def _end(self) -> None:
        if self._on_server and self._ticket is not None:
            self._process.terminate()  # it ends its query on the server first
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_CANCEL_SECONDS)
        self._process.kill()

    def stop(self, status: Status, error: str) -> _Answer | None:
        """Kill it, and give its job this end.

        Raises:
            RuntimeError: It never started; another one would not either.
        """
        code = self.kill()
        if not self._ready:
            raise RuntimeError(f"the sandbox's process does not start ({error}, exit status {code})")
        if self._ticket is None:
            return None
        return self._ticket, failure(status, error, time.monotonic() - self._begin), 0
