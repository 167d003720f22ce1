"""Defog's SQL-Eval: several golds a question, columns beyond those asked for, and abstention."""

import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.data.defog import Defog
from tutelage.text2sql.database.defog import DefogDialect, declines, expand, read_defog
from tutelage.text2sql.database.executor import Executor, Result
from tutelage.text2sql.evaluation.defog_judge import gives_the_same, includes, sort_keys
from tutelage.text2sql.evaluation.score import Scores, score_predictions
from tutelage.text2sql.results.benchmark_report import as_json, table, write_reports
from tutelage.text2sql.results.scoring import LIMITS, ExecutionScorer

REFUSAL = "SELECT 'Sorry, that I cannot answer.' AS answer;"
QUESTIONS = (
    ("Who?", "SELECT name FROM shop; SELECT id FROM shop;", "group_by"),
    ("Names by city, sorted?", "SELECT name, city FROM shop ORDER BY city DESC;", "order_by"),
    ("Since when?", "SELECT name FROM shop WHERE opened > date('now', '-1 year');", "date_functions"),
)


def result(columns: str, *rows: tuple[object, ...]) -> Result:
    return Result("ok", tuple(columns), list(rows), "", 0.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "database/shop/shop.sqlite"
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE shop (id INTEGER, name TEXT, city TEXT, opened TEXT);"
            "INSERT INTO shop VALUES (1, 'Ada', 'Bonn', '1999-01-01'), (2, 'Bob', 'Bonn', NULL),"
            "(3, 'Cy', 'Graz', NULL);"
        )
    write(tmp_path / "questions_gen_sqlite.csv", [("shop", *row) for row in QUESTIONS])
    write(tmp_path / "idk.csv", [("shop", "What is dark matter?", REFUSAL, "cat_a")])
    return tmp_path


