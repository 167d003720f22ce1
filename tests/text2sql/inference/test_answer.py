"""From question to query, with an engine that says what it is told to."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.store import Store
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.data.questions import Questions
from tutelage.text2sql.database.executor import Executor, Limits
from tutelage.text2sql.inference.answer import Answerer, Inference, write_predictions
from tutelage.text2sql.inference.generate import Decoding, Request
from tutelage.text2sql.model.tiny import train_tokenizer
from tutelage.text2sql.prompts.brief import Brief

GREEDY = Inference("transformers", "greedy", 1, 1.0, 1.0, "first", 0, max_new_tokens=20, batch_size=4)
QUESTIONS = [
    Example("q/0", "shop", "How many items are there?", "SELECT count(*) FROM item"),
    Example("q/1", "shop", "What does the Lamp cost?", None),
]


class Scripted:
    """Gives prepared answers by request, and remembers what was asked."""

    def __init__(self, answers: dict[str, list[str]]) -> None:
        self.answers = answers
        self.asked: list[tuple[Request, Decoding]] = []

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[list[str]]:
        self.asked += [(request, decoding) for request in requests]
        return [self.answers[request.id] for request in requests]


@pytest.fixture
def source(tmp_path: Path) -> Questions:
    path = tmp_path / "shop.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE item (name TEXT, price INTEGER)")
        connection.executemany("INSERT INTO item VALUES (?, ?)", [("Lamp", 5), ("Chair", 9)])
    connection.close()
    splits = {"train": [], "val": [], "test": QUESTIONS}
    return Questions(name="own", splits=splits, databases={"shop": path}, notes={}, fingerprint="")


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor(workers=0, limits=Limits()) as made:
        yield made


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(["SELECT count(*) FROM item WHERE name = 'Lamp'"], vocabulary=400)


def answerer(source: Questions, executor: Executor, inference: Inference, *, max_tokens: int = 2000) -> Answerer:
    prompt = Brief(template="chatml", comments=False, samples=0, max_values=2, max_tokens=max_tokens)
    return Answerer(source, prompt=prompt, inference=inference, executor=executor, store=None)


def variant(**changes: object) -> Inference:
    return replace(GREEDY, **changes)


def test_greedy_answers_are_not_run(source, executor, tokenizer) -> None:
    engine = Scripted({"q/0": ["```sql\nSELECT 1\n```"], "q/1": ["no idea"]})
    first, second = answerer(source, executor, GREEDY).answer(engine, tokenizer, QUESTIONS)
    assert (first.id, first.db_id, first.sql, first.chosen) == ("q/0", "shop", "SELECT 1", 0)
    assert first.candidates[0].status is None
    assert second.sql == ""
    prompt = tokenizer.decode(engine.asked[1][0].prompt_ids)
    assert "item(name, price)" in prompt
    assert "item.name: 'Lamp'" in prompt  # the value that the question speaks of
    assert prompt.endswith("<|im_start|>assistant\n")


def test_the_first_that_runs(source, executor, tokenizer) -> None:
    texts = ["SELECT cost FROM item", "SELECT price FROM item", "SELECT 1"]
    engine = Scripted({"q/1": texts})
    inference = variant(kind="beam", candidates=3, select="first_that_runs")
    (answer,) = answerer(source, executor, inference).answer(engine, tokenizer, QUESTIONS[1:])
    assert (answer.sql, answer.chosen) == ("SELECT price FROM item", 1)
    assert [c.status for c in answer.candidates] == ["error", "ok", "ok"]
    assert answer.candidates[0].error == "no such column: cost"


def test_majority_keeps_candidates_and_votes(source, executor, tokenizer, tmp_path: Path) -> None:
    texts = ["SELECT 2", "SELECT price FROM item WHERE name = 'Lamp'", "I do not know", "SELECT 5", "SELECT 2 + 3"]
    engine = Scripted({"q/1": texts})
    inference = variant(kind="sample", candidates=5, select="majority")
    answers = answerer(source, executor, inference).answer(engine, tokenizer, QUESTIONS[1:])
    assert answers[0].sql == "SELECT price FROM item WHERE name = 'Lamp'"
    assert [c.votes for c in answers[0].candidates] == [1, 3, 0, 3, 3]
    write_predictions(tmp_path / "predictions.jsonl", answers)
    (line,) = (tmp_path / "predictions.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert (record["id"], record["question"], record["chosen"]) == ("q/1", "What does the Lamp cost?", 1)
    assert record["candidates"][2] == {
        "text": "I do not know",
        "sql": "",
        "status": "error",
        "error": "the answer holds no query",
        "votes": 0,
        "round": 0,
    }


def test_what_fails_goes_back_with_its_error(source, executor, tokenizer) -> None:
    engine = Scripted(
        {
            "q/0": ["SELECT count(*) FROM item"],
            "q/1": ["SELECT cost FROM item"],
            "q/1#1": ["SELECT price FROM items"],
            "q/1#2": ["SELECT price FROM item"],
        }
    )
    answers = answerer(source, executor, variant(repair_rounds=3)).answer(engine, tokenizer, QUESTIONS)
    assert [answer.sql for answer in answers] == ["SELECT count(*) FROM item", "SELECT price FROM item"]
    assert [(c.round, c.status) for c in answers[1].candidates] == [(0, "error"), (1, "error"), (2, "ok")]
    assert [request.id for request, _ in engine.asked] == ["q/0", "q/1", "q/1#1", "q/1#2"]  # no third round
    repair = tokenizer.decode(engine.asked[2][0].prompt_ids)
    assert "<|im_start|>assistant\nSELECT cost FROM item<|im_end|>" in repair
    assert "This query fails: no such column: cost" in repair
    # The second repair starts from the first repair's error.
    assert "no such table: items" in tokenizer.decode(engine.asked[3][0].prompt_ids)


def test_a_repair_that_the_model_cannot_read_is_not_asked_for(source, executor, tokenizer) -> None:
    asking = answerer(source, executor, variant(repair_rounds=2))
    long = "SELECT cost FROM item -- " + "and so on " * 200
    engine = Scripted({"q/0": [long], "q/1": ["SELECT cost FROM item"], "q/1#1": ["SELECT price FROM item"]})
    prompts = [len(asking.encode(tokenizer, question).prompt_ids) for question in QUESTIONS]
    with pytest.warns(UserWarning, match="queries that fail and are not repaired: 1"):
        first, second = asking.answer(engine, tokenizer, QUESTIONS, context=max(prompts) + 200)
    assert (first.sql, len(first.candidates)) == (long.partition(" --")[0], 1) or first.sql == long.strip()
    assert second.sql == "SELECT price FROM item"
    assert [request.id for request, _ in engine.asked] == ["q/0", "q/1", "q/1#1"]


def test_a_repair_without_a_query_does_not_replace_one(source, executor, tokenizer) -> None:
    engine = Scripted({"q/1": ["SELECT cost FROM item"], "q/1#1": ["sorry"]})
    (answer,) = answerer(source, executor, variant(repair_rounds=1)).answer(engine, tokenizer, QUESTIONS[1:])
    assert answer.sql == "SELECT cost FROM item"
    assert len(answer.candidates) == 2


def test_nothing_is_written(source, executor, tokenizer) -> None:
    engine = Scripted({"q/1": ["DELETE FROM item", "SELECT price FROM item"]})
    inference = variant(kind="beam", candidates=2, select="first_that_runs")
    (answer,) = answerer(source, executor, inference).answer(engine, tokenizer, QUESTIONS[1:])
    # A statement that writes is no query: the reader finds none in it.
    assert (answer.candidates[0].status, answer.sql) == ("error", "SELECT price FROM item")
    engine = Scripted({"q/1": ["```sql\nDELETE FROM item\n```", "```sql\nSELECT price FROM item\n```"]})
    (answer,) = answerer(source, executor, inference).answer(engine, tokenizer, QUESTIONS[1:])
    assert (answer.candidates[0].status, answer.chosen) == ("refused", 1)
    assert executor.run(source.databases["shop"], "SELECT count(*) FROM item").rows == [(2,)]


def test_checks_before_the_long_part(source, executor, tokenizer) -> None:
    made = answerer(source, executor, GREEDY)
    encoded = made.check(tokenizer, QUESTIONS, context=2000)
    assert len(encoded) == 2
    longest = max(len(e.prompt_ids) for e in encoded)
    made.check(tokenizer, QUESTIONS, context=longest + 20)
    with pytest.raises(DataError, match=rf"1 prompts have more than {longest - 1} tokens .* has {longest}"):
        made.check(tokenizer, QUESTIONS, context=longest + 19)
    with pytest.raises(DataError, match="2 prompts have more than 10 tokens"):
        answerer(source, executor, GREEDY, max_tokens=10).check(tokenizer, QUESTIONS, context=None)
    with pytest.raises(DataError, match="no database lost"):
        made.check(tokenizer, [Example("x", "lost", "?", None)], context=None)
    source.databases["shop"].unlink()
    with pytest.raises(DataError, match="data: no file"):
        made.check(tokenizer, QUESTIONS, context=None)


def test_what_the_schema_filter_left_out_is_reported(source, executor, tokenizer) -> None:
    longest = max(
        len(e.prompt_ids) for e in answerer(source, executor, GREEDY).check(tokenizer, QUESTIONS, context=None)
    )
    tight = answerer(source, executor, GREEDY, max_tokens=longest - 1)
    with pytest.warns(UserWarning, match=rf"1 of 2 prompts exceed prompt\.max_tokens={longest - 1}: 1 columns"):
        tight.check(tokenizer, QUESTIONS, context=None)
    (answer,) = tight.answer(Scripted({"q/1": ["SELECT 1"]}), tokenizer, QUESTIONS[1:])
    assert answer.dropped == ("item.price",)


def test_values_come_from_the_store(source, executor, tokenizer, tmp_path: Path) -> None:
    prompt = Brief(template="chatml", comments=False, samples=0, max_values=2, max_tokens=2000)
    store = Store(tmp_path / "store")
    made = Answerer(source, prompt=prompt, inference=GREEDY, executor=executor, store=store)
    made.encode(tokenizer, QUESTIONS[1])
    assert list((tmp_path / "store" / "values").glob("*/manifest.json"))


def test_inference_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"inference\.repair_rounds"):
        variant(repair_rounds=-1)
    with pytest.raises(ConfigError, match=r"inference\.candidates"):
        variant(candidates=4)
    assert variant(kind="sample", candidates=8, select="majority", repair_rounds=2).greedy() == GREEDY
