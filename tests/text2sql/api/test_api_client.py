"""The client against a server on loopback that answers, refuses, hangs and talks nonsense."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_server import Server, completion, echo, hang, hang_up, meet, send, serve

from tutelage.core.errors import ConfigError, RunError
from tutelage.text2sql.api.client import Client, Service
from tutelage.text2sql.api.journal import Journal, Ledger, Price, Replies, Reply

KEY = "sk-very-secret"
PRICE = Price(input=1_000_000.0, output=1_000_000.0)  # a dollar a token


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serve() as server:
        yield server


def service(server: Server) -> Service:
    return Service(
        where="synthesizer",
        model="teacher",
        base_url=server.url,
        key_variable="TEACHER_KEY",
        parameters={"temperature": 0.5, "max_tokens": 100},
        seconds=60.0,
        tries=3,
        concurrency=4,
        requests_per_minute=None,
        first_wait=0.01,
    )


def client(server: Server, folder: Path, *, budget_usd: float = 1e9, **changes: Any) -> Client:
    ledger = Ledger(folder / "ledger.jsonl", account="one", price=PRICE, budget_usd=budget_usd)
    return Client(replace(service(server), **changes), replies=Replies(folder / "replies.jsonl"), ledger=ledger, seed=1)


def ask(asked: Client, text: str = "hello") -> Reply:
    return asked.ask([{"role": "user", "content": text}], stage="semantic", response_format=None)


def spent(folder: Path) -> float:
    return Ledger(folder / "ledger.jsonl", account="one", price=PRICE, budget_usd=1).spent_usd


def test_it_sends_what_was_asked_and_reads_the_answer(server: Server, tmp_path: Path) -> None:
    asked = client(server, tmp_path)
    reply = asked.ask([{"role": "user", "content": "hello"}], stage="semantic", response_format={"type": "json_object"})
    assert reply == Reply("HELLO", "stop", 10, 5)
    assert server.requests == [
        {
            "path": "/v1/chat/completions",
            "model": "teacher",
            "messages": [{"role": "user", "content": "hello"}],
            "temperature": 0.5,
            "max_tokens": 100,
            "response_format": {"type": "json_object"},
        }
    ]
    assert server.keys == [f"Bearer {KEY}"]
    assert spent(tmp_path) == 15.0


def test_an_answer_is_paid_once_even_by_another_process(server: Server, tmp_path: Path) -> None:
    first = ask(client(server, tmp_path))
    again = client(server, tmp_path)
    assert ask(again) == first
    assert again.counts == {"cached": 1}
    assert len(server.requests) == 1
    ask(again, "something else")
    ask(client(server, tmp_path, model="another"))
    ask(client(server, tmp_path, parameters={"temperature": 0.6, "max_tokens": 100}))
    assert len(server.requests) == 4  # another message, model or parameter is another question


def test_threads_with_the_same_question_share_one_answer(server: Server, tmp_path: Path) -> None:
    asked = client(server, tmp_path)
    with ThreadPoolExecutor(8) as threads:
        assert len({*threads.map(lambda _: ask(asked), range(8))}) == 1
    assert len(server.requests) == 1


def _ask_ten(url: str, folder: Path) -> None:
    asked = client(Server(script=[], url=url), folder)
    for i in range(10):
        ask(asked, f"question {i}")


def test_what_was_paid_outlives_a_kill(server: Server, tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_ask_ten, args=(server.url, tmp_path))
    process.start()
    while len(server.requests) < 4:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    num_asked = len(server.requests)
    kept = {record["text"] for record in Journal(tmp_path / "replies.jsonl").records()}
    assert num_asked - 1 <= len(kept) + 1  # at most the one that was under way is lost
    asked = client(server, tmp_path)
    for i in range(10):
        assert ask(asked, f"question {i}").text == f"QUESTION {i}"
    assert asked.counts["cached"] == len(kept)
    assert asked.counts["paid"] == 10 - len(kept)


def test_half_a_line_of_a_killed_run_is_passed_over(server: Server, tmp_path: Path) -> None:
    ask(client(server, tmp_path))
    with (tmp_path / "replies.jsonl").open("a") as file:
        file.write('{"key": "abc", "text": "half an ans')
    ask(client(server, tmp_path), "another")
    asked = client(server, tmp_path)
    assert ask(asked).text == "HELLO"
    assert ask(asked, "another").text == "ANOTHER"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "trouble",
    [
        send({"error": {"message": "slow down"}}, status=429),
        send({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0.05"}),
        send({"error": {"message": "broken"}}, status=500),
        send(b"<html>bad gateway</html>", status=502),
        send(completion("HELLO"), cut=40),  # half a JSON: the connection ends in the middle
        send(json.dumps(completion("HELLO")).encode()[:40]),  # half a JSON, said to be whole
        send(b"Hello! How can I help you today?"),
        send({"detail": "another schema"}),
        send({"choices": []}),
        send([1, 2]),
        send(b""),
        hang_up,
        hang,
    ],
    ids=lambda trouble: None,
)
def test_passing_trouble_is_tried_again(server: Server, tmp_path: Path, trouble: Any) -> None:
    server.script = [trouble, trouble, echo]
    asked = client(server, tmp_path, seconds=3.0 if trouble is hang else 60.0)
    assert ask(asked).text == "HELLO"
    assert asked.counts == {"retries": 2, "paid": 1}


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (send({"error": {"message": "slow down"}}, status=429), "status 429: .*slow down"),
        (send({"error": {"message": "out of order"}}, status=500), "status 500: .*out of order"),
        (send(b"Hello! How can I help you today?"), "not a chat completion: 'Hello!"),
        (hang, "timed out"),
    ],
)
def test_lasting_trouble_ends_with_its_reason(server: Server, tmp_path: Path, trouble: Any, said: str) -> None:
    server.script = [echo, trouble]
    ask(client(server, tmp_path))
    asked = client(server, tmp_path, seconds=0.5 if trouble is hang else 60.0)
    with pytest.raises(RunError, match=f"gave no answer in 3 tries; the last time: .*{said}") as caught:
        ask(asked, "another")
    assert caught.value.where == "synthesizer.base_url"
    assert len(server.requests) == 4
    assert ask(client(server, tmp_path)).text == "HELLO"  # what was done is kept


def test_no_server_there(server: Server, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="gave no answer in 3 tries"):
        ask(client(server, tmp_path, base_url="http://127.0.0.1:9/v1"))
    with pytest.raises(ConfigError, match=r"synthesizer\.base_url"):
        ask(client(server, tmp_path, base_url="no address", tries=1))


@pytest.mark.parametrize(
    ("status", "where", "hint"),
    [
        (401, "synthesizer.key_variable", "export TEACHER_KEY"),
        (403, "synthesizer.key_variable", "export TEACHER_KEY"),
        (404, "synthesizer.model", "check model and base_url"),
        (400, "synthesizer.parameters", "change the parameters"),
        (422, "synthesizer.parameters", "change the parameters"),
    ],
)
def test_a_mistake_is_not_tried_again(server: Server, tmp_path: Path, status: int, where: str, hint: str) -> None:
    server.script = [send({"error": {"message": f"Incorrect key provided: {KEY}"}}, status=status)]
    with pytest.raises(ConfigError, match=f"status {status}") as caught:
        ask(client(server, tmp_path))
    assert caught.value.where == where
    assert hint in caught.value.hint
    assert len(server.requests) == 1
    assert spent(tmp_path) == 0.0


def test_an_empty_account_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    body = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    server.script = [send(body, status=429)]
    with pytest.raises(RunError, match="exceeded your quota"):
        ask(client(server, tmp_path))
    assert len(server.requests) == 1


def test_the_key_is_written_nowhere(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server.script = [
        send(f"what is {KEY}?"),
        send({"error": {"message": f"key {KEY} is slow"}}, status=429),
        send({"error": {"message": f"key {KEY} is bad"}}, status=401),
    ]
    asked = client(server, tmp_path)
    with pytest.raises(ConfigError) as caught:
        ask(asked)
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    for text in (str(caught.value), repr(caught.value), written, *capfd.readouterr(), repr(asked)):
        assert KEY not in text


def test_a_server_of_ones_own_needs_no_key(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEACHER_KEY")
    assert ask(client(server, tmp_path)).text == "HELLO"
    server.script = [send({"error": {"message": "who are you?"}}, status=401)]
    with pytest.raises(ConfigError, match=r"\$TEACHER_KEY is not set"):
        ask(client(server, tmp_path), "another")


def test_no_call_starts_that_could_exceed_the_budget(server: Server, tmp_path: Path) -> None:
    # A call costs 15 but can cost 100 for its answer alone, and its bytes for the question.
    with pytest.raises(RunError, match=r"synthesizer\.budget_usd"):
        ask(client(server, tmp_path, budget_usd=110.0))
    assert server.requests == []
    asked = client(server, tmp_path, budget_usd=300.0)
    with pytest.raises(RunError, match=r"of \$300 is spent"):
        for i in range(100):
            ask(asked, f"question {i}")
    # After n calls 15 n are spent: the last one started with room for its most.
    num_asked = len(server.requests)
    assert 2 <= num_asked <= 13
    assert spent(tmp_path) == 15.0 * num_asked
    with pytest.raises(RunError):  # another run does not begin at zero
        ask(client(server, tmp_path, budget_usd=300.0), "again")
    assert ask(client(server, tmp_path, budget_usd=300.0), "question 0").text == "QUESTION 0"  # had already
    assert ask(client(server, tmp_path, budget_usd=600.0), "again").text == "AGAIN"


def test_threads_keep_the_budget_together(server: Server, tmp_path: Path) -> None:
    asked = client(server, tmp_path, budget_usd=400.0, concurrency=8)

    def attempt(i: int) -> bool:
        try:
            ask(asked, f"question {i}")
        except RunError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        done = sum(threads.map(attempt, range(40)))
    assert done == len(server.requests)
    assert 0 < spent(tmp_path) == 15.0 * done <= 400.0


def test_what_nobody_knows_the_price_of_counts_in_full(server: Server, tmp_path: Path) -> None:
    server.script = [send(completion("HELLO", usage=None))]
    ask(client(server, tmp_path))
    no_usage = spent(tmp_path)
    assert no_usage > 100.0
    server.script = [hang]
    with pytest.raises(RunError):
        ask(client(server, tmp_path, tries=1, seconds=0.5), "olleh")
    assert spent(tmp_path) == 2 * no_usage


def test_a_call_that_a_kill_cut_off_counts_in_full(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, account="one", price=PRICE, budget_usd=1000.0)
    done = ledger.reserve("semantic", input_tokens=50, output_tokens=100)
    ledger.settle(done, "reply", input_tokens=10, output_tokens=5)
    ledger.reserve("semantic", input_tokens=50, output_tokens=100)  # never settled
    assert Ledger(path, account="one", price=PRICE, budget_usd=1000.0).spent_usd == 15.0 + 150.0
    assert Ledger(path, account="two", price=PRICE, budget_usd=1000.0).spent_usd == 0.0


def test_calls_at_once_are_limited(server: Server, tmp_path: Path) -> None:
    asked = client(server, tmp_path, concurrency=2)
    server.script = [meet(server, number=2)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: ask(asked, f"question {i}"), range(12)))
    assert server.most_under_way == 2


def test_calls_a_minute_are_limited(server: Server, tmp_path: Path) -> None:
    asked = client(server, tmp_path, requests_per_minute=600.0)
    begin = time.monotonic()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda i: ask(asked, f"question {i}"), range(6)))
    assert time.monotonic() - begin >= 0.5  # six calls are five gaps of a tenth of a second


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"temperature": 1.0}, "nothing limits"),
        ({"max_tokens": 0}, "nothing limits"),
        ({"max_tokens": 10, "n": 5}, "n cannot be set"),
        ({"max_tokens": 10, "stream": True}, "stream cannot be set"),
    ],
)
def test_parameters_that_would_cost_without_limit(
    server: Server, tmp_path: Path, parameters: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        client(server, tmp_path, parameters=parameters)
