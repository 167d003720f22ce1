"""What ask.py does, with a model that says what it is told to."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from tutelage.core.errors import ConfigError, DataError, RunError
from tutelage.text2sql.data.questions import Questions
from tutelage.text2sql.database.executor import Executor, Limits, Result
from tutelage.text2sql.inference.answer import Answerer, Inference
from tutelage.text2sql.inference.asking import Asked, LoadedRun, ask, choose_database, parse, print_answer
from tutelage.text2sql.inference.generate import Request
from tutelage.text2sql.model.tiny import train_tokenizer
from tutelage.text2sql.prompts.brief import Brief


def database(path: Path) -> Path:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE item (name TEXT, price INTEGER)")
        connection.executemany("INSERT INTO item VALUES (?, ?)", [("[red] Lamp", 5), (None, 9), (b"\x00\x01", 7)])
    connection.close()
    return path


def source_of(*paths: Path) -> Questions:
    databases = {path.stem: path for path in paths}
    return Questions(name="own", splits={}, databases=databases, notes={}, fingerprint="")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return database(tmp_path / "shop.sqlite")


@pytest.fixture
def run(tmp_path: Path, shop: Path) -> SimpleNamespace:
    """A run whose model answers from ``answers``, one after the other."""
    tokenizer = train_tokenizer(["SELECT name FROM item"], vocabulary=400)
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=1000))
    made = SimpleNamespace(answers=[], folder=tmp_path / "run", source=source_of(shop))
    made.folder.mkdir()

    class Engine:
        def generate(self, requests: Sequence[Request], decoding: object) -> list[list[str]]:
            return [[made.answers.pop(0)] for _ in requests]

    def load_run(folder: Path, *, device: str) -> LoadedRun:
        answerer = Answerer(
            made.source,
            prompt=Brief(template="chatml", comments=False, samples=0, max_values=2, max_tokens=500),
            inference=Inference("transformers", "greedy", 1, 1.0, 1.0, "first", 0, max_new_tokens=20, batch_size=4),
            executor=Executor(workers=0, limits=Limits()),
            store=None,
        )
        model = SimpleNamespace(tokenizer=tokenizer, causal=SimpleNamespace(config=config))
        return LoadedRun(model, Engine(), answerer)  # type: ignore[arg-type]

    made.load_run = load_run
    return made


def never(folder: Path, *, device: str) -> LoadedRun:
    raise AssertionError("refused before the run is opened")


def test_the_command_line() -> None:
    assert parse(["run=runs/x", "How many", "flights?"]) == Asked(Path("runs/x"), "How many flights?", None, None, 20)
    asked = parse(["Is a = b?", "run=r", "database=d.sqlite", "db_id=d", "rows=5"])
    assert asked == Asked(Path("r"), "Is a = b?", Path("d.sqlite"), "d", 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["How many?"], "run: no run was named"),
        (["run=r"], "question: nothing was asked"),
        (["run=r", "dtabase=x", "Q?"], "dtabase: ask.py has no such key"),
        (["run=r", "rows=many", "Q?"], "rows: 'many' is not a number"),
    ],
)
def test_a_command_line_that_cannot_be(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(arguments)


def test_query_and_rows_are_printed(run: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    run.answers = ["```sql\nSELECT name, price FROM item\n```"]
    ask(Asked(run.folder, "What is there?", None, None, rows=2), run.load_run)
    out = capsys.readouterr().out
    assert out.startswith("SELECT name, price FROM item\n")
    assert "[red] Lamp" in out  # brackets are text, not a style
    assert "NULL" in out
    assert "<2 bytes>" not in out  # the third row
    assert "2 of 3 rows" in out


def test_what_fails_gets_a_second_chance(run: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    run.answers = ["SELECT cost FROM item", "SELECT max(price) FROM item"]
    ask(Asked(run.folder, "What is the most?", None, None, rows=20), run.load_run)
    out = capsys.readouterr().out
    assert out.startswith("SELECT max(price) FROM item\n")
    assert "1 row," in out


def test_no_query_and_a_query_that_fails(run: SimpleNamespace) -> None:
    run.answers = ["no idea", "none"]
    with pytest.raises(RunError, match="the model wrote no query"):
        ask(Asked(run.folder, "?", None, None, rows=20), run.load_run)
    run.answers = ["SELECT cost FROM item", "SELECT cost FROM item"]
    with pytest.raises(RunError, match="no such column: cost"):
        ask(Asked(run.folder, "?", None, None, rows=20), run.load_run)


def test_nothing_is_written(run: SimpleNamespace, shop: Path) -> None:
    before = shop.read_bytes()
    run.answers = ["```sql\nDELETE FROM item\n```"] * 2
    with pytest.raises(RunError, match="this query gives no rows"):
        ask(Asked(run.folder, "Delete everything!", None, None, rows=20), run.load_run)
    assert shop.read_bytes() == before


def test_another_database(run: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = database(tmp_path / "other.sqlite")
    with sqlite3.connect(other) as connection:
        connection.execute("DELETE FROM item WHERE price < 9")
    connection.close()
    run.answers = ["SELECT count(*) AS n FROM item"]
    ask(Asked(run.folder, "How many?", other, None, rows=20), run.load_run)
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
        ask(Asked(tmp_path / "nowhere", "Q?", None, None, rows=20), never)
    with pytest.raises(DataError, match="no file"):
        ask(Asked(tmp_path, "Q?", tmp_path / "nothing.sqlite", None, rows=20), never)


def test_a_result_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_answer("SELECT 1", Result("ok", ("a",), [], "", 0.5), rows=20)
    assert capsys.readouterr().out.splitlines()[-1] == "0 rows, 0.50 s"
