import json
from pathlib import Path

import pytest
import sqlglot

from tutelage.core.errors import DataError
from tutelage.text2sql.database.catalog import read_catalog
from tutelage.text2sql.explore.knowledge import mine, read_fitting
from tutelage.text2sql.explore.reading import operators_of, skeleton_of
from tutelage.text2sql.explore.seeds import Seed, read_seeds


def test_superhero(shared_data: Path, tmp_path: Path) -> None:
    catalog = read_catalog(shared_data / "bird/dev_databases/superhero/superhero.sqlite")
    seeds = read_seeds(shared_data / "bird/mini_dev_sqlite.json")
    readings, _ = read_fitting(catalog, seeds)
    assert len(readings) == sum(seed.asks("superhero") for seed in seeds) == 52
    knowledge = mine(catalog, seeds=seeds, readings=readings)
    assert knowledge.joins[0].support >= knowledge.joins[1].support > 0
    hero_powers = ((("hero_power", "hero_id"), ("superhero", "id")), (("hero_power", "power_id"), ("superpower", "id")))
    assert any(join.on == hero_powers for join in knowledge.joins)
    assert knowledge.skeletons[0].operators == ("filter", "join")
    knowledge.write_jsonl(tmp_path / "knowledge.jsonl")
    records = [json.loads(line) for line in (tmp_path / "knowledge.jsonl").read_text().splitlines()]
    assert {"kind", "text", "operators", "support"} == set(records[-1])


@pytest.mark.parametrize(
    ("sql", "skeleton", "operators"),
    [
        ("SELECT name FROM t", "SELECT _ FROM _", ()),
        (
            "SELECT T1.a AS n, count(*) FROM t AS T1 INNER JOIN u ON T1.id = u.id WHERE u.b > 3 GROUP BY T1.a"
            " HAVING count(*) > 1",
            "SELECT _, COUNT(*) FROM _ JOIN _ ON _ = _ WHERE _ > ? GROUP BY _ HAVING COUNT(*) > ?",
            ("filter", "join", "aggregate", "group", "having"),
        ),
        ('SELECT a FROM t WHERE b = "text"', "SELECT _ FROM _ WHERE _ = ?", ("filter",)),
        ("SELECT a FROM t ORDER BY b DESC LIMIT 3", "SELECT _ FROM _ ORDER BY _ DESC LIMIT ?", ("order", "limit")),
        ("SELECT a FROM t EXCEPT SELECT b FROM u", "SELECT _ FROM _ EXCEPT SELECT _ FROM _", ("set_operation",)),
        (
            "SELECT a FROM t WHERE a NOT IN (SELECT b FROM u)",
            "SELECT _ FROM _ WHERE NOT _ IN (SELECT _ FROM _)",
            ("filter", "nesting"),
        ),
        (
            "SELECT rank() OVER (PARTITION BY a ORDER BY b) FROM t",
            "SELECT RANK() OVER (PARTITION BY _ ORDER BY _) FROM _",
            ("window",),
        ),
        ("WITH q AS (SELECT a FROM t) SELECT a FROM q", "WITH _ AS (SELECT _ FROM _) SELECT _ FROM _", ("cte",)),
    ],
)
def test_skeletons_and_operators(sql: str, skeleton: str, operators: tuple[str, ...]) -> None:
    tree = sqlglot.parse_one(sql, dialect="sqlite")
    assert (skeleton_of(tree), operators_of(tree)) == (skeleton, operators)


def test_seeds_of_each_layout(tmp_path: Path) -> None:
    path = tmp_path / "seeds"
    path.write_text('[{"db_id": "a", "question": "q", "query": "SELECT 1"}, {"question": "p", "SQL": "SELECT 2"}]')
    assert read_seeds(path) == (Seed("q", "SELECT 1", "a"), Seed("p", "SELECT 2", None))
    path.write_text('{"question": "q", "sql": "SELECT 1"}\n\n{"question": "p", "sql": "SELECT 2", "db_id": "b"}\n')
    first, second = read_seeds(path)
    assert first.asks("anything") and second.asks("b") and not second.asks("a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "q"}', "row 1 has no SQL"),
        ('[{"sql": 3}]', "row 1 has no SQL"),
        ('["SELECT 1"]', "row 1 has no SQL"),
        ("SELECT 1;", "is not JSON"),
        ('[{"sql": "SELECT 1"}', "is not JSON"),
    ],
)
def test_seeds_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "seeds.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_seeds(path)
    with pytest.raises(DataError, match="no file"):
        read_seeds(tmp_path / "gone.json")


def test_seeds_that_do_not_fit_are_left_out(shared_data: Path) -> None:
    catalog = read_catalog(shared_data / "spider/database/pets_1/pets_1.sqlite", statistics=False)
    seeds = [Seed("", sql, None) for sql in ("SELECT Fname FROM student", "SELECT x FROM gone", "not SQL at all (", "")]
    readings, counts = read_fitting(catalog, seeds)
    assert len(readings) == 1 and counts["used"] == 1 and sum(counts.values()) == len(seeds)
    knowledge = mine(catalog, seeds=[], readings=[])
    # Without seeds the keys are what is known of joins.
    assert [join.support for join in knowledge.joins] == [0, 0] and knowledge.skeletons == ()
