"""Exact match, official and strict, on pairs whose outcome follows from the definition."""

import pytest

from tutelage.text2sql.evaluation.exact_match import exact_match, key_map
from tutelage.text2sql.evaluation.exact_match_strict import exact_match_strict
from tutelage.text2sql.evaluation.spider_form import spider_form
from tutelage.text2sql.evaluation.spider_sql import Schema, parse

SCHEMA = Schema({"shop": ["id", "name", "city"], "sale": ["id", "shop_id", "amount", "value"]})
KEYS = {"sale.shop_id": "shop.id", "shop.id": "shop.id"}

# prediction, gold, official, strict
PAIRS = [
    ("SELECT name , id FROM shop", "SELECT id , name FROM shop", 1, 1),
    ("SELECT DISTINCT name FROM shop", "SELECT name FROM shop", 1, 1),
    ("SELECT name FROM shop WHERE id = 1 AND city = 'x'", "SELECT name FROM shop WHERE city = 'y' AND id = 2", 1, 1),
    ("SELECT name FROM shop WHERE id = 1 OR city = 'x'", "SELECT name FROM shop WHERE city = 'y' AND id = 2", 0, 0),
    ("SELECT name FROM shop WHERE id > 1", "SELECT name FROM shop WHERE id < 1", 0, 0),
    ("SELECT name FROM shop LIMIT 3", "SELECT name FROM shop LIMIT 1", 1, 1),
    ("SELECT name FROM shop ORDER BY id DESC", "SELECT name FROM shop ORDER BY id", 0, 0),
    # foreign keys
    (
        "SELECT T2.shop_id FROM shop AS T1 JOIN sale AS T2 ON T1.id = T2.shop_id",
        "SELECT T1.id FROM shop AS T1 JOIN sale AS T2 ON T2.id = T2.shop_id",
        1,
        1,
    ),
    ("SELECT shop_id FROM sale", "SELECT id FROM shop", 0, 0),  # one column, other tables
    # subqueries: officially DISTINCT counts in WHERE, and values count in FROM
    (
        "SELECT name FROM shop WHERE id IN (SELECT DISTINCT shop_id FROM sale)",
        "SELECT name FROM shop WHERE id IN (SELECT shop_id FROM sale)",
        0,
        1,
    ),
    (
        "SELECT count(*) FROM (SELECT name FROM shop WHERE id = 1)",
        "SELECT count(*) FROM (SELECT name FROM shop WHERE id = 2)",
        0,
        1,
    ),
    # spelling that Spider's grammar has not
    ("SELECT s.name AS n FROM shop s", "SELECT name FROM shop", 0, 1),
    ('SELECT `name` FROM "shop" WHERE id<>3', "SELECT name FROM shop WHERE id != 1", 0, 1),
    (
        "SELECT T1.name FROM shop AS T1 INNER JOIN sale AS T2 ON T1.id=T2.shop_id",
        "SELECT T1.name FROM shop AS T1 JOIN sale AS T2 ON T1.id = T2.shop_id",
        0,
        1,
    ),
    (
        "SELECT city, count(*) AS n FROM shop GROUP BY city ORDER BY n DESC LIMIT 1",
        "SELECT city , count(*) FROM shop GROUP BY city ORDER BY count(*) DESC LIMIT 1",
        0,
        1,
    ),
    ("SELECT name FROM shop s LEFT JOIN sale t ON s.id = t.shop_id", "SELECT name FROM shop", 0, 0),
    # the word value
    ("SELECT value FROM sale", "SELECT value FROM sale", 0, 1),
    # both kinds of quotes are one, so this is not in the grammar, but it can be respelled
    ('SELECT name FROM shop WHERE name = "O\'Neil"', "SELECT name FROM shop WHERE name = 'x'", 0, 1),
]


@pytest.mark.parametrize(("predicted", "gold", "official", "strict"), PAIRS)
def test_scores(predicted: str, gold: str, official: int, strict: int) -> None:
    tree = parse(gold, SCHEMA)
    assert exact_match(predicted, tree, schema=SCHEMA, keys=KEYS).score == official
    assert exact_match_strict(predicted, tree, schema=SCHEMA, keys=KEYS)[0].score == strict


def test_two_unlike_subqueries_in_from() -> None:
    gold = parse("SELECT count(*) FROM (SELECT name FROM shop) (SELECT city FROM shop)", SCHEMA)
    swapped = "SELECT count(*) FROM (SELECT city FROM shop) (SELECT name FROM shop)"
    official = exact_match(swapped, gold, schema=SCHEMA, keys=KEYS)
    assert (official.score, official.raises) == (0, "TypeError")
    assert exact_match_strict(swapped, gold, schema=SCHEMA, keys=KEYS)[0].score == 1


def test_a_missing_connective_makes_the_comparison_raise() -> None:
    gold = parse("SELECT name FROM shop", SCHEMA)
    match = exact_match("SELECT name FROM shop WHERE id = 1 id = 2 AND id = 3", gold, schema=SCHEMA, keys=KEYS)
    assert (match.score, match.raises, match.parses) == (0, "ValueError", True)


def test_failed_parts_and_parsing_are_told() -> None:
    gold = parse("SELECT name FROM shop WHERE id = 1 ORDER BY name", SCHEMA)
    match = exact_match("SELECT name FROM shop", gold, schema=SCHEMA, keys=KEYS)
    assert match.failed == ("where", "where(no OP)", "order", "keywords")
    assert not exact_match("nonsense", gold, schema=SCHEMA, keys=KEYS).parses


def test_key_map_collects_groups_in_order_and_never_merges_them() -> None:
    entry = {
        "table_names_original": ["A", "B"],
        "column_names_original": [[-1, "*"], [0, "a"], [0, "b"], [1, "c"], [1, "d"]],
        "foreign_keys": [[4, 3], [2, 1], [3, 2]],  # the last one would connect both groups
    }
    assert key_map(entry) == {"b.c": "a.b", "b.d": "a.b", "a.b": "a.a", "a.a": "a.a"}


@pytest.mark.parametrize(
    ("sql", "form"),
    [
        ("SELECT s.name FROM shop s", "select s.name from shop as s"),
        ("SELECT name FROM shop, sale", "select name from shop join sale"),
        ("SELECT COUNT(DISTINCT city) FROM shop", "select count ( distinct city ) from shop"),
        (
            "SELECT id FROM sale WHERE NOT amount BETWEEN 1 AND 2",
            "select id from sale where amount not between 1 and 2",
        ),
        ('SELECT id FROM shop WHERE city="Bonn"', 'select id from shop where city = "Bonn"'),
        ("SELECT name FROM shop WHERE city IN ('a', 'b')", None),
        ("SELECT name FROM shop WHERE city IS NULL", None),
        ("SELECT name FROM shop UNION ALL SELECT city FROM shop", None),
        ("SELECT rank() OVER (ORDER BY id) FROM shop", None),
        ("SELEC name", None),
        ("", None),
    ],
)
def test_respelling(sql: str, form: str | None) -> None:
    assert spider_form(sql, SCHEMA) == form
