"""Scoring from files to files."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.database.executor import Limits, Result, Timing
from tutelage.text2sql.evaluation import spider_judge
from tutelage.text2sql.evaluation.bird_judge import BirdJudge
from tutelage.text2sql.evaluation.gold import load_benchmark
from tutelage.text2sql.evaluation.score import Scores, score_predictions
from tutelage.text2sql.results import benchmark_report
from tutelage.text2sql.results.benchmark_report import marked_difference, table, write_reports

GOLD = [
    "SELECT count(*) FROM shop",
    "SELECT DISTINCT city FROM shop",
    "SELECT name FROM shop ORDER BY name",
    "SELECT id FROM sale WHERE amount > 100",
    "SELECT name , id FROM shop WHERE city = 'Bonn'",
]


def score(root: Path, *predictions: list[str] | dict[str, str], benchmark: str = "spider", **more: Any) -> Scores:
    paths = []
    for number, prediction in enumerate(predictions):
        path = root.parent / (f"system{number}.sql" if isinstance(prediction, list) else f"system{number}.json")
        path.write_text("\n".join(prediction) + "\n" if isinstance(prediction, list) else json.dumps(prediction))
        paths.append(path)
    settings: dict[str, Any] = {"store": root.parent / "store", "workers": 1} | more
    scores = score_predictions(benchmark=benchmark, root=root, predictions=paths, **settings)  # type: ignore[arg-type]
    write_reports(scores, root.parent / "out")
    return scores


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---- Spider -------------------------------------------------------------------------------------------------------


def test_spider_files(spider_root: Path, tmp_path: Path) -> None:
    queries = [
        "SELECT count(id) FROM shop",
        "SELECT city FROM shop GROUP BY city",
        "SELECT name FROM shop ORDER BY name DESC",
        "SELECT id, amount FROM sale WHERE amount > 100",
        "SELECT id , name FROM shop WHERE city = 'Bonn'",
    ]
    scores = score(spider_root, queries)
    found = rows(tmp_path / "out" / "items.csv")
    assert list(found[0]) == [
        "id",
        "db_id",
        "hardness",
        "execution",
        "exact_match",
        "status",
        "hardness_strict",
        "execution_strict",
        "exact_match_strict",
        "status_strict",
    ]
    assert [row["id"] for row in found] == ["0", "1", "2", "3", "4"]
    assert [row["hardness"] for row in found] == ["easy", "easy", "easy", "easy", "medium"]
    # DISTINCT is stripped from the gold of 1; both results of 3 are empty.
    assert [row["execution"] for row in found] == ["1", "0", "0", "1", "1"]
    assert [row["execution_strict"] for row in found] == ["1", "1", "0", "0", "1"]
    assert [row["exact_match"] for row in found] == ["0", "0", "0", "0", "1"]
    assert [row["status"] for row in found] == ["correct", "wrong", "wrong", "correct", "correct"]
    content = json.loads((tmp_path / "out" / "scores.json").read_text())
    system = content["systems"][0]
    assert system["official"]["execution"]["value"] == pytest.approx(60.0)
    assert system["strict"]["execution"]["value"] == pytest.approx(60.0)
    assert system["official"]["exact_match"]["items"] == 5
    assert system["statuses"] == {"correct": 3, "wrong": 2}
    assert system["by_hardness"]["easy"]["execution"]["value"] == pytest.approx(50.0)
    assert system["by_database"]["shop"]["exact_match"]["value"] == pytest.approx(20.0)
    assert system["differences"] == {"DISTINCT is stripped": 1, "two empty results are equal": 1}
    assert content["gold"]["official"]["execution"]["value"] == 100.0
    assert list(content["suspicious_golds"]) == ["3"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Names by name?" in page
    assert "name <ins>DESC</ins>" in page.replace("<ins> DESC</ins>", " <ins>DESC</ins>")
    assert "execution  60.00" in table(scores)


def test_workers_and_runs_agree(spider_root: Path) -> None:
    queries = [*GOLD[:3], "SELEC", "SELECT name FROM shop"]
    first = score(spider_root, queries)
    again = [score(spider_root, queries), score(spider_root, queries, workers=2)]
    for other in again:
        assert [o.official for o in other.systems[0].outcomes] == [o.official for o in first.systems[0].outcomes]
        assert [o.status for o in other.systems[0].outcomes] == ["correct", "correct", "correct", "error", "wrong"]


def test_strict_headline_and_distinct_kept(spider_root: Path) -> None:
    queries = [*GOLD[:1], "SELECT city FROM shop GROUP BY city", *GOLD[2:]]
    assert "strict: 5 items" in table(score(spider_root, queries, mode="strict"))
    kept = score(spider_root, queries, keep_distinct=True, metrics=["execution"])
    assert kept.systems[0].values("execution", "official") == [1, 1, 1, 1, 1]
    assert kept.systems[0].differences == {}


def test_every_database_of_a_suite_counts(spider_root: Path, make_database: Callable[[Path, str], Path]) -> None:
    always_right = ["SELECT 3 FROM shop WHERE id = 1", *GOLD[1:]]
    assert score(spider_root, always_right).systems[0].outcomes[0].status == "correct"
    make_database(
        spider_root / "database" / "shop" / "shop_v2.sqlite",
        "CREATE TABLE shop (id, name, city); CREATE TABLE sale (id, shop_id, amount, value);"
        "INSERT INTO shop VALUES (1, 'a', 'b');",
    )
    scores = score(spider_root, always_right)
    assert len(scores.benchmark.databases["shop"]) == 2
    assert [outcome.status for outcome in scores.systems[0].outcomes] == ["wrong", *["correct"] * 4]


def test_two_systems(spider_root: Path, tmp_path: Path) -> None:
    scores = score(spider_root, GOLD, ["SELECT 0", *GOLD[1:4], "SELECT 1"])
    test = scores.comparison()["execution"]
    assert (test.only_first, test.only_second, test.p_value) == (2, 0, 0.5)
    assert [row["execution"] for row in rows(tmp_path / "out" / "system1" / "items.csv")] == ["0", "1", "1", "1", "0"]
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["comparison"]["execution"]["p_value"] == 0.5
    assert "only system0 right" in (tmp_path / "out" / "report.html").read_text()


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_hostile_and_broken_predictions_are_counted(spider_root: Path) -> None:
    before = digest(spider_root)
    hostile = [
        "DROP TABLE shop",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
        "",
        "DELETE FROM sale; SELECT 1",
        "SELECT '" + "x" * 10_000_000 + "'",
    ]
    statuses = [o.status for o in score(spider_root, hostile, limits=Limits(seconds=1)).systems[0].outcomes]
    assert statuses == ["refused", "timeout", "empty", "correct", "too_large"]
    more = [
        "ATTACH 'evil.sqlite' AS evil",
        "SELECT name\x00 FROM shop",
        "PRAGMA journal_mode = WAL",
        "INSERT INTO sale VALUES (9, 9, 9, 9)",
        "VACUUM INTO 'copy.sqlite'",
    ]
    outcomes = score(spider_root, more, limits=Limits(seconds=1)).systems[0].outcomes
    # Where the gold is empty, officially a write that gives no rows is right (only its first statement counts).
    assert [o.official["execution"] for o in outcomes] == [0, 0, 0, 1, 0]
    assert [o.strict["execution"] for o in outcomes] == [0, 0, 0, 0, 0]
    assert [o.status for o in outcomes] == ["refused", "error", "refused", "correct", "refused"]
    assert digest(spider_root) == before


def test_a_gold_that_fails_is_counted_apart(spider_root: Path) -> None:
    questions = json.loads((spider_root / "dev.json").read_text())
    questions[0]["query"] = "SELECT price FROM shop"
    (spider_root / "dev.json").write_text(json.dumps(questions))
    scores = score(spider_root, GOLD)
    assert [outcome.status for outcome in scores.systems[0].outcomes] == ["gold_error", *["correct"] * 4]
    assert scores.gold.statuses == {"correct": 4, "gold_error": 1}
    assert scores.groups[0] == "unknown"
    assert scores.suspicious[0][0].startswith("it fails: no such column")


def test_html_is_escaped(spider_root: Path, tmp_path: Path) -> None:
    score(spider_root, ["SELECT '<script>alert(1)</script>'", *GOLD[1:]])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_missing_database(spider_root: Path) -> None:
    (spider_root / "database" / "shop" / "shop.sqlite").unlink()
    with pytest.raises(DataError, match=r"5 of 5 questions have no database that can be read .*: shop \(5\)"):
        score(spider_root, GOLD, on_missing="skip")


def test_a_database_that_cannot_be_read_is_counted_and_named(spider_root: Path, tmp_path: Path) -> None:
    questions = json.loads((spider_root / "dev.json").read_text())
    (spider_root / "dev.json").write_text(json.dumps([*questions, {**questions[0], "db_id": "torn"}]))
    torn = spider_root / "database" / "torn" / "torn.sqlite"
    torn.parent.mkdir()
    torn.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    with pytest.raises(DataError, match=r"1 of 6 .*: torn \(1; .*torn\.sqlite.*on_missing=skip"):
        score(spider_root, [*GOLD, "SELECT 1"])
    scores = score(spider_root, [*GOLD, "SELECT 1"], on_missing="skip")
    assert scores.systems[0].statuses == {"correct": 5}
    assert "no database for 1" in table(scores)
    assert "not scored: torn, " in table(scores)
    assert list(json.loads((tmp_path / "out" / "scores.json").read_text())["unreadable"]) == ["torn"]
    assert "torn.sqlite" in (tmp_path / "out" / "report.html").read_text()


def test_scores_are_on_disk_before_the_page_is_drawn(
    spider_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(scores: Scores) -> str:
        raise OSError("no space left on device")

    monkeypatch.setattr(benchmark_report, "_html", fails)
    with pytest.raises(OSError, match="no space"):
        score(spider_root, GOLD)
    assert len(rows(tmp_path / "out" / "items.csv")) == 5
    content = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert content["systems"][0]["official"]["execution"]["value"] == 100.0


def test_an_item_that_our_scorer_fails_on_is_counted_and_named(
    spider_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = spider_judge.official_match

    def fails(gold: list[Any], predicted: list[Any], *, ordered: bool) -> bool:
        if predicted == [(13,)]:
            raise RecursionError("too deep")
        return kept(gold, predicted, ordered=ordered)

    monkeypatch.setattr(spider_judge, "official_match", fails)
    scores = score(spider_root, ["SELECT 13", *GOLD[1:]])
    assert scores.systems[0].statuses == {"correct": 4, "scorer_error": 1}
    assert scores.score(scores.systems[0], "execution", "official").value == 80.0
    assert "the scorer failed: RecursionError: too deep" in (tmp_path / "out" / "report.html").read_text()


def test_two_runs_that_were_asked_different_questions(spider_root: Path, tmp_path: Path) -> None:
    def run(name: str, *places: int) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        lines = [{"id": f"spider/dev/{place}", "sql": GOLD[place], "source": "seed"} for place in places]
        lines += [{"id": "shop/0", "sql": "SELECT 0", "source": "explored"}]  # by its last part, question 0
        path = tmp_path / name / "predictions.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    def scored(*paths: Path) -> Scores:
        return score_predictions(benchmark="spider", root=spider_root, predictions=paths, store=tmp_path, workers=1)

    scores = scored(run("a", 0, 1, 2), run("b", 4, 2, 1))
    assert [item.id for item in scores.benchmark.items] == ["1", "2"]
    assert [system.statuses for system in scores.systems] == [{"correct": 2}, {"correct": 2}]
    assert scores.benchmark.not_asked == 3
    with pytest.raises(DataError, match="have no question in common"):
        scored(run("a", 0), run("b", 4))
    with pytest.raises(DataError, match="answers none of these questions"):
        scored(run("a"))


def test_a_score_over_nothing_is_json(spider_root: Path, tmp_path: Path) -> None:
    """Of doubtful databases alone, nothing is left without them."""
    for path in (spider_root / "dev.json", spider_root / "tables.json"):
        path.write_text(path.read_text().replace('"shop"', '"wta_1"', 10))
    content = json.loads((spider_root / "tables.json").read_text())
    content[0]["table_names_original"] = ["shop", "sale"]
    (spider_root / "tables.json").write_text(json.dumps(content))
    (spider_root / "database" / "shop" / "shop.sqlite").rename(spider_root / "database" / "shop" / "wta_1.sqlite")
    (spider_root / "database" / "shop").rename(spider_root / "database" / "wta_1")
    score(spider_root, GOLD)
    text = (tmp_path / "out" / "scores.json").read_text()
    found = json.loads(text, parse_constant=pytest.fail)["systems"][0]["without_doubtful_databases"]["official"]
    assert found["execution"] == {"value": None, "interval_95": None, "items": 0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "loose"}, "mode: no choice 'loose'"),
        ({"on_missing": "ignore"}, "on_missing"),
        ({"metrics": ["ves"]}, "spider has no 'ves'"),
        ({"workers": 0}, "workers"),
        ({"split": "nothing"}, "no nothing.json"),
    ],
)
def test_choices_that_do_not_exist(spider_root: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        score(spider_root, GOLD, **settings)
    with pytest.raises(ConfigError, match="3 files"):
        score(spider_root, GOLD, GOLD, GOLD)


def test_broken_data(spider_root: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        score(spider_root.parent / "nowhere", GOLD)
    (spider_root / "tables.json").unlink()
    with pytest.raises(DataError, match=r"tables.json has no shop"):
        score(spider_root, GOLD)
    assert score(spider_root, GOLD, metrics=["execution"]).systems[0].statuses == {"correct": 5}
    (spider_root / "dev.json").write_text('[{"db_id": "shop"}]')
    with pytest.raises(DataError, match="not a list of objects with db_id, question, query"):
        score(spider_root, GOLD)
    (spider_root / "dev.json").write_text("nonsense")
    with pytest.raises(DataError, match="not JSON"):
        score(spider_root, GOLD)


# ---- BIRD -----------------------------------------------------------------------------------------------------------


def test_bird_files(bird_root: Path, tmp_path: Path) -> None:
    predictions = {
        "10": "SELECT name FROM shop ORDER BY name DESC",
        "12": "SELECT COUNT(*), city FROM shop GROUP BY city",
    }
    with pytest.raises(DataError, match=r"1 of 4 questions have no database .*: absent \(1\).*on_missing=skip"):
        score(bird_root, predictions, benchmark="bird")
    predictions["13"] = "SELECT a FROM raw"
    scores = score(bird_root, predictions, benchmark="bird", on_missing="skip")
    found = rows(tmp_path / "out" / "items.csv")
    assert list(found[0]) == [
        "id",
        "db_id",
        "difficulty",
        "ex",
        "soft_f1",
        "status",
        "ex_strict",
        "soft_f1_strict",
        "status_strict",
    ]
    assert [(row["id"], row["difficulty"]) for row in found] == [
        ("10", "simple"),
        ("12", "moderate"),
        ("13", "challenging"),
    ]
    assert [row["ex"] for row in found] == ["1", "0", "0"]
    # Reordered rows; permuted columns; text that is not UTF-8 fails officially, as a gold too.
    assert [float(row["soft_f1"]) for row in found] == pytest.approx([1 / 3, 1.0, 0.0])
    assert [float(row["soft_f1_strict"]) for row in found] == [1.0, 1.0, 1.0]
    assert [row["ex_strict"] for row in found] == ["1", "0", "1"]
    assert [row["status"] for row in found] == ["correct", "wrong", "gold_error"]
    assert scores.benchmark.missing == {"absent": 1}
    assert "3 items of 4; no database for 1" in table(scores)
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["skipped"] == {"absent": 1}


def test_bird_time_metrics(bird_root: Path) -> None:
    predictions = {"10": "SELECT name FROM shop", "12": "SELECT 1", "13": "SELECT 1"}
    scores = score(bird_root, predictions, benchmark="bird", on_missing="skip", metrics=["ex", "ves", "r_ves"])
    right, wrong, _ = scores.systems[0].outcomes
    assert right.official["ves"] > 0
    assert right.official["r_ves"] in (0.25, 0.5, 0.75, 1.0, 1.25)
    assert (wrong.official["ves"], wrong.official["r_ves"]) == (0.0, 0.0)
    assert scores.score(scores.systems[0], "r_ves", "official").value == pytest.approx(
        100 * right.official["r_ves"] ** 0.5 / 3
    )


def test_prediction_and_gold_share_one_time_limit(bird_root: Path) -> None:
    benchmark = load_benchmark("bird", root=bird_root, split="dev", on_missing="skip")

    def run(seconds: float) -> Callable[[Path, str], Result]:
        return lambda path, sql: Result("ok", ("a",), [(1,)], "", seconds)

    judge = BirdJudge(benchmark, metrics=("ex",), seconds=30.0, lenient=run(0), clock=lambda *_: Timing("ok", "", []))
    for predicted, status in ((9.0, "correct"), (11.0, "timeout")):
        outcome = judge.judge(benchmark.items[0], "SELECT 1", gold=run(20.0), predicted=run(predicted))
        assert (outcome.status, outcome.status_strict) == (status, "correct")
    assert outcome.reasons == ("prediction and gold share one time limit",)


def test_marked_difference() -> None:
    gold, predicted = marked_difference("SELECT name FROM shop", "select city  from shop")
    assert (gold, predicted) == ("SELECT <del>name</del> FROM shop", "select <ins>city</ins>  from shop")
