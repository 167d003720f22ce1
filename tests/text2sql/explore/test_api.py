"""The three stages against a scripted model: what is asked, what is taken from the answers, what is counted."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_server import Server, completion, send, serve

from tutelage.core.errors import ConfigError
from tutelage.text2sql.database.catalog import Catalog, Column, ForeignKey, Table
from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.explore.facts.fact import Fact, Subject
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.knowledge import JoinShape, Knowledge, Skeleton
from tutelage.text2sql.explore.pair import Pair, Walk
from tutelage.text2sql.explore.synthesizers.api import Api

CATALOG = Catalog(
    db_id="shop",
    database="shop.sqlite",
    dialect="sqlite",
    tables=(
        Table(
            name="customer",
            columns=(
                Column("id", "INTEGER", "customer", False),
                Column("name", "TEXT", "customer", True),
                Column("town", "TEXT", "customer", True, frequent=("Rome", "Oslo")),
            ),
            primary_key=("id",),
            foreign_keys=(),
            num_rows=3,
            is_view=False,
        ),
        Table(
            name="purchase",
            columns=(
                Column("id", "INTEGER", "purchase", False),
                Column("customer_id", "INTEGER", "purchase", True),
                Column("price", "REAL", "purchase", True),
            ),
            primary_key=("id",),
            foreign_keys=(ForeignKey("purchase", ("customer_id",), "customer", ("id",)),),
            num_rows=9,
            is_view=False,
            comment="what was bought",
        ),
    ),
)
FACTS = Facts(
    [
        Fact(Subject("customer", ("town",)), "meaning", "where the customer lives", "descriptions", 0.9),
        Fact(Subject("purchase", ("price",)), "unit", "euros", "descriptions", 0.9),
    ]
)
KNOWLEDGE = Knowledge(
    joins=(JoinShape(((("customer", "id"), ("purchase", "customer_id")),), 2),),
    skeletons=(
        Skeleton("SELECT _ FROM _ WHERE _ = ?", ("filter",), 7),
        Skeleton("SELECT _ FROM _ ORDER BY _ LIMIT ?", ("order", "limit"), 3),
    ),
)
WALK = Walk(id=4, columns=(("customer", "name"), ("customer", "town")), sampler="random_walk")
PARENT = Pair(
    id="shop/4.1.0",
    db_id="shop",
    level=1,
    question="What are the names of the customers?",
    sql="SELECT name FROM customer",
    operators=(),
    sampler="random_walk",
    parent=None,
    walk=4,
    columns=("customer.name",),
    tables=("customer",),
    state={"meanings": {"customer.name": "what she is called"}},
)
BEGUN = {
    "meanings": [{"column": "customer.town", "meaning": "where somebody lives"}],
    "pairs": [
        {"question": "Which towns are there?", "sql": "SELECT DISTINCT town FROM customer"},
        {"question": "What are the customers called?", "sql": "SELECT name FROM customer"},
    ],
}
ROME = "SELECT name FROM customer WHERE town = 'Rome'"
BUYERS = "SELECT name FROM customer WHERE id IN (SELECT customer_id FROM purchase)"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "TEACHER_KEY"):
        monkeypatch.delenv(name, raising=False)
    with serve() as server:
        yield server


def says(*answers: object, **how: Any) -> list[Any]:
    texts = [answer if isinstance(answer, str) else json.dumps(answer) for answer in answers]
    return [send(completion(text, **how)) for text in texts]


def api(server: Server, folder: Path, **changes: Any) -> Api:
    values: dict[str, Any] = {
        "model": "teacher",
        "base_url": server.url,
        "key_variable": "TEACHER_KEY",
        "price": {"input": 1.0, "output": 2.0},
        "budget_usd": 1.0,
        "replies": str(folder),
        "parameters": {"max_tokens": 100},
        "response_format": "json_schema",
        "width": 2,
        "structure_share": 0.0,
        "concurrency": 2,
        "requests_per_minute": None,
        "seconds": 5.0,
        "tries": 1,
        "catalog": CATALOG,
        "facts": FACTS,
        "knowledge": KNOWLEDGE,
        "execute": lambda sql: Result("ok", ("name",), [("Ann",), ("Bob",)], "", 0.0),
        "seed": 1,
    }
    return Api(**{**values, **changes})


def prompt(server: Server, index: int = -1) -> str:
    (message,) = server.requests[index]["messages"]
    return str(message["content"])


def test_semantic_exploration_begins_at_a_walk(server: Server, tmp_path: Path) -> None:
    server.script = says(BEGUN)
    towns, names = api(server, tmp_path).begin(WALK)
    assert (towns.question, towns.sql) == ("Which towns are there?", "SELECT DISTINCT town FROM customer")
    assert (towns.level, towns.operators) == (1, ())
    assert towns.state == {"meanings": {"customer.town": "where somebody lives"}}
    assert names.sql == "SELECT name FROM customer"
    asked = prompt(server)
    assert "Table customer, 3 rows:" in asked
    assert "- town TEXT: where the customer lives; for example 'Rome', 'Oslo'\n" in asked
    assert "- id INTEGER, primary key\n" in asked
    assert "purchase" not in asked  # not on the walk
    assert "write 2 different questions" in asked


def test_structure_guided_generation_follows_a_mined_shape(server: Server, tmp_path: Path) -> None:
    server.script = says(
        {
            "pairs": [
                {
                    "operator": "filter",
                    "question": "Who lives in Rome?",
                    "sql": "SELECT name FROM customer WHERE town = 'Rome'",
                }
            ]
        }
    )
    (candidate,) = api(server, tmp_path, structure_share=1.0).extend(PARENT, WALK)
    assert (candidate.level, candidate.operators) == (2, ("filter",))
    assert candidate.sql == ROME
    assert candidate.state == PARENT.state
    asked = prompt(server)
    assert '- operator "filter": SELECT _ FROM _ WHERE _ = ?\n' in asked
    assert "ORDER BY _ LIMIT" not in asked  # two steps at once
    assert "- customer.id = purchase.customer_id\n" in asked
    assert "Table purchase (what was bought), 9 rows:" in asked
    assert "- price REAL; in euros\n" in asked
    assert "- name TEXT: what she is called\n" in asked  # as semantic exploration had it


def test_progressive_rewriting_adds_one_operator(server: Server, tmp_path: Path) -> None:
    pairs = [
        {"operator": "order", "question": "Sorted?", "sql": "SELECT name FROM customer ORDER BY name"},
        {
            "operator": "nesting",
            "question": "Buyers?",
            "sql": "SELECT name FROM customer WHERE id IN (SELECT customer_id FROM purchase)",
        },
    ]
    server.script = says({"pairs": pairs})
    order, nesting = api(server, tmp_path).extend(PARENT, WALK)
    assert order.operators == ("order",)
    assert nesting.operators == ("nesting",)  # the WHERE that it stands in is not a step of its own
    asked = prompt(server)
    assert "SQL: SELECT name FROM customer\n" in asked
    assert "('Ann',)\n('Bob',)" in asked
    assert "Rewrite it 2 times." in asked


def test_operators_that_need_others_wait_for_them(server: Server, tmp_path: Path) -> None:
    server.script = says({"pairs": []})
    api(server, tmp_path, width=99).extend(PARENT, WALK)
    first = prompt(server)
    assert all(f'operator "{name}"' in first for name in ("filter", "join", "aggregate", "order", "cte", "window"))
    assert not any(f'operator "{name}"' in first for name in ("group", "having", "limit"))
    grouped = replace(PARENT, operators=("aggregate", "group"), level=3)
    api(server, tmp_path, width=99).extend(grouped, WALK)
    third = prompt(server)
    assert 'operator "having"' in third
    assert not any(f'operator "{name}"' in third for name in ("aggregate", "group", "limit"))


def test_the_same_request_is_asked_once_and_another_walk_asks_anew(server: Server, tmp_path: Path) -> None:
    server.script = says({"pairs": []})
    first = api(server, tmp_path)
    first.extend(PARENT, WALK)
    first.extend(PARENT, WALK)
    api(server, tmp_path).extend(PARENT, WALK)
    assert len(server.requests) == 1
    for walk in range(20, 30):  # other walks draw other operators
        first.extend(PARENT, Walk(id=walk, columns=WALK.columns, sampler="random_walk"))
    assert len(server.requests) > 5


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("I would be glad to help! What would you like to know?", "prose"),
        ("", "empty"),
        (json.dumps(BEGUN)[:60], "half_json"),
        ('{"questions": ["Which towns are there?"]}', "schema"),
        ('{"meanings": {}, "pairs": "none"}', "schema"),
        ("[1, 2, 3]", "prose"),
        ("[" * 100_000, "prose"),
        ('{"a":' * 100_000, "half_json"),
    ],
)
def test_an_answer_that_cannot_be_read_is_counted(server: Server, tmp_path: Path, answer: str, fault: str) -> None:
    server.script = says(answer)
    synthesizer = api(server, tmp_path)
    assert synthesizer.begin(WALK) == []
    assert synthesizer.summary()["unusable"] == {f"semantic: {fault}": 1}


def test_an_answer_that_was_cut_is_called_so(server: Server, tmp_path: Path) -> None:
    server.script = says(json.dumps(BEGUN)[:60], finish_reason="length")
    synthesizer = api(server, tmp_path)
    assert synthesizer.begin(WALK) == []
    assert synthesizer.summary()["unusable"] == {"semantic: cut": 1}


@pytest.mark.parametrize(
    "wrapped",
    ["```json\n{}\n```", "Here you are:\n```\n{}\n```\nAnything else?", "<think>{{ hmm }}</think>\n{}", "Sure: {} :-)"],
)
def test_what_stands_around_an_answer_is_passed_over(server: Server, tmp_path: Path, wrapped: str) -> None:
    before, _, after = wrapped.rpartition("{}")
    server.script = says(before + json.dumps(BEGUN, indent=1) + after)
    assert len(api(server, tmp_path).begin(WALK)) == 2


def test_a_bad_item_does_not_spoil_the_others(server: Server, tmp_path: Path) -> None:
    towns, names = BEGUN["pairs"]
    pairs = [{"question": "No SQL?"}, 7, {"question": 1, "sql": 2}, towns, {**names, "x": 1}]
    server.script = says({"meanings": ["nothing"], "pairs": pairs})
    synthesizer = api(server, tmp_path)
    assert [candidate.sql for candidate in synthesizer.begin(WALK)] == ["SELECT DISTINCT town FROM customer"]
    assert synthesizer.summary()["unusable"] == {"semantic: item of another schema": 5}


def test_a_pair_that_takes_another_step_than_asked_is_counted(server: Server, tmp_path: Path) -> None:
    pairs = [
        {"operator": "order", "question": "Two steps", "sql": "SELECT name FROM customer WHERE id > 1 ORDER BY name"},
        {"operator": "order", "question": "No step", "sql": "SELECT name FROM customer"},
        {"operator": "filter", "question": "Another step", "sql": "SELECT name FROM customer ORDER BY name"},
        {"operator": "order", "question": "The step", "sql": "SELECT name FROM customer ORDER BY name"},
        {"operator": "order", "question": "For the filter to say", "sql": "SELECT name FROM customer ORDER BY ("},
        {"operator": "fly", "question": "No operator", "sql": "SELECT name FROM customer"},
    ]
    server.script = says({"pairs": pairs})
    synthesizer = api(server, tmp_path)
    candidates = synthesizer.extend(PARENT, WALK)
    assert [candidate.question for candidate in candidates] == ["The step", "For the filter to say"]
    assert synthesizer.summary()["unusable"] == {
        "progressive: item of another schema": 1,
        "progressive: not the operators asked for": 3,
    }


def test_begun_pairs_are_plain(server: Server, tmp_path: Path) -> None:
    pairs = [{"question": "How many?", "sql": "SELECT count(*) FROM customer"}, BEGUN["pairs"][1]]
    server.script = says({"meanings": [], "pairs": pairs})
    assert [candidate.sql for candidate in api(server, tmp_path).begin(WALK)] == ["SELECT name FROM customer"]


def test_the_summary_adds_up(server: Server, tmp_path: Path) -> None:
    server.script = says(BEGUN)
    synthesizer = api(server, tmp_path)
    synthesizer.begin(WALK)
    synthesizer.begin(WALK)
    assert synthesizer.summary() == {
        "replies_paid": 1,
        "replies_from_cache": 1,
        "retries": 0,
        "spent_usd": 0.00002,  # 10 tokens in at 1 $/M and 5 out at 2 $/M
        "unusable": {},
    }


@pytest.mark.parametrize("kind", ["json_schema", "json_object", "text"])
def test_the_server_is_asked_for_json_in_its_own_way(server: Server, tmp_path: Path, kind: str) -> None:
    server.script = says(BEGUN)
    api(server, tmp_path, response_format=kind).begin(WALK)
    asked = server.requests[0].get("response_format")
    if kind == "text":
        assert asked is None
        return
    assert asked["type"] == kind
    if kind == "json_schema":
        schema = asked["json_schema"]["schema"]
        assert schema["required"] == ["meanings", "pairs"]
        assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"price": {"input": 1.0}}, "synthesizer.price.output"),
        ({"price": {"input": None, "output": 1.0}}, "synthesizer.price.input"),
        ({"budget_usd": None}, "synthesizer.budget_usd"),
        ({"price": {"input": -1.0, "output": 1.0}}, "synthesizer"),
        ({"width": 0}, "synthesizer.width"),
        ({"tries": 0}, "synthesizer.tries"),
        ({"parameters": {}}, "synthesizer.parameters"),
        ({"base_url": "localhost:8000"}, "synthesizer.base_url"),
    ],
)
def test_values_that_cannot_work(server: Server, tmp_path: Path, changes: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        api(server, tmp_path, **changes)
    assert caught.value.where == where
