"""A reward that cannot be cheated: what a policy under training would try."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tutelage.core.errors import DataError
from tutelage.text2sql.database.executor import Limits, Result
from tutelage.text2sql.reward import Attempt, Reward, compute_score, compute_scores, grpo_reward
from tutelage.text2sql.reward.judge import cells_in_common, reads_tables

NAMES = "SELECT name FROM singer WHERE age > 40"
COUNT = "SELECT count(*) FROM singer"
EMPTY = "SELECT name FROM singer WHERE age > 1000"
NULLS = "SELECT max(age) FROM singer WHERE age > 1000"
ENDLESS = "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a) SELECT count(*) FROM a, singer"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reward") / "concert.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, country TEXT)")
        rows = [(i, f"Singer {i}", 20 + 2 * i, ("France", "Chile", "Ghana")[i % 3]) for i in range(1, 21)]
        connection.executemany("INSERT INTO singer VALUES (?, ?, ?, ?)", rows)
    return path


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reward]:
    limits = Limits(seconds=1.0, rows=1_000, bytes=1_000_000)
    with Reward(store=tmp_path_factory.mktemp("store"), dense=True, limits=limits) as made:
        yield made


@pytest.fixture
def judge(reward: Reward, database: Path) -> Callable[[str, str], tuple[str, float]]:
    def judge(sql: str, gold: str) -> tuple[str, float]:
        (found,) = reward([Attempt(database, (gold,), sql)])
        return found.outcome, round(found.reward, 3)

    return judge


def test_right_answers(judge: Callable[[str, str], tuple[str, float]]) -> None:
    assert judge(NAMES, NAMES) == ("right", 1.0)
    assert judge("SELECT s.name FROM singer AS s WHERE NOT s.age <= 40", NAMES) == ("right", 1.0)
    assert judge("SELECT total(1) FROM singer", COUNT) == ("right", 1.0)
    assert judge("SELECT name, age FROM singer ORDER BY age", "SELECT age, name FROM singer ORDER BY age")[0] == "right"


@pytest.mark.parametrize(
    ("sql", "gold", "outcome"),
    [
        ("SELECT 20", COUNT, "reads_nothing"),
        ("WITH a AS (SELECT 20 AS n) SELECT n FROM a", COUNT, "reads_nothing"),
        ("SELECT 20 FROM singer LIMIT 1", COUNT, "constant"),
        ("SELECT CASE WHEN count(*) > 0 THEN 20 END FROM singer", COUNT, "constant"),
        ("VALUES (20)", COUNT, "reads_nothing"),
        # What the gold gives, written into the query.
        (f"SELECT name FROM singer WHERE id IN ({', '.join(map(str, range(11, 21)))})", NAMES, "constant"),
        (
            " UNION ALL ".join(f"SELECT 'Singer {i}' FROM (SELECT 1 FROM singer LIMIT 1)" for i in range(11, 21)),
            NAMES,
            "constant",
        ),
        ("", COUNT, "no_query"),
        ("SELECT broken FROM singer", COUNT, "failed"),
        ("DELETE FROM singer", COUNT, "failed"),
        ("SELECT count(*) FROM singer; DROP TABLE singer", COUNT, "failed"),
        ("PRAGMA user_version = 20", COUNT, "failed"),
        ("ATTACH 'x.sqlite' AS x", COUNT, "failed"),
        (ENDLESS, COUNT, "failed"),
        ("SELECT a.name FROM singer a, singer b, singer c", NAMES, "failed"),
        ("SELECT zeroblob(2000000) FROM singer", NAMES, "failed"),
        ("SELECT * FROM singer", NAMES, "wrong"),
        (COUNT, "SELECT nothing FROM nowhere", "gold_failed"),
    ],
)
def test_what_does_not_pay(judge: Callable[[str, str], tuple[str, float]], sql: str, gold: str, outcome: str) -> None:
    found, value = judge(sql, gold)
    assert found == outcome
    assert value < 0.5
    if outcome in ("reads_nothing", "no_query", "gold_failed"):
        assert value == 0.0


@pytest.mark.parametrize("gold", [EMPTY, NULLS])
def test_an_error_never_equals_an_empty_gold(judge: Callable[[str, str], tuple[str, float]], gold: str) -> None:
    for sql in ("SELECT broken FROM singer", "", "SELECT", "DROP TABLE singer", ENDLESS):
        assert judge(sql, gold)[0] in ("failed", "no_query") and judge(sql, gold)[1] < 0.5
    # Nor does it pay to find nothing.
    assert judge("SELECT name FROM singer WHERE 0", gold)[1] < 0.5
    assert judge("SELECT NULL FROM singer WHERE 0", gold)[1] < 0.5
    assert judge("SELECT max(age) FROM singer WHERE 0", gold)[1] < 0.5


def test_an_empty_gold_pays_where_a_copy_shows_its_meaning(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (a INTEGER, b TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(i, "x" if i < 10 else None) for i in range(20)])
    gold = "SELECT a FROM t WHERE b IS NULL AND a < 10"  # values are redrawn in a copy, so there it has rows
    with Reward(store=tmp_path / "store") as reward:
        assert reward.says_something(path, gold) and not reward.says_something(path, "SELECT a FROM t WHERE a > 99")
        attempts = [
            gold,
            "SELECT a FROM t WHERE a < 10 AND b IS NULL",
            "SELECT a FROM t WHERE 0",
            "SELECT a FROM t LIMIT 0",
        ]
        found = reward([Attempt(path, (gold,), sql) for sql in attempts])
    assert [judgement.reward for judgement in found] == [1.0, 1.0, 0.0, 0.0]


def test_nothing_is_written(reward: Reward, database: Path) -> None:
    before = database.read_bytes()
    tricks = ["DROP TABLE singer", "INSERT INTO singer VALUES (99, '', 1, '')", "VACUUM", "PRAGMA journal_mode = WAL"]
    found = reward([Attempt(database, (COUNT,), sql) for sql in tricks])
    assert [judgement.outcome for judgement in found] == ["failed"] * 4
    assert [judgement.reward for judgement in found] == [0.0] * 4  # also where a part is paid for trying
    assert database.read_bytes() == before


def test_the_dense_part_rises_and_stays_below_half(judge: Callable[[str, str], tuple[str, float]]) -> None:
    ladder = [
        "SELEC name",
        "SELECT nam FROM singer",
        "SELECT name FROM singer WHERE age < 0",
        "SELECT name FROM singer",
        NAMES,
    ]
    values = [judge(sql, NAMES)[1] for sql in ladder]
    assert values == [0.0, 0.1, 0.3, 0.375, 1.0]
    assert judge("SELECT * FROM singer", NAMES)[1] < judge("SELECT name FROM singer", NAMES)[1]


def test_parts() -> None:
    def result(*rows: tuple[object, ...]) -> Result:
        return Result("ok", ("a",), list(rows), "", 0.0)

    assert cells_in_common(result((1,), (2,)), result((2,), (3,))) == 1 / 3
    assert cells_in_common(result(), result()) == 0.0
    assert reads_tables("SELECT (SELECT max(a) FROM t)") and not reads_tables("SELECT (SELECT 1)")


def test_a_batch_is_in_order_and_golds_run_once(tmp_path: Path, database: Path) -> None:
    with Reward(store=tmp_path, workers=2) as reward:
        attempts = [Attempt(database, (COUNT, NAMES), sql) for sql in (COUNT, "SELECT 1", NAMES, COUNT)] * 8
        assert [judgement.reward for judgement in reward(attempts)] == [1.0, 0.0, 1.0, 1.0] * 8
        assert reward._golds.fill([(database, COUNT), (database, NAMES)]) == 0


def test_signatures_of_trl_and_verl(tmp_path: Path, database: Path) -> None:
    answer = f"Here it is:\n```sql\n{COUNT}\n```"
    with Reward(store=tmp_path) as reward:
        function = grpo_reward(reward)
        found = function(
            prompts=["p", "p"],
            completions=[answer, [{"role": "assistant", "content": "```sql\nSELECT 20\n```"}]],
            completion_ids=[[1], [2]],
            database=[str(database)] * 2,
            sql=[COUNT, [COUNT]],
            trainer_state=None,
        )
    assert found == [1.0, 0.0]
    info = {"database": str(database)}
    assert compute_score("spider", answer, COUNT, info, store=str(tmp_path)) == 1.0
    assert compute_scores(["s"] * 2, ["none", answer], [COUNT] * 2, [info] * 2, store=str(tmp_path)) == [0.0, 1.0]
    with pytest.raises(DataError, match="extra_info: no database"):
        compute_score("spider", answer, COUNT, {}, store=str(tmp_path))
