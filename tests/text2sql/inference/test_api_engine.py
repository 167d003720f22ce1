"""Answers by a server on loopback: one that answers, refuses, hangs and talks nonsense."""

import json
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from api_server import Server, completion, hang, send, serve
from asking_run import source_of
from omegaconf import DictConfig

from tutelage.core.errors import ConfigError, RunError
from tutelage.text2sql.api import client
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.database.executor import Executor, Limits
from tutelage.text2sql.inference.answer import Answerer
from tutelage.text2sql.inference.api_engine import ApiEngine, Served, counting_tokenizer
from tutelage.text2sql.inference.asking import ask, parse
from tutelage.text2sql.inference.generate import Decoding, NoAnswer, Request
from tutelage.text2sql.prompts.brief import Brief
from tutelage.text2sql.task import Text2SqlTask, load_run

GREEDY = Decoding("greedy", 1, 1.0, 1.0, 64, 4)
SAMPLED = Decoding("sample", 3, 0.8, 0.9, 64, 4)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(client, "_LONGEST_WAIT", 0.01)  # seconds between two tries
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with serve() as server:
        yield server


def served(server: Server, **changes: Any) -> Served:
    settings: dict[str, Any] = {
        "engine": "api", "kind": "greedy", "candidates": 1, "temperature": 1.0, "top_p": 1.0, "select": "first",
        "repair_rounds": 0, "max_new_tokens": 64, "batch_size": 4, "model": "sql-7b", "base_url": server.url,
        "key_variable": "OPENAI_API_KEY", "parameters": {}, "concurrency": 2, "requests_per_minute": None,
        "seconds": 30.0, "tries": 3, "price": {"input": 0, "output": 0, "budget": 0},
    }  # fmt: skip
    return Served(**{**settings, **changes})


def requests(*texts: str) -> list[Request]:
    return [
        Request(text, [], ({"role": "system", "content": "SQLite"}, {"role": "user", "content": text}))
        for text in texts
    ]


