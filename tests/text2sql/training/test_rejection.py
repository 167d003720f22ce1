"""Rejection sampling: a model's own right answers are kept, different ones, and a kill costs little."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tutelage.core.errors import ConfigError
from tutelage.core.store import Store
from tutelage.text2sql.data.corpus import Corpus
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.data.methods import Rejection
from tutelage.text2sql.data.own import Own
from tutelage.text2sql.training.rejection import SAMPLES, OwnAnswers, Sampler, sampled, spelling, with_own_answers

COUNT = "SELECT count(*) FROM item"


@pytest.fixture
def source(tmp_path: Path) -> Own:
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE item (name TEXT, price INTEGER)")
        connection.executemany("INSERT INTO item VALUES (?, ?)", [(f"item {i}", i) for i in range(9)])
    return Own(database=str(path), store=str(tmp_path / "store"))


def questions(count: int) -> list[Example]:
    return [Example(f"q{number}", "shop", f"How many items, {number}?", COUNT) for number in range(count)]


def test_right_answers_are_kept_and_a_kill_costs_one_part(source: Own, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def sampler(*, fail_at: int) -> Sampler:
        def ask(part: Sequence[Example]) -> list[list[str]]:
            if len(asked) == fail_at:
                raise KeyboardInterrupt
            asked.append([example.id for example in part])
            sum_ = "```sql\nSELECT sum(1) FROM item\n```"
            return [[f"```sql\n{COUNT}\n```", sum_, sum_.lower(), "SELECT 9", "nothing"] for _ in part]

        return ask

    store = Store(tmp_path / "store")
    run = {"store": store, "key": {"k": 1}, "questions": questions(70), "source": source, "workers": 1}
    with pytest.raises(KeyboardInterrupt):
        sampled(sampler=lambda: sampler(fail_at=1), **run)
    (file,) = (tmp_path / "store/rejection_samples").rglob(SAMPLES)
    assert len(file.read_text().splitlines()) == 32
    with file.open("a") as half:
        half.write('{"id": "q32", "ans')  # what a kill leaves
    found = sampled(sampler=lambda: sampler(fail_at=9), **run)
    assert [len(part) for part in asked] == [32, 32, 6] and asked[1][0] == "q32"
    assert len(found) == 70
    own = found["q69"]
    assert own.right == (COUNT, "SELECT sum(1) FROM item")
    assert own.outcomes == {"right": 3, "reads_nothing": 1, "no_query": 1}

    def never() -> Sampler:
        raise AssertionError("the model is loaded although all is there")

    assert sampled(sampler=never, **run) == found


def test_what_is_trained_on() -> None:
    first, second, third = questions(3)
    corpus = Corpus(stages=[[first, second], [third]], val=[], test=[], held_out=[], notes={"seeds": 3})
    other = ("SELECT sum(1) FROM item", "SELECT total(1) FROM item", "SELECT max(rowid) FROM item")
    found = {
        "q0": OwnAnswers((COUNT.lower() + " ;", *other), {"right": 4}),
        "q1": OwnAnswers((), {"wrong": 4}),  # q2 was too long to be asked
    }
    both = with_own_answers(corpus, Rejection(keep=2), found)
    assert [(e.id, e.sql) for e in both.stages[0]] == [
        ("q0", COUNT),
        ("q0#1", other[0]),
        ("q0#2", other[1]),
        ("q1", COUNT),
    ]
    assert [e.id for e in both.stages[1]] == ["q2"]
    assert both.notes["rejection"] == {
        "questions": 3,
        "with_right_answers": 1,
        "own_answers": 2,
        "not_asked": 1,
        "outcomes": {"right": 4, "wrong": 4},
    }
    alone = with_own_answers(corpus, Rejection(keep=2, keep_gold=False), found)
    assert [[e.sql for e in stage] for stage in alone.stages] == [[COUNT.lower() + " ;", other[0]]]
    with pytest.warns(UserWarning, match="this run trains on the golds alone"):
        assert with_own_answers(corpus, Rejection(), {}).stages == corpus.stages
    with pytest.raises(ConfigError, match="no sampled answer is right"):
        with_own_answers(corpus, Rejection(keep_gold=False), {})


def test_settings_and_spelling() -> None:
    assert spelling("SELECT  a\nFROM t;") == spelling("select a from T")
    for bad in ({"rounds": 0}, {"samples": 0}, {"keep": 0}, {"temperature": 0.0}, {"top_p": 1.5}):
        with pytest.raises(ConfigError, match=r"method\."):
            Rejection(**bad)  # type: ignore[arg-type]


def test_samples_are_lines_of_json(tmp_path: Path, source: Own) -> None:
    sampled(
        Store(tmp_path / "store"),
        {"k": 2},
        questions(1),
        sampler=lambda: lambda part: [[f"SELECT 'é' -- {example.id}"] for example in part],
        source=source,
        workers=1,
    )
    (file,) = (tmp_path / "store/rejection_samples").rglob(SAMPLES)
    assert json.loads(file.read_text()) == {"id": "q0", "answers": ["SELECT 'é' -- q0"]}
