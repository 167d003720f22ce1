"""Hardness by hand-counted components."""

import pytest

from tutelage.text2sql.evaluation.hardness import hardness
from tutelage.text2sql.evaluation.spider_sql import Schema, parse

SCHEMA = Schema({"shop": ["id", "name", "city"], "sale": ["id", "shop_id", "amount"]})
JOIN = "FROM shop AS T1 JOIN sale AS T2 ON T1.id = T2.shop_id"


@pytest.mark.parametrize(
    ("sql", "level"),
    [
        ("SELECT name FROM shop", "easy"),  # c1 0, o 0
        ("SELECT name FROM shop WHERE id = 1", "easy"),  # c1 1
        ("SELECT name , id FROM shop", "medium"),  # o 1
        ("SELECT name FROM shop WHERE city LIKE 'x'", "medium"),  # c1 2: where, like
        ("SELECT count(*) , max(id) , min(id) FROM shop WHERE id = 1 AND id = 2", "hard"),  # c1 1, o 3
        (f"SELECT T1.name {JOIN} WHERE T2.amount > 1 ORDER BY T1.id", "hard"),  # c1 3
        ("SELECT name FROM shop WHERE id IN (SELECT shop_id FROM sale)", "hard"),  # c2 1
        ("SELECT name , id FROM shop WHERE id IN (SELECT shop_id FROM sale)", "extra"),  # c2 1, o 1
        (f"SELECT T1.name {JOIN} WHERE T2.amount > 1 ORDER BY T1.id LIMIT 1", "extra"),  # c1 4
        ("SELECT name FROM shop UNION SELECT name FROM shop", "hard"),
    ],
)
def test_levels(sql: str, level: str) -> None:
    assert hardness(parse(sql, SCHEMA)) == level


def test_not_and_connectives_count_as_aggregates_officially() -> None:
    # One NOT and one aggregate are two "aggregates": o is 1 instead of 0.
    one = parse("SELECT count(*) FROM shop WHERE id NOT IN (SELECT shop_id FROM sale)", SCHEMA)
    assert hardness(one) == "extra"
    assert hardness(one, strict=True) == "hard"
    having = parse("SELECT city FROM shop GROUP BY city HAVING id > 1 AND id > 2", SCHEMA)
    assert hardness(having) == "easy"  # the one connective
    having = parse("SELECT city FROM shop GROUP BY city HAVING id > 1 AND id > 2 AND id > 3", SCHEMA)
    assert (hardness(having), hardness(having, strict=True)) == ("medium", "easy")