def by_question(answers: dict[str, Any], calls: list[str] | None = None) -> Callable[..., None]:
    """Answer by what the last turn holds: with a text, or as a function of the server's says."""

    def answer(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        asked = request["messages"][-1]["content"]
        found = next(what for key, what in answers.items() if key in asked)
        if calls is not None:
            calls.append(asked)
        (send(completion(found)) if isinstance(found, str) else found)(handler, request)

    return answer


def test_what_is_sent(server: Server, tmp_path: Path) -> None:
    server.script = [send(completion("SELECT 1"))]
    engine = ApiEngine(
        served(server, parameters={"chat_template_kwargs": {"enable_thinking": False}}), folder=tmp_path, seed=1
    )
    assert engine.generate(requests("q"), GREEDY) == [["SELECT 1"]]
    (sent,) = server.requests
    assert sent == {
        "path": "/v1/chat/completions",
        "model": "sql-7b",
        "messages": [{"role": "system", "content": "SQLite"}, {"role": "user", "content": "q"}],
        "temperature": 0.0,
        "max_tokens": 64,
        "chat_template_kwargs": {"enable_thinking": False},
    }


def test_samples_have_seeds_of_their_own(server: Server, tmp_path: Path) -> None:
    server.script = [lambda handler, request: send(completion(str(request["seed"])))(handler, request)]
    inference = served(server, kind="sample", candidates=3, temperature=0.8, top_p=0.9, select="majority")
    found = ApiEngine(inference, folder=tmp_path / "a", seed=1).generate(requests("q", "p"), SAMPLED)
    assert len({*found[0], *found[1]}) == 6
    assert all((sent["temperature"], sent["top_p"]) == (0.8, 0.9) for sent in server.requests)
    # A function of (seed, question, number of the sample), and of nothing else.
    assert ApiEngine(inference, folder=tmp_path / "b", seed=1).generate(requests("p"), SAMPLED) == [found[1]]
    assert ApiEngine(inference, folder=tmp_path / "c", seed=2).generate(requests("p"), SAMPLED) != [found[1]]


def test_one_bad_item_is_named_and_ends_nothing(server: Server, tmp_path: Path) -> None:
    calls: list[str] = []
    answers: dict[str, Any] = {
        "good": "SELECT 1",
        "busy": send({"error": {"message": "slow down"}}, status=429),
        "broken": send({"error": {"message": "out of order"}}, status=500),
        "long": send({"error": {"message": "context is 4096 tokens"}}, status=400),
        "nonsense": send(b"Hello!"),
        "hangs": hang,
    }
    server.script = [by_question(answers, calls)]
    engine = ApiEngine(served(server, seconds=1.0, tries=2), folder=tmp_path, seed=1)
    asked = ["good 1", "busy", "broken", "good 2", "long", "nonsense", "hangs", "good 3"]
    found = {name: texts[0] for name, texts in zip(asked, engine.generate(requests(*asked), GREEDY), strict=True)}
    assert [name for name, text in found.items() if text == "SELECT 1"] == ["good 1", "good 2", "good 3"]
    for name, why in (("busy", "slow down"), ("broken", "out of order"), ("long", "4096 tokens"),
                      ("nonsense", "not a chat completion"), ("hangs", "timed out")):  # fmt: skip
        text = found[name]
        assert isinstance(text, NoAnswer) and text == "" and re.search(why, text.why), text.why
    assert engine.counts["failed"] == 5 and calls.count("busy") == 2 and calls.count("long") == 1

    # What is there is not asked for again, and what is not there is.
    calls.clear()
    server.script = [by_question(dict.fromkeys(answers, "SELECT 2"), calls)]
    again = ApiEngine(served(server), folder=tmp_path, seed=1).generate(requests(*asked), GREEDY)
    assert [texts[0] for texts in again] == ["SELECT 1" if "good" in name else "SELECT 2" for name in asked]
    assert sorted(calls) == sorted(name for name in asked if "good" not in name)


def test_trouble_that_passes_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.script = [send({}, status=429), send(b"{", status=200), send(completion("SELECT 3"))]
    engine = ApiEngine(served(server, concurrency=1), folder=tmp_path, seed=1)
    assert engine.generate(requests("q"), GREEDY) == [["SELECT 3"]]
    assert (engine.counts["retries"], engine.counts["failed"]) == (2, 0)


def test_a_server_that_answers_nothing_ends_the_run(server: Server, tmp_path: Path) -> None:
    many = requests(*(f"q{number}" for number in range(50)))
    server.script = [send({"error": {"message": "down"}}, status=503)]
    with pytest.raises(RunError, match=r"inference\.base_url: .* gave no answer in 1 tries; .*down"):
        ApiEngine(served(server, tries=1), folder=tmp_path, seed=1).generate(many, GREEDY)
    assert len(server.requests) < 10
    server.script = [send({"error": {"message": "who are you?"}}, status=401)]
    with pytest.raises(ConfigError, match=r"inference\.key_variable: \$OPENAI_API_KEY is not set"):
        ApiEngine(served(server), folder=tmp_path, seed=1).generate(many, GREEDY)
    server.script = [send({"error": {"message": "no such model"}}, status=404)]
    with pytest.raises(ConfigError, match=r"inference\.model: .* knows no model sql-7b"):
        ApiEngine(served(server), folder=tmp_path, seed=1).generate(many, GREEDY)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"engine": "vllm"}, "vllm is no server"),
        ({"kind": "beam", "candidates": 2}, "no beam search"),
        ({"tries": 0}, "at least 1"),
        ({"price": {"input": 1}}, r"inference\.price"),
        ({"repair_rounds": -1}, "negative"),
    ],
)
def test_what_no_server_can_do(server: Server, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        served(server, **change)


def test_what_the_client_refuses(server: Server, tmp_path: Path) -> None:
    for change, says in (({"base_url": "localhost"}, "is no address"), ({"parameters": {"n": 3}}, "n cannot be set")):
        with pytest.raises(ConfigError, match=says):
            ApiEngine(served(server, **change), folder=tmp_path, seed=1)


def test_an_unanswered_question_is_neither_run_nor_repaired(server: Server, shop: Path, tmp_path: Path) -> None:
    calls: list[str] = []
    answers = {"How many": "SELECT count(*) FROM item", "no such column": "SELECT max(price) FROM item",
               "most": "SELECT cost FROM item", "fails": send({}, status=500)}  # fmt: skip
    server.script = [by_question(answers, calls)]
    inference = served(server, repair_rounds=1, tries=1)
    engine = ApiEngine(inference, folder=tmp_path, seed=1)
    prompt = Brief(template="chatml", comments=False, samples=0, max_values=2, max_tokens=500)
    examples = [Example(text, "shop", text, None) for text in ("How many?", "What is the most?", "This fails.")]
    with Executor(workers=0, limits=Limits()) as executor:
        answerer = Answerer(source_of(shop), prompt=prompt, inference=inference, executor=executor, store=None)
        first, second, third = answerer.answer(engine, counting_tokenizer(), examples)
    assert (first.sql, second.sql, third.sql) == ("SELECT count(*) FROM item", "SELECT max(price) FROM item", "")
    assert "500" in third.unanswered and not first.unanswered and not second.unanswered
    assert third.record()["candidates"][0]["error"].startswith("no answer: ") and len(third.candidates) == 1
    assert len(calls) == 4  # a repair is a conversation: the question, the query, its error
    assert [turn["role"] for turn in server.requests[-1]["messages"]] == ["system", "user", "assistant", "user"]


def test_tokens_are_counted_rather_too_many() -> None:
    tokenizer = counting_tokenizer()
    text = "CREATE TABLE customers (\n    id INTEGER, -- 12\n);"
    # CREA TE _ TABL E _ cust omer s _ (, newline, the indentation, id _ INTE GER , _ - - _ 1 2, newline, ) ;
    assert len(tokenizer.encode(text, add_special_tokens=False)) == 27
    assert len(tokenizer.encode("<|im_start|>", add_special_tokens=False)) == 1


# ---- the programs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def questions(shop: Path, tmp_path: Path) -> list[str]:
    golds = [
        ("How many?", "SELECT count(*) FROM item"),
        ("The most?", "SELECT max(price) FROM item"),
        ("Odd?", "SELECT 1"),
    ]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps({"question": q, "sql": s}) + "\n" for q, s in golds))
    return ["task=text2sql", "data=own", f"data.database={shop}", f"data.test={path}", "trainer=cpu"]


