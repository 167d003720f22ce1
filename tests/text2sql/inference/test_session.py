"""A session: the model is loaded once, and every line is answered or said to be wrong."""

import csv
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tutelage.core.errors import DataError
from tutelage.text2sql.database.executor import Executor, Limits
from tutelage.text2sql.database.session import Session as SandboxSession
from tutelage.text2sql.inference.session import Session
from tutelage.text2sql.inference.terminal import converse
from tutelage.text2sql.prompts.brief import Brief


@pytest.fixture
def session(run: SimpleNamespace) -> Iterator[Session]:
    run.loads = 0

    with Executor(workers=0, limits=Limits()) as executor:
        loaded = run.load_run(run.folder, device="cpu")
        yield Session(loaded, source=run.source, db_id="shop", executor=executor)


def talk(session: Session, *lines: str) -> list[str]:
    """Type lines; return the texts that stood there to be edited."""
    typed, offered = list(lines), list[str]()

    def read(prompt: str, text: str) -> str:
        offered.append(text)
        if not typed:
            raise EOFError
        line = typed.pop(0)
        if line == "^C":
            raise KeyboardInterrupt
        return line

    converse(session, rows=20, read=read)
    return offered


def test_questions_one_after_the_other(
    run: SimpleNamespace,
    session: Session,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run.answers = ["SELECT max(price) FROM item", "SELECT min(price) FROM item"]
    talk(session, "What is the most?", "", "^C", "What is the least?", "\\quit", "never read")
    out = capsys.readouterr().out
    assert out.index("max(price)") < out.index("min(price)") and not run.answers


def test_an_error_ends_nothing(run: SimpleNamespace, session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    run.answers = ["none", "none", "SELECT cost FROM item", "SELECT cost FROM item", "SELECT count(*) FROM item"]
    talk(session, "\\why", "Nothing?", "Wrong?", "\\wat", "\\csv", "x" * 100_000, "How many?")
    out = capsys.readouterr().out
    for said in ("nothing was asked yet", "wrote no query", "no such column: cost", "\\wat: no such command",
                 "100,000 characters", "count(*)"):  # fmt: skip
        assert said in out, said


def test_a_repair_that_the_model_cannot_read_is_not_asked_for(run: SimpleNamespace, session: Session) -> None:
    """The fixture's model reads 1,000 tokens; the question alone fits, and its failed query does not."""
    run.answers = ["SELECT cost FROM item -- " + "and so on " * 300, "SELECT price FROM item"]
    with pytest.warns(UserWarning, match="longer than 980 tokens"):
        reply = session.ask("What does the lamp cost?")
    assert reply.result.error == "no such column: cost" and reply.sql.startswith("SELECT cost FROM item")
    assert run.answers == ["SELECT price FROM item"]  # a short one would have been repaired with it
    run.answers.insert(0, "SELECT cost FROM item")
    assert session.ask("What does the lamp cost?").sql == "SELECT price FROM item"


def test_a_question_is_encoded_once_and_its_query_runs_once(
    run: SimpleNamespace, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, ran = [], []
    encode, execute = Brief.encode, SandboxSession.run
    monkeypatch.setattr(Brief, "encode", lambda *given, **named: encoded.append(1) or encode(*given, **named))
    monkeypatch.setattr(SandboxSession, "run", lambda self, *given: ran.append(given[1]) or execute(self, *given))
    run.answers = ["SELECT max(price) FROM item"]
    reply = session.ask("What is the most?")
    assert reply.result.rows == [(9,)] and ran == ["SELECT max(price) FROM item"] and len(encoded) == 1
    run.answers, ran[:] = ["SELECT cost FROM item", "SELECT min(price) FROM item"], []
    reply = session.ask("What is the least?")
    assert reply.result.rows == [(5,)] and ran == ["SELECT cost FROM item", "SELECT min(price) FROM item"]


def test_a_query_is_edited_and_written_nowhere(
    run: SimpleNamespace,
    session: Session,
    shop: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = shop.read_bytes()
    run.answers = ["SELECT max(price) FROM item"]
    offered = talk(session, "What is the most?", "\\sql", "SELECT sum(price) FROM item", "\\sql DELETE FROM item")
    assert offered[2] == "SELECT max(price) FROM item"
    out = capsys.readouterr().out
    assert "21" in out and "this query gives no rows" in out and shop.read_bytes() == before


def test_rows_as_a_file(run: SimpleNamespace, session: Session, tmp_path: Path) -> None:
    run.answers = ["SELECT name, price FROM item"]
    talk(session, "What is there?", f"\\csv {tmp_path / 'rows.csv'}", f"\\csv {tmp_path}")
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["name", "price"], ["[red] Lamp", "5"], ["", "9"], ["0001", "7"]]


def test_what_goes_on_sees_what_was_before(run: SimpleNamespace, session: Session) -> None:
    run.answers = ["SELECT price FROM item", "SELECT max(price) FROM item"]
    first = session.ask("What are the prices?")
    second = session.ask("the highest", after=(first.question, first.sql))
    assert second.answer is not None and second.sql == "SELECT max(price) FROM item"
    with pytest.raises(DataError, match="nothing was asked"):
        session.ask("  ")


def test_how_a_query_was_found(run: SimpleNamespace, session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    run.answers = ["SELECT cost FROM item WHERE name = '[red] Lamp'", "SELECT price FROM item"]
    talk(session, "What does the red lamp cost?", "\\why", "\\schema", "\\schema nothing", "\\sql SELECT 1", "\\why")
    out = capsys.readouterr().out
    assert "item.name holds '[red] Lamp'" in out and "chosen, repair 1 (ok): SELECT price FROM item" in out
    assert "not chosen (error: no such column: cost)" in out and "item [3 rows]: name TEXT, price INTEGER" in out
    assert "This query was typed" in out