def write(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(("db_name", "question", "query", "query_category"))
        out.writerows(rows)


def test_alternatives_are_read_as_its_scorer_does() -> None:
    assert list(expand("SELECT {a, b}, sum(c) FROM t GROUP BY {};SELECT 1 ; ")) == [
        "SELECT a, sum(c) FROM t GROUP BY a",
        "SELECT b, sum(c) FROM t GROUP BY b",
        "SELECT a, b, sum(c) FROM t GROUP BY a, b",
        "SELECT 1",
    ]


@pytest.mark.parametrize(
    ("sql", "declined"),
    [
        (REFUSAL, True),
        ("select 'I''m sorry'", True),
        (" ", True),
        ("SELECT 'Sorry' FROM shop", False),
        ("SELECT 7", False),
        ("SELECT '2020'", False),
        ("SELECT 'a', 'b'", False),
        ("SELECT 'a' || name", False),
    ],
)
def test_what_declines(sql: str, declined: bool) -> None:
    assert declines(sql) is declined


def test_more_columns_are_right_and_not_exact() -> None:
    gold = result("ab", (1, "x"), (2, "y"))
    assert gives_the_same(gold, result("ba", ("y", 2), ("x", 1), ("x", 1)))  # duplicates do not count here
    assert not gives_the_same(gold, result("abc", (1, "x", 0), (2, "y", 0)))
    assert includes(gold, result("zba", (0, "y", 2), (0, "x", 1)))
    assert not includes(gold, result("ba", ("y", 1), ("x", 2)))  # each column is there, and the rows are not
    assert not includes(gold, result("ab", (1, "x"), (2, "y"), (2, "y")))
    assert not includes(result("a"), result("ab")) and gives_the_same(result("a"), result("b"))
    assert not gives_the_same(result("a"), result("ab"))
    assert gives_the_same(result("a", (1 / 3,)), result("a", (0.33333334,)))
    assert not gives_the_same(result("a", (1234567,)), result("a", (1234568,)))
    wide = result("a" * 300, *[(1,) * 300] * 3)
    assert not includes(result("abc", (1, 1, 1), (1, 1, 1), (1, 2, 1)), wide)
    assert includes(result("abc", *[(1, 1, 1)] * 3), wide)


def test_order_counts_up_to_ties() -> None:
    keys = sort_keys("SELECT name, count(*) AS n FROM t GROUP BY name ORDER BY n DESC NULLS LAST, x", ("name", "n"))
    assert keys == (1,)
    assert sort_keys("SELECT a, b FROM t ORDER BY 2, a", ("a", "b")) == (1, 0)
    assert sort_keys("SELECT a FROM (SELECT a FROM t ORDER BY a)", ("a",)) == ()
    assert sort_keys("not sql at (", ("a",)) == ()
    gold = result("ab", ("x", 3), ("y", 2), ("z", 2))
    assert gives_the_same(gold, result("ab", ("x", 3), ("z", 2), ("y", 2)), keys=keys)
    assert not gives_the_same(gold, result("ab", ("y", 2), ("z", 2), ("x", 3)), keys=keys)
    assert not includes(gold, result("abc", ("y", 2, 0), ("z", 2, 0), ("x", 3, 0)), keys=keys)


def test_scores_statuses_and_abstention(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    answers = {"0": "SELECT id, city FROM shop", "1": REFUSAL, "2": "SELECT nothing", "idk-0": "SELECT 'No idea'"}
    file.write_text("".join(json.dumps({"id": f"defog/sqlite/{i}", "sql": sql}) + "\n" for i, sql in answers.items()))
    scores = score_predictions(
        benchmark="defog", root=root, predictions=[file], store=tmp_path / "store", split="with_unanswerable"
    )
    (system,) = scores.systems
    assert [outcome.status for outcome in system.outcomes] == ["correct", "declined", "error", "correct"]
    assert system.values("exact", "official") == [0.0, 0.0, 0.0, 1.0]
    assert scores.abstentions(system) == {
        "answered right": 1,
        "answered wrong": 1,
        "declined rightly": 1,
        "declined wrongly": 1,
    }
    assert scores.gold.statuses == {"correct": 4}
    assert scores.benchmark.today == {"2"} and scores.places_not_today() == [0, 1, 3]
    assert "1 questions that ask for today: mine correct 66.67" in table(scores)
    assert as_json(scores)["systems"][0]["abstentions"]["declined rightly"] == 1
    write_reports(scores, tmp_path / "out")
    assert "that ask for today (2)" in (tmp_path / "out/report.html").read_text()
    assert "an error" not in scores.suspicious.get(2, []) and scores.suspicious[2][0].startswith("its result is empty")


def test_an_error_is_not_an_empty_gold(root: Path, tmp_path: Path) -> None:
    for sql, right in (("SELECT broken", 0.0), ("SELECT name FROM shop WHERE 0", 1.0), ("DROP TABLE shop", 0.0)):
        (tmp_path / "p.json").write_text(json.dumps(["", "", sql]))
        scores = score_predictions(
            benchmark="defog", root=root, predictions=[tmp_path / "p.json"], store=tmp_path / "store", split="questions"
        )
        assert scores.systems[0].values("correct", "official")[2] == right


def test_as_data_to_answer(root: Path) -> None:
    source = Defog(root=str(root), unanswerable=True)
    first, *_, last = source.split("test")
    assert (first.id, first.sql, first.alternatives) == (
        "defog/sqlite/0",
        "SELECT name FROM shop",
        ("SELECT id FROM shop",),
    )
    assert (last.id, last.difficulty) == ("defog/sqlite/idk-0", "unanswerable")
    assert source.notes["ask_for_today"] == ["2"] and source.notes["unanswerable"] == 1
    with Executor(workers=0, limits=LIMITS) as executor:
        scorer = ExecutionScorer(source.databases, executor=executor)
        items = scorer.score(
            [first, first, first], ["SELECT id FROM shop", "SELECT name FROM shop", "SELECT city FROM shop"]
        )
    assert [item.right for item in items] == [True, True, False]
    with pytest.raises(DataError, match=r"no questions_gen_sqlite\.csv in"):
        Defog(root=str(root / "database"))
    write(root / "questions_gen_sqlite.csv", [("shop", "Q?", "", "x"), ("shop", "Q?", "SELECT 1", "x")])
    with pytest.warns(UserWarning, match=r"1 of 2 questions are left out: questions_gen_sqlite\.csv, row 0 lacks"):
        assert len(Defog(root=str(root)).split("test")) == 1


def test_the_real_golds_against_golds(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "defog"
    if not root.is_dir():
        pytest.skip(f"no Defog at {root}")
    golds = tmp_path / "gold.json"
    source = Defog(root=str(root), unanswerable=True)
    golds.write_text(json.dumps([example.sql for example in source.split("test")]))
    scores = score_predictions(
        benchmark="defog", root=root, predictions=[golds], store=tmp_path / "store", split="with_unanswerable"
    )
    assert scores.gold.statuses == scores.systems[0].statuses == {"correct": 315}
    assert sorted(map(int, scores.benchmark.today)) == [27, 28, 59, 160, 192, 194, 196, 197, 199, 203, 207]
    assert scores.abstentions(scores.systems[0])["declined rightly"] == 105
    assert scores.suspicious[177] == ["its result is nothing but NULL"]


def test_golds_of_postgresql_on_duckdb(root: Path, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    (root / "duckdb").mkdir()
    with closing(duckdb.connect(str(root / "duckdb/shop.duckdb"))) as connection:
        connection.execute("CREATE TABLE shop (id INTEGER, name TEXT, opened DATE, share DECIMAL(9, 4))")
        connection.execute("INSERT INTO shop VALUES (1, 'Ada', DATE '1999-01-01', 0.5), (2, 'Bob', NULL, 0.25)")
    golds = ["SELECT {id, name} FROM shop;", "SELECT opened FROM shop WHERE id = 1", "SELECT avg(share) FROM shop"]
    write(root / "questions_gen_postgres.csv", [("shop", "Q?", gold, "group_by") for gold in golds])
    (tmp_path / "p.json").write_text(
        json.dumps(["SELECT name FROM shop", "SELECT DATE '1999-01-01' FROM shop LIMIT 1", "SELECT 0.375"])
    )
    for _ in range(2):  # the second time with what is kept
        scores = score_predictions(
            benchmark="defog",
            root=root,
            predictions=[tmp_path / "p.json"],
            store=tmp_path / "store",
            split="questions",
            dialect="duckdb",
        )
        assert scores.gold.statuses == {"correct": 3}
        assert scores.systems[0].statuses == {"correct": 3}
    write_reports(scores, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"data\.server: no server of the PostgreSQL databases"):
        score_predictions(
            benchmark="defog",
            root=root,
            predictions=[tmp_path / "p.json"],
            store=tmp_path / "store",
            split="questions",
            dialect="postgresql",
        )


def first_golds_scored(root: Path, folder: Path, *, dialect: DefogDialect, server: str | None = None) -> Scores:
    """Score the first gold of each question as a prediction."""
    questions, _ = read_defog(root, dialect=dialect, unanswerable=False)
    golds = folder / "gold.json"
    golds.write_text(json.dumps([question.golds[0] for question in questions]))
    return score_predictions(
        benchmark="defog",
        root=root,
        predictions=[golds],
        store=folder / "store",
        split="questions",
        dialect=dialect,
        server=server,
    )


def test_the_real_golds_on_duckdb(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "defog"
    if not (root / "duckdb").is_dir():
        pytest.skip(f"no Defog at {root}")
    scores = first_golds_scored(root, tmp_path, dialect="duckdb")
    assert scores.gold.statuses == {"correct": 204, "error": 1, "gold_error": 5}
    wrong = [i.id for i, o in zip(scores.benchmark.items, scores.gold.outcomes, strict=True) if o.status != "correct"]
    assert wrong == ["58", "160", "162", "174", "193", "198"]


def test_the_real_golds_on_postgresql(shared_data: Path, postgres_url: str, tmp_path: Path) -> None:
    root = shared_data / "defog"
    if not (root / "postgres/frozen").is_dir():
        pytest.skip(f"no Defog at {root}")
    psycopg = pytest.importorskip("psycopg")
    for file in sorted((root / "postgres/frozen").glob("*.sql")):
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{file.stem}"')
        with psycopg.connect(postgres_url.replace("/postgres", f"/{file.stem}")) as connection:
            connection.execute(file.read_text())
    scores = first_golds_scored(root, tmp_path, dialect="postgresql", server=postgres_url.removesuffix("/postgres"))
    assert scores.gold.statuses == {"correct": 210}
