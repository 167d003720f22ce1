"""What ask.py does, with a model that says what it is told to."""

import json
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest
from asking_run import database, source_of

from tutelage.core.errors import ConfigError, DataError, RunError
from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.inference.asking import AskSettings, ask, choose_database, parse
from tutelage.text2sql.inference.session import LoadedRun
from tutelage.text2sql.inference.terminal import print_answer
from tutelage.text2sql.task import load_run


def never(*_: object, **__: object) -> LoadedRun:
    raise AssertionError("refused before the run is opened")


def test_the_command_line() -> None:
    assert parse(["run=runs/x", "How many", "flights?"]) == AskSettings(
        run=Path("runs/x"), question="How many flights?"
    )
    asked = parse(["Is a = b?", "run=r", "database=d.sqlite", "db_id=d", "rows=5"])
    assert asked == AskSettings(run=Path("r"), question="Is a = b?", database="d.sqlite", db_id="d", rows=5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["How many?"], "run: not given"),
        (["run=r", "dtabase=x", "Q?"], "dtabase: no such key. Did you mean database?"),
        (["run=r", "rows=many", "Q?"], "rows: 'many': Input should be a valid integer"),
        (["run=r", "format=xml", "Q?"], "format: 'xml': Input should be 'table' or 'json'"),
    ],
)
def test_a_command_line_that_cannot_be(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(arguments)


def test_a_package_of_ones_own_is_trusted(run: SimpleNamespace) -> None:
    run.answers = ["SELECT name FROM item", "SELECT name FROM item"]
    ask(parse([f"run={run.folder}", "What is there?"]), run.load_run)
    assert run.trusted == ()
    ask(parse([f"run={run.folder}", "trust=mine,theirs", "What is there?"]), run.load_run)
    assert run.trusted == ("mine", "theirs")


def test_query_and_rows_are_printed(run: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    run.answers = ["```sql\nSELECT name, price FROM item\n```"]
    ask(AskSettings(run=run.folder, question="What is there?", rows=2), run.load_run)
    out = capsys.readouterr().out
    assert out.startswith("SELECT name, price FROM item\n")
    assert "[red] Lamp" in out  # brackets are text, not a style
    assert "NULL" in out
    assert "<2 bytes>" not in out  # the third row
    assert "2 of 3 rows" in out


def test_what_fails_gets_a_second_chance(run: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    run.answers = ["SELECT cost FROM item", "SELECT max(price) FROM item"]
    ask(AskSettings(run=run.folder, question="What is the most?", rows=20), run.load_run)
    out = capsys.readouterr().out
    assert out.startswith("SELECT max(price) FROM item\n")
    assert "1 row," in out


def test_no_query_and_a_query_that_fails(run: SimpleNamespace) -> None:
    run.answers = ["no idea", "none"]
    with pytest.raises(RunError, match="the model wrote no query"):
        ask(AskSettings(run=run.folder, question="?", rows=20), run.load_run)
    run.answers = ["SELECT cost FROM item", "SELECT cost FROM item"]
    with pytest.raises(RunError, match="no such column: cost"):
        ask(AskSettings(run=run.folder, question="?", rows=20), run.load_run)


def test_nothing_is_written(run: SimpleNamespace, shop: Path) -> None:
    before = shop.read_bytes()
    run.answers = ["```sql\nDELETE FROM item\n```"] * 2
    with pytest.raises(RunError, match="this query gives no rows"):
        ask(AskSettings(run=run.folder, question="Delete everything!", rows=20), run.load_run)
    assert shop.read_bytes() == before


def test_another_database(run: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = database(tmp_path / "other.sqlite")
    with sqlite3.connect(other) as connection:
        connection.execute("DELETE FROM item WHERE price < 9")
    connection.close()
    run.answers = ["SELECT count(*) AS n FROM item"]
    ask(AskSettings(run=run.folder, question="How many?", database=str(other)), run.load_run)
    assert " ".join(capsys.readouterr().out.split()[:11]) == "SELECT count(*) AS n FROM item n ─── 1 1 row,"


def test_which_database(shop: Path, tmp_path: Path) -> None:
    two = source_of(shop, database(tmp_path / "zoo.sqlite"))
    asked = parse(["run=r", "Q?"])
    assert choose_database(source_of(shop), asked, store=None)[1] == "shop"
    with pytest.raises(ConfigError, match="the run knows several databases: shop, zoo"):
        choose_database(two, asked, store=None)
    assert choose_database(two, parse(["run=r", "Q?", "db_id=zoo"]), store=None)[1] == "zoo"
    with pytest.raises(ConfigError, match="knows no database cat: shop, zoo"):
        choose_database(two, parse(["run=r", "Q?", "db_id=cat"]), store=None)
    shop.unlink()
    with pytest.raises(DataError, match="no file"):
        choose_database(two, parse(["run=r", "Q?", "db_id=shop"]), store=None)


def test_a_run_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run: no folder"):
        ask(AskSettings(run=tmp_path / "nowhere", question="Q?"), never)
    with pytest.raises(DataError, match="no file"):
        ask(AskSettings(run=tmp_path, question="Q?", database=str(tmp_path / "nothing.sqlite")), never)


def test_a_run_of_the_other_task(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    config = {"task": {"_target_": "tutelage.multilabel.task.MultilabelTask"}}
    (tmp_path / ".hydra" / "config.yaml").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"is a run of another task. Give a run of task=text2sql"):
        ask(AskSettings(run=tmp_path, question="Q?"), load_run)


def test_a_question_of_100_kb(run: SimpleNamespace) -> None:
    with pytest.raises(DataError, match="question: 100,000 characters"):
        ask(AskSettings(run=run.folder, question="x" * 100_000), run.load_run)


def test_a_result_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_answer("SELECT 1", Result("ok", ("a",), [], "", 0.5), rows=20)
    assert capsys.readouterr().out.splitlines()[-1] == "0 rows, 0.50 s"


def test_json_for_programs(run: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    run.answers = ["SELECT name, price FROM item"]
    ask(AskSettings(run=run.folder, question="What is there?", rows=2, format="json"), run.load_run)
    found = json.loads(capsys.readouterr().out)
    assert found["columns"] == ["name", "price"] and found["rows"] == [["[red] Lamp", 5], [None, 9]]
    assert (found["num_rows"], found["status"], found["sql"]) == (3, "ok", "SELECT name, price FROM item")
    with pytest.raises(ConfigError, match="format=json answers one question"):
        ask(AskSettings(run=run.folder, format="json"), run.load_run)
