"""A page to ask on: ``python ask.py run=… web=true``. One small page, served by FastAPI; the ``web`` extra."""

import csv
import io
import ipaddress
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from tutelage.core.errors import ConfigError, UserError
from tutelage.text2sql.database.executor import Executor
from tutelage.text2sql.inference.session import LIMITS, MAX_QUESTION, Session, plain, record

if TYPE_CHECKING:
    from fastapi import FastAPI

SHOWN_ROWS = 1_000  # of a result, on the page; the CSV holds all of them


class Question(BaseModel):
    """A question; ``ticket`` names it, so that it can be stopped."""

    question: Annotated[str, Field(max_length=MAX_QUESTION)]
    ticket: Annotated[str, Field(max_length=64)]
    after: tuple[str, str] | None = None


class Typed(BaseModel):
    """A query that was typed or edited."""

    sql: Annotated[str, Field(max_length=100_000)]
    ticket: Annotated[str, Field(max_length=64)]


class Ticket(BaseModel):
    """What is to be stopped."""

    ticket: str


class Running:
    """The queries that run now, each in a sandbox of its own, so that one person's is not another's.

    A sandbox that is free again waits for the next query: its process takes a tenth of a second to start.
    """

    def __init__(self) -> None:
        self._executors: dict[str, Executor] = {}
        self._free: list[Executor] = []
        self._lock = threading.Lock()

    @contextmanager
    def executor(self, ticket: str) -> Iterator[Executor]:
        """Lend an executor that :meth:`stop` can interrupt."""
        with self._lock:
            executor = self._free.pop() if self._free else Executor(workers=1, limits=LIMITS)
            self._executors[ticket] = executor
        try:
            yield executor
        finally:
            with self._lock:
                self._executors.pop(ticket, None)
                self._free.append(executor)

    def close(self) -> None:
        """End the processes that wait."""
        with self._lock:
            while self._free:
                self._free.pop().close()

    def stop(self, ticket: str) -> bool:
        """Interrupt a query; return whether it was running."""
        with self._lock:
            executor = self._executors.get(ticket)
        if executor is not None:
            executor.interrupt()
        return executor is not None


def check_page(host: str, port: int) -> None:
    """Refuse what cannot be served, before the model is loaded.

    Raises:
        ConfigError: The extra is not installed, or the address is taken or not this machine's.
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError("web", f"the page needs FastAPI ({error})", "pip install fastapi uvicorn") from None
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            raise ConfigError(
                "port", f"{host}:{port} cannot be used ({error.strerror})", "give another: port=7861"
            ) from None


def serve(session: Session, *, host: str, port: int) -> None:
    """Serve until Ctrl-C."""
    import uvicorn

    token = None if _loopback(host) else secrets.token_urlsafe(16)
    app = make_app(session, token=token)
    config = uvicorn.Config(app, host=host, port=port, log_level="warning")
    with config.bind_socket() as listening:
        address = f"http://{host}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        uvicorn.Server(config).run(sockets=[listening])


def make_app(session: Session, *, token: str | None) -> "FastAPI":
    """Make the application.

    Args:
        session: The model and its database. It answers one question at a time; typed queries run beside each other.
        token: What every request must bring; None on loopback.
    """
    from fastapi import FastAPI, Request
    from fastapi.responses import HTMLResponse, JSONResponse, Response

    writing, running = threading.Lock(), Running()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        running.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    page = (resources.files("tutelage.text2sql.inference") / "page.html").read_text(encoding="utf-8")

    @app.middleware("http")
    async def guard(request: Request, go_on: Any) -> Response:
        # A page of somebody else's must not reach this one through the browser: by another name, or without the token.
        name = request.url.hostname or ""
        brought = request.headers.get("x-token") or request.query_params.get("token") or ""
        if token is None and not _loopback(name):
            return JSONResponse({"error": f"{name} is not this machine"}, status_code=403)
        if token is not None and not secrets.compare_digest(brought, token):
            return JSONResponse({"error": "the address lacks its token"}, status_code=403)
        answer: Response = await go_on(request)
        return answer

    @app.exception_handler(UserError)
    async def said(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=400)

    @app.get("/", response_class=HTMLResponse)
    def index() -> str:
        return page

    @app.get("/api/schema")
    def schema() -> dict[str, Any]:
        tables = [
            {
                "name": table.name,
                "rows": table.num_rows,
                "columns": [{"name": column.name, "type": column.type} for column in table.columns],
            }
            for table in session.catalog.tables
        ]
        return {"db_id": session.db_id, "tables": tables}

    @app.post("/api/ask")
    def ask(asked: Question) -> dict[str, Any]:
        with writing, running.executor(asked.ticket) as executor:
            reply = session.ask(asked.question, after=asked.after, executor=executor)
            return {**record(reply, rows=SHOWN_ROWS), "why": session.why(reply.answer)}

    @app.post("/api/run")
    def run(typed: Typed) -> dict[str, Any]:
        with running.executor(typed.ticket) as executor:
            reply = session.run_sql(typed.sql, executor=executor)
        return {**record(reply, rows=SHOWN_ROWS), "why": session.why(None)}

    @app.post("/api/csv")
    def rows(typed: Typed) -> Response:
        with running.executor(typed.ticket) as executor:
            result = session.run_sql(typed.sql, executor=executor).result
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(result.columns)
        writer.writerows([plain(cell) for cell in row] for row in result.rows)
        return Response(text.getvalue().encode("utf-8", "backslashreplace"), media_type="text/csv; charset=utf-8")

    @app.post("/api/stop")
    def stop(ticket: Ticket) -> dict[str, bool]:
        return {"stopped": running.stop(ticket.ticket)}

    return app


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
