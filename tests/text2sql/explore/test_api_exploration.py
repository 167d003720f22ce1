"""A whole exploration with a model on loopback: what breaks half-way is not paid again."""

import json
import re
import sqlite3
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from api_server import Server, completion, send, serve

from tutelage.core.errors import ConfigError, RunError
from tutelage.core.store import Store
from tutelage.text2sql.explore.config import explore_settings
from tutelage.text2sql.explore.pair import read_pairs
from tutelage.text2sql.explore.pipeline import explore


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEACHER_KEY", "sk-very-secret")
    with serve() as server:
        server.script = [teach]
        yield server


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, town TEXT);
            CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customer(id), price REAL);
            INSERT INTO customer VALUES (1, 'Dora', 'Rome'), (2, 'Bob', 'Oslo'), (3, 'Cleo', 'Rome');
            INSERT INTO purchase VALUES (1, 1, 2.5), (2, 1, 7.0), (3, 2, 1.0), (4, 3, 9.5);
            """
        )
    connection.close()
    return path


def teach(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    """Be a dull model: ask for each column, then for its values where an id is greater than 1."""
    text = request["messages"][0]["content"]
    if text.startswith("You explore"):
        (table, *_), columns = re.findall(r"^Table (\w+)", text, re.M), re.findall(r"^- (\w+) [A-Z]+\b", text, re.M)
        pairs = [
            {"question": f"What is the {column} of each {table}?", "sql": f"SELECT {column} FROM {table}"}
            for column in columns
        ]
        answer: dict[str, Any] = {"meanings": [], "pairs": pairs}
    else:
        (question,), (sql,) = re.findall(r"^Question: (.*)\?", text, re.M), re.findall(r"^SQL: (.*)", text, re.M)
        condition = {"question": f"{question} with an id greater than 1?", "sql": f"{sql} WHERE id > 1"}
        pair = {"operator": "filter", **condition}
        answer = {"pairs": [pair]}
    send(completion(json.dumps(answer), usage=(400, 400)))(handler, request)


def run(server: Server, database: Path, **changes: Any) -> Path:
    settings = explore_settings(
        {
            "database": str(database),
            "walks": 6,
            "max_level": 2,
            "sampler": {"_target_": "tutelage.text2sql.explore.samplers.random_walk.RandomWalk", "size": 3},
            "synthesizer": {
                "_target_": "tutelage.text2sql.explore.synthesizers.api.Api",
                "model": "teacher",
                "base_url": server.url,
                "key_variable": "TEACHER_KEY",
                "price": {"input": 1.0, "output": 1.0},
                "budget_usd": 1.0,
                "replies": str(database.parent / "replies"),
                "parameters": {"max_tokens": 500},
                "response_format": "text",
                "width": 3,
                "structure_share": 0.5,
                "concurrency": 3,
                "requests_per_minute": None,
                "seconds": 5.0,
                "tries": 1,
                **changes,
            },
        }
    )
    return explore(settings, store=Store(database.parent / "store"), say=lambda _: None)


def asked(server: Server) -> list[str]:
    return [request["messages"][0]["content"] for request in server.requests]


def test_an_exploration_ends_with_checked_pairs(server: Server, database: Path) -> None:
    pairs = read_pairs(run(server, database))
    assert {pair.level for pair in pairs} == {1, 2}
    assert ("What is the town of each customer?", "SELECT town FROM customer") in {
        (pair.question, pair.sql) for pair in pairs
    }
    assert {pair.operators for pair in pairs if pair.level == 2} == {("filter",)}


def test_answers_that_cannot_be_used_are_counted_in_the_manifest(server: Server, database: Path) -> None:
    server.script = [send(completion("I would be glad to help!")), teach]
    folder = run(server, database, concurrency=1)
    told = json.loads((folder / "manifest.json").read_text())["synthesizer"]
    # Walks over the same columns share an answer, good or bad.
    assert told["unusable"].keys() == {"semantic: prose"}
    assert told["replies_paid"] == len(server.requests)
    assert told["spent_usd"] > 0
    assert read_pairs(folder)


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (send({"error": {"message": "who are you?"}}, status=401), ConfigError),
        (send({"error": {"message": "slow down"}}, status=429), RunError),
        (send({"error": {"message": "broken"}}, status=500), RunError),
    ],
)
def test_after_trouble_it_goes_on_and_pays_for_nothing_twice(
    server: Server, database: Path, trouble: Any, error: type[Exception]
) -> None:
    server.script = [teach] * 7 + [trouble]
    with pytest.raises(error):
        run(server, database)
    answered = asked(server)[:7]
    server.script, server.requests = [teach], []
    interrupted = read_pairs(run(server, database))
    assert not {*answered} & {*asked(server)}
    server.requests = []
    undisturbed = read_pairs(run(server, database, concurrency=1))
    assert asked(server) == []
    assert [pair.to_json() for pair in undisturbed] == [pair.to_json() for pair in interrupted]


def test_a_spent_budget_stops_it_and_a_larger_one_goes_on(server: Server, database: Path) -> None:
    with pytest.raises(RunError, match="budget_usd"):
        run(server, database, budget_usd=0.006)
    answered = asked(server)
    assert answered
    server.requests = []
    assert read_pairs(run(server, database))
    assert not {*answered} & {*asked(server)}


def test_no_trace_of_the_key(server: Server, database: Path) -> None:
    run(server, database)
    assert server.keys[0] == "Bearer sk-very-secret"
    written = [path for path in database.parent.rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not [path for path in written if b"sk-very-secret" in path.read_bytes()]