def api(server: Server) -> list[str]:
    return ["inference=api", f"inference.base_url={server.url}", "inference.model=sql-7b", "inference.tries=1"]


def test_a_served_model_is_scored(
    server: Server, questions: list[str], compose_config: Callable[..., DictConfig], tmp_path: Path, capsys: Any
) -> None:
    server.script = [by_question({"many": "```sql\nSELECT count(*) FROM item\n```", "most": "SELECT 1",
                                  "Odd": send({}, status=500)})]  # fmt: skip
    cfg = compose_config(*questions, "prompt=ddl", *api(server), f"out={tmp_path / 'scores'}", primary="evaluate")
    with pytest.warns(UserWarning, match="1 of 3 questions have no answer and count as wrong"):
        metrics = Text2SqlTask.score(cfg, folder=tmp_path / "unused")
    assert metrics["test/ex"] == pytest.approx(100 / 3) and metrics["test/ex_unanswered"] == 1
    assert "CREATE TABLE item" in server.requests[0]["messages"][1]["content"]
    manifest = json.loads((tmp_path / "scores" / "manifest.json").read_text())
    assert manifest["model"] == f"sql-7b at {server.url}"
    assert "sql-7b on Own, untrained" in capsys.readouterr().out
    # Once more: only what is missing is asked for.
    asked = len(server.requests)
    server.script = [send(completion("SELECT 1"))]
    assert Text2SqlTask.score(cfg, folder=tmp_path / "unused")["test/ex"] == pytest.approx(200 / 3)
    assert len(server.requests) == asked + 1


def test_training_with_a_server_is_refused(
    server: Server, questions: list[str], compose_config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    task = Text2SqlTask(cfg=compose_config(*questions, *api(server)), folder=tmp_path, out=tmp_path)
    with pytest.raises(ConfigError, match="api asks a server, which does not have what is trained here"):
        task.check()


def test_a_database_is_asked_without_a_run(server: Server, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.script = [send(completion("<think>\n\n</think>\n```sql\nSELECT max(price) FROM item\n```"))]
    ask(parse([f"database={shop}", *api(server), "format=json", "What is the most?"]), load_run)
    found = json.loads(capsys.readouterr().out)
    assert (found["sql"], found["rows"]) == ("SELECT max(price) FROM item", [[9]])
    server.script = [send({"error": {"message": "out of order"}}, status=500)]
    with pytest.raises(RunError, match="out of order"):
        ask(parse([f"database={shop}", *api(server), "What is the least?"]), load_run)
    for arguments, says in (
        (["What?"], "run: not given"),
        (["inference=api", "What?"], "database: not given"),
        ([f"database={shop}", "inference=api", "What?"], r"inference\.model|inference\.base_url|Missing mandatory"),
        ([f"database={shop}", "inference=apis", "What?"], "run: not given"),
    ):
        with pytest.raises(ConfigError, match=says):
            ask(parse(arguments), load_run)
