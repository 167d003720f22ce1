"""``synthesizer=model``: what a model is asked, what is taken from it, what is verified, and what breaks half-way."""

import json
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from api_server import Server, completion, send, serve

from tutelage.core.errors import ConfigError, RunError
from tutelage.core.store import Store
from tutelage.text2sql.api.journal import Reply
from tutelage.text2sql.explore.config import explore_settings
from tutelage.text2sql.explore.door import Ask, Sampling
from tutelage.text2sql.explore.pair import read_pairs
from tutelage.text2sql.explore.pipeline import explore
from tutelage.text2sql.explore.synthesizers import api_answer
from tutelage.text2sql.inference.local_door import LocalDoor
from tutelage.text2sql.model.language_model import Pretrained
from tutelage.text2sql.model.tiny import Tiny

PLACES = [(n, f"Place {n}", "Rome" if n % 3 else "Oslo", 10 * n + n % 7) for n in range(1, 31)]
SHOP = "CREATE TABLE place (place_id INTEGER PRIMARY KEY, name TEXT, town TEXT, seats INTEGER);" + "".join(
    f"INSERT INTO place VALUES {row};" for row in PLACES
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serve() as server:
        yield server


class Mind:
    """A scripted model: it knows the SQL of each question that it was asked to say, and answers as ``answer`` says."""

    def __init__(self, answer: Callable[[str, int], str]) -> None:
        self.answer, self.sql_of, self.stages = answer, dict[str, str](), list[str]()
        self.asked: dict[str, int] = {}

    def __call__(self, handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        text = request["messages"][-1]["content"]
        if "In stiff words" in text:
            self.stages.append("speak")
            sql = re.findall(r"^Query: (.*)", text, re.M)[-1]
            said = re.findall(r"^In stiff words: (.*)", text, re.M)[-1].removesuffix("?") + ", please?"
            self.sql_of[said] = sql
            reply = f'Question: "{said}"'
        elif text.rstrip().endswith("SQL: SELECT …;"):
            self.stages.append("own")
            reply = (
                "Question: How many places are in Rome?\nSQL: SELECT COUNT(*) FROM place WHERE town = 'Rome';\n"
                "Question: Where?\nSQL: nothing"
            )
            self.sql_of["How many places are in Rome?"] = "SELECT COUNT(*) FROM place WHERE town = 'Rome'"
        else:
            self.stages.append("answer")
            question = re.findall(r"^Question: (.*)", text, re.M)[-1]
            number = self.asked[question] = self.asked.get(question, -1) + 1
            reply = f"```sql\n{self.answer(self.sql_of[question], number)}\n```"
        send(completion(reply))(handler, request)


def settings_of(server: Server, folder: Path, *, budget_usd: float = 10.0) -> dict[str, Any]:
    return {
        "model": "teacher",
        "base_url": server.url,
        "key_variable": "NONE",
        "price": {"input": 1.0, "output": 1.0},
        "budget_usd": budget_usd,
        "replies": str(folder / "replies"),
        "parameters": {"max_tokens": 100},
        "concurrency": 1,
        "requests_per_minute": None,
        "seconds": 5.0,
        "tries": 1,
    }


def run(server: Server, folder: Path, make_database: Callable[[Path, str], Path], **changes: Any) -> Path:
    database = folder / "shop.sqlite"
    if not database.exists():
        make_database(database, SHOP)
    synthesizer = {
        "_target_": "tutelage.text2sql.explore.synthesizers.model.Model",
        "door": None,
        "server": settings_of(server, folder),
        "prompt": {
            "_target_": "tutelage.text2sql.prompts.ddl.Ddl",
            "template": "chatml",
            "comments": True,
            "samples": 2,
            "max_values": 6,
            "max_tokens": 4096,
        },
        "width": 1,
        "own": 1,
        "fact_walks": 1,
        "samples": 3,
        "temperature": 0.8,
        "max_new_tokens": 100,
        **changes.pop("synthesizer", {}),
    }
    settings = explore_settings(
        {
            "database": str(database),
            "walks": 4,
            "max_level": 3,
            "sampler": {"_target_": "tutelage.text2sql.explore.samplers.random_walk.RandomWalk", "size": 3},
            "synthesizer": synthesizer,
            "verify": {"copies": 3, "agree": 2},
            "limits": {"workers": 0},
            **changes,
        }
    )
    return explore(settings, store=Store(folder / "store"), out=folder / "out", say=lambda text: None)


def test_a_pair_stays_in_a_models_words_if_answers_to_its_question_agree(
    server: Server, tmp_path: Path, make_database: Callable[[Path, str], Path]
) -> None:
    mind = Mind(lambda sql, number: sql if number < 2 else "SELECT 1 FROM place")
    server.script = [mind]
    pairs = read_pairs(run(server, tmp_path, make_database))
    assert {pair.solved for pair in pairs} == {round(2 / 3, 4)}
    own = [pair for pair in pairs if pair.state == {"by": "model"}]
    assert [(pair.question, pair.level, pair.operators) for pair in own] == [
        ("How many places are in Rome?", 3, ("filter", "aggregate"))
    ]
    others = [pair for pair in pairs if pair not in own]
    assert len(others) >= 3 and all(pair.question.endswith(", please?") for pair in others)
    assert {pair.level for pair in pairs} == {1, 2, 3}
    assert (mind.stages[0], mind.stages[1]) == ("own", "own")  # the facts' free query first
    # The answers' prompt is the training prompt: schema, question, and no SQL of the pair.
    (asked,) = {
        str(request["messages"][-1]["content"])
        for request in server.requests
        if "Question: How many places are in Rome?\nAnswer with" in request["messages"][-1]["content"]
    }
    assert asked.startswith("CREATE TABLE place (") and "COUNT" not in asked and "place.town: 'Rome'" in asked
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["synthesizer"]["replies_paid"] == len(server.requests)


def test_a_reply_without_a_question_and_answers_that_disagree_are_counted(
    server: Server, tmp_path: Path, make_database: Callable[[Path, str], Path]
) -> None:
    def mind(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        text = request["messages"][-1]["content"]
        asks_to_speak = "In stiff words" in text
        silent = asks_to_speak and "seats" in text
        reply = "" if silent else "Which places are there, please?" if asks_to_speak else "SELECT 1 FROM place"
        send(completion(reply))(handler, request)

    server.script = [mind]
    folder = run(server, tmp_path, make_database, synthesizer={"own": 0})
    assert read_pairs(folder) == []
    reasons = json.loads((folder / "manifest.json").read_text())["counts"]["rejected_by_reason"]
    assert reasons["no_question"] >= 1 and reasons["disagreed"] >= 1


def test_a_model_that_never_agrees_is_said_with_reasons_after_a_hundred(
    server: Server,
    tmp_path: Path,
    make_database: Callable[[Path, str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tutelage.text2sql.explore.pipeline._HOPELESS", 5)
    server.script = [Mind(lambda sql, number: "SELECT 1 FROM place")]
    with pytest.raises(RunError, match=r"candidates not one is agreed with \(\d+ disagreed\); the last: .*please"):
        run(server, tmp_path, make_database, walks=64)


def test_a_budget_that_ends_in_the_middle_loses_nothing_that_was_paid_for(
    server: Server, tmp_path: Path, make_database: Callable[[Path, str], Path]
) -> None:
    whole = tmp_path / "whole"
    server.script = [Mind(lambda sql, number: sql)]
    expected = (run(server, whole, make_database) / "pairs.jsonl").read_bytes()
    num_requests = len(server.requests)
    ledger = (whole / "replies" / "ledger.jsonl").read_text().splitlines()
    most = max(json.loads(line).get("most_usd", 0.0) for line in ledger)
    small = tmp_path / "small"
    server.script = [Mind(lambda sql, number: sql)]
    server.requests.clear()
    with pytest.raises(RunError, match="budget_usd"):
        run(server, small, make_database, synthesizer={"server": settings_of(server, small, budget_usd=most * 1.5)})
    paid = len(server.requests)
    assert 0 < paid < num_requests and (small / "out" / "pairs.jsonl").exists()
    inputs = json.loads((small / "out" / "inputs.json").read_text())
    inputs["synthesizer"]["server"]["budget_usd"] = 10.0  # what a user does: raises it
    (small / "out" / "inputs.json").write_text(json.dumps(inputs))
    run(server, small, make_database, synthesizer={"server": settings_of(server, small)})
    assert len(server.requests) == num_requests
    assert (small / "out" / "pairs.jsonl").read_bytes() == expected


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Which towns have a shop?", "Which towns have a shop?"),
        ('Question: "which towns have a shop?"\nSQL: SELECT 1', "Which towns have a shop?"),
        ("SELECT name FROM shop WHERE town = 'Rome'", None),
        ("What is the shop_name of each shop?", None),
        ("Which shops are in 'a_b' today?", "Which shops are in 'a_b' today?"),
        ("", None),
        ("Yes.", None),
    ],
)
def test_a_question_is_read_out_of_a_reply(text: str, question: str | None) -> None:
    assert api_answer.read_question(Reply(text, "stop", 1, 1)) == question
    assert api_answer.read_question(Reply(text, "length", 1, 1)) is None


def test_pairs_are_read_out_of_a_reply() -> None:
    text = (
        "1. **Question:** How many?\n**SQL:** SELECT COUNT(*) FROM t;\n\nQuestion: Who?\n```sql\nSELECT a\nFROM t\n```"
    )
    found = [(pair.question, pair.sql) for pair in api_answer.read_pairs(Reply(text, "stop", 1, 1))]
    assert found == [("How many?", "SELECT COUNT(*) FROM t"), ("Who?", "SELECT a\nFROM t")]
    assert len(api_answer.read_pairs(Reply(text, "length", 1, 1))) == 1  # the last may be cut off


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    folder = tmp_path_factory.mktemp("tiny")
    texts = ["CREATE TABLE place (id INTEGER, name TEXT) Question: how many? SELECT COUNT(*) FROM place"] * 3
    made = Tiny(vocabulary=400, hidden_size=32, layers=2, heads=2, context=512)
    return Pretrained(str(made.folder(Store(folder), texts=texts, seed=1)))


def door(tiny: Pretrained | None, folder: Path, **changes: Any) -> LocalDoor:
    values: dict[str, Any] = {"template": "chatml", "batch_size": 4, "top_p": 0.95, "max_replies": None}
    return LocalDoor(model=tiny, replies=str(folder), **{**values, **changes})


def asks(*questions: str) -> list[Ask]:
    schema = "CREATE TABLE place (id INTEGER, name TEXT, town TEXT, seats INTEGER); " * 3
    return [Ask(question, ({"role": "user", "content": f"{schema}{question}"},)) for question in questions]


def test_a_model_at_hand_answers_the_same_whatever_it_is_asked_with_and_no_question_twice(
    tiny: Pretrained, tmp_path: Path
) -> None:
    sampling = Sampling(2, 0.8, 6)
    alone = [
        door(tiny, tmp_path / str(number)).ask([ask], stage="answer", sampling=sampling)[0]
        for number, ask in enumerate(asks("how many?", "who?", "where is it?"))
    ]
    whole = door(tiny, tmp_path / "whole")
    together = whole.ask(asks("how many?", "who?", "where is it?"), stage="answer", sampling=sampling)
    assert together == alone
    assert len({reply.text for of_one in together for reply in of_one}) > 1
    other = whole.ask(asks("and now?"), stage="speak", sampling=Sampling(1, 0.0, 6))  # goes on from what is kept
    assert other == door(tiny, tmp_path / "other").ask(asks("and now?"), stage="speak", sampling=Sampling(1, 0.0, 6))
    again = door(tiny, tmp_path / "whole")
    assert again.ask(asks("who?", "how many?"), stage="answer", sampling=sampling) == [alone[1], alone[0]]
    assert again.summary() == {"replies_written": 0, "replies_from_cache": 4, "tokens_written": 0}
    assert whole.summary()["replies_written"] == 7


def test_a_budget_of_replies_ends_a_run_and_keeps_what_was_written(tiny: Pretrained, tmp_path: Path) -> None:
    sampling = Sampling(2, 0.8, 4)
    limited = door(tiny, tmp_path, max_replies=4)
    limited.ask(asks("how many?", "who?"), stage="answer", sampling=sampling)
    with pytest.raises(RunError, match="4 replies are written"):
        limited.ask(asks("how many?", "where?"), stage="answer", sampling=sampling)
    more = door(tiny, tmp_path)
    more.ask(asks("how many?", "where?"), stage="answer", sampling=sampling)
    assert more.summary() == {"replies_written": 2, "replies_from_cache": 2, "tokens_written": pytest.approx(8, abs=8)}


@pytest.mark.parametrize("model", [None, Tiny(vocabulary=400, hidden_size=32, layers=1, heads=1, context=64)])
def test_random_weights_do_not_explore(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model=qwen2_5_coder_0_5b"):
        door(model, tmp_path)


def test_the_command_line_names_the_model_as_training_does(compose_config: Callable[..., Any]) -> None:
    from tutelage.text2sql.explore import config

    rest = config.register(["synthesizer=model", "model=qwen2_5_coder_0_5b", "model.path=/somewhere", "walks=3"])
    assert rest == ["synthesizer=model", "walks=3"]
    try:
        settings = explore_settings(compose_config(*rest, primary="explore"))
    finally:
        config.register()
    assert settings.synthesizer["door"]["model"]["path"] == "/somewhere"
    assert settings.synthesizer["prompt"]["_target_"].endswith("ddl.Ddl")
    trained = compose_config("task=text2sql", "model=qwen2_5_coder_0_5b", "synthesizer@explore.synthesizer=model")
    assert trained.explore.synthesizer.door.model.path == "Qwen/Qwen2.5-Coder-0.5B-Instruct"
    assert trained.explore.synthesizer.prompt.template == "chatml"
