"""A server on loopback that speaks OpenAI's protocol, or whatever a test makes it say."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


@dataclass
class Server:
    """Answers each request with the next of ``script``, or the last one for ever."""

    script: list[Answer]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0


def completion(text: str, *, finish_reason: str = "stop", usage: tuple[int, int] | None = (10, 5)) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}],
    }
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return body


def send(body: object, *, status: int = 200, headers: dict[str, str] | None = None, cut: int | None = None) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw[:cut])

    return answer


def hang(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    """Never answer; the thread ends with the process."""
    time.sleep(3600)


def meet(server: Server, *, number: int) -> Answer:
    """Answer once so many calls have been under way together."""

    def answer(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        while server.most_under_way < number:
            time.sleep(0.01)
        echo(handler, request)

    return answer


def hang_up(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    handler.close_connection = True
    handler.connection.close()


def echo(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    time.sleep(0.05)
    send(completion(request["messages"][0]["content"].upper()))(handler, request)


@contextmanager
def serve() -> Iterator[Server]:
    """Run a server that echoes until its script says otherwise."""
    state = Server(script=[echo])
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                state.requests.append({"path": self.path, **request})
                state.keys.append(self.headers["Authorization"])
                answer = state.script.pop(0) if len(state.script) > 1 else state.script[0]
                state.under_way += 1
                state.most_under_way = max(state.most_under_way, state.under_way)
            try:
                answer(self, request)
            finally:
                with lock:
                    state.under_way -= 1

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.block_on_close = False
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        state.url = f"http://127.0.0.1:{http.server_port}/v1"
        yield state
        http.shutdown()
