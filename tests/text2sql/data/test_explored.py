"""Explored pairs: an honest cut into training and held-out questions."""

from collections import defaultdict

import pytest

from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.data.explored import example_of, split_by_template, template
from tutelage.text2sql.explore.pair import Pair


def explored(number: int, question: str, sql: str, db_id: str = "d") -> Example:
    return Example(str(number), db_id, question, sql, level=1, source="explored")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("SELECT a FROM t WHERE b = 'x'", "select a from t  where b = 'it''s'", True),
        ("SELECT a FROM t LIMIT 3", "SELECT a FROM t LIMIT 10", True),
        ("SELECT a FROM t WHERE b > 1.5", "SELECT a FROM t WHERE b > 2", True),
        ("SELECT a1 FROM t", "SELECT a2 FROM t", False),  # digits in a name are no literal
        ("SELECT a FROM t", "SELECT b FROM t", False),
    ],
)
def test_templates_forget_values_only(one: str, other: str, same: bool) -> None:
    assert (template(one) == template(other)) is same


def test_no_held_out_template_or_question_was_trained_on() -> None:
    examples = [
        explored(n, f"Which of kind {n % 40} has {n}?", f"SELECT a{n % 40} FROM t WHERE b = {n}") for n in range(400)
    ]
    parts = split_by_template(examples, val=0.2, held_out=0.3, seed=0)
    assert sum(map(len, parts.values())) == 400
    place = defaultdict(set)
    for part, found in parts.items():
        for example in found:
            place[template(str(example.sql))].add(part)
    assert len(place) == 40
    assert all(len(where) == 1 for where in place.values())


def test_one_question_in_two_words_of_sql_stays_together() -> None:
    """Templates that share a question share a part, and so do templates linked over several questions."""
    chain = [
        explored(0, "How many a?", "SELECT count(a) FROM t"),
        explored(1, "How many a?", "SELECT count(*) FROM t WHERE a IS NOT NULL"),
        explored(2, "Count the a.", "SELECT count(*) FROM t WHERE a IS NOT NULL"),
        explored(3, "Count the a.", "SELECT sum(1) FROM t WHERE a IS NOT NULL"),
    ]
    for seed in range(30):
        parts = split_by_template(chain, val=0.3, held_out=0.4, seed=seed)  # one group cannot be cut
        assert sorted(len(part) for part in parts.values()) == [0, 0, 4]


def test_the_cut_depends_on_seed_and_templates_only() -> None:
    examples = [explored(n, f"What is {n}th a{n}?", f"SELECT a{n} FROM t") for n in range(300)]
    first = split_by_template(examples, val=0.1, held_out=0.1, seed=1)
    backwards = split_by_template(examples[::-1], val=0.1, held_out=0.1, seed=1)
    assert {p: {e.id for e in es} for p, es in first.items()} == {p: {e.id for e in es} for p, es in backwards.items()}
    more = split_by_template([*examples, explored(999, "new?", "SELECT z FROM z")], val=0.1, held_out=0.1, seed=1)
    assert set(first["held_out"]) <= set(more["held_out"])
    assert first["held_out"] != split_by_template(examples, val=0.1, held_out=0.1, seed=2)["held_out"]


def test_shares_are_about_right_and_databases_apart() -> None:
    examples = [explored(n, f"q{'x' * n}", f"SELECT a{n} FROM t", db) for n in range(500) for db in ("d", "e")]
    parts = split_by_template(examples, val=0.1, held_out=0.2, seed=0)
    assert 60 < len(parts["val"]) < 140
    assert 140 < len(parts["held_out"]) < 260
    held = {db: {e.sql for e in parts["held_out"] if e.db_id == db} for db in ("d", "e")}
    assert held["d"] != held["e"]


def test_few_templates_still_leave_some_to_pick_and_to_score_by() -> None:
    examples = [explored(n, f"q{'x' * n}", f"SELECT a{n} FROM t") for n in range(4)]
    for seed in range(20):
        parts = split_by_template(examples, val=0.05, held_out=0.05, seed=seed)
        assert min(map(len, parts.values())) >= 1


def test_a_pair_becomes_an_example() -> None:
    pair = Pair("w1.0", "d", 3, "Q?", "SELECT 1", ("filter",), "uniform", None, 1, ("t.a",), ("t",), {})
    assert example_of(pair) == Example("d/w1.0", "d", "Q?", "SELECT 1", level=3, source="explored")
