"""Files that are no databases, or cannot be read now: a message that says so, and nothing left behind."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tutelage.core.errors import DataError
from tutelage.text2sql.database.executor import Executor, Limits
from tutelage.text2sql.database.guard import connect, forbid_writing


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)")
        connection.executemany("INSERT INTO item VALUES (?, ?)", [(i, f"item {i}" * 20) for i in range(500)])
        connection.commit()
    return path


def _refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        connect(path)
    assert caught.value.where == "database"
    assert str(path) in caught.value.what
    with Executor(workers=0, limits=Limits()) as executor:  # in a batch, the same is said and the batch goes on
        result = executor.run(path, "SELECT 1")
    assert (result.status, result.error) == ("error", str(caught.value))
    return str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    assert "no file" in _refusal(tmp_path / "missing.sqlite")


def test_a_folder(tmp_path: Path) -> None:
    assert "is a folder" in _refusal(tmp_path)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.sqlite"
    path.touch()
    assert "is empty" in _refusal(path)


@pytest.mark.parametrize("content", [b"name,age\nAnn,3\n", os.urandom(8192), b"SQLite", b"\x00" * 5000])
def test_not_a_database_or_an_encrypted_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret.sqlite"
    path.write_bytes(content)
    message = _refusal(path)
    assert "not a SQLite database, or it is encrypted" in message
    assert "decrypt" in message


def test_an_encrypted_body_behind_a_plain_header(tmp_path: Path) -> None:
    path = tmp_path / "secret.sqlite"
    path.write_bytes(b"SQLite format 3\x00" + os.urandom(8176))
    assert "encrypted" in _refusal(path)


@pytest.mark.parametrize("keep", [100, 4096, 10_000])
def test_a_truncated_file(database: Path, keep: int) -> None:
    database.write_bytes(database.read_bytes()[:keep])
    assert "truncated" in _refusal(database)


def test_a_file_without_permission(database: Path) -> None:
    database.chmod(0)
    if os.access(database, os.R_OK):
        pytest.skip("this user may read everything")
    assert "may not be read" in _refusal(database)


def test_a_locked_database(database: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        assert "locked by another program" in _refusal(database)
        writer.execute("ROLLBACK")
    with closing(connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM item").fetchone() == (500,)


def test_a_transaction_that_was_never_finished(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_spill = 1")
        writer.execute("PRAGMA cache_size = 1")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE item SET name = upper(name)")  # more than the cache: spills, so the journal is hot
        copy = tmp_path / "copy" / database.name
        copy.parent.mkdir()
        shutil.copy(database, copy)
        shutil.copy(f"{database}-journal", f"{copy}-journal")
        writer.execute("ROLLBACK")
    assert "-journal" in _refusal(copy)


@contextmanager
def _writer_with_a_log(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("INSERT INTO item VALUES (1000, 'only in the log')")
        yield writer


def test_a_wal_database_in_use_shows_what_is_in_its_log(database: Path) -> None:
    with _writer_with_a_log(database), closing(connect(database)) as connection:
        assert connection.execute("SELECT name FROM item WHERE id = 1000").fetchone() == ("only in the log",)


def test_a_wal_database_that_lost_its_companion(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / database.name
    copy.parent.mkdir()
    with _writer_with_a_log(database):
        shutil.copy(database, copy)
        shutil.copy(f"{database}-wal", f"{copy}-wal")
    before = sorted(copy.parent.iterdir())
    message = _refusal(copy)
    assert "shop.sqlite-wal" in message
    assert "wal_checkpoint" in message
    assert sorted(copy.parent.iterdir()) == before


@pytest.mark.parametrize("read_only_folder", [False, True])
def test_a_wal_database_at_rest_is_read_and_nothing_is_left_beside_it(database: Path, read_only_folder: bool) -> None:
    with _writer_with_a_log(database):
        pass
    before = sorted(database.parent.iterdir())
    database.parent.chmod(0o500 if read_only_folder else 0o700)
    try:
        with closing(connect(database)) as connection:
            assert connection.execute("SELECT count(*) FROM item").fetchone() == (501,)
            assert sorted(database.parent.iterdir()) == before
    finally:
        database.parent.chmod(0o700)
    assert sorted(database.parent.iterdir()) == before


@pytest.mark.parametrize("name", ["a b.sqlite", "100%.sqlite", "what?#.sqlite", "ünï ' \" 数据.sqlite", "x?mode=rwc"])
def test_names_that_mean_something_in_an_address(database: Path, name: str) -> None:
    path = database.rename(database.with_name(name))
    with closing(connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM item").fetchone() == (500,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM item")


def test_our_own_statements_may_ask_by_pragma_until_writing_is_forbidden(database: Path) -> None:
    with closing(connect(database)) as connection:
        assert [row[1] for row in connection.execute("PRAGMA table_info(item)")] == ["id", "name"]
        forbid_writing(connection)
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            connection.execute("PRAGMA table_info(item)")


def test_virtual_tables_can_be_read(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        for module, columns in (("fts5", "body"), ("fts4", "body"), ("fts3", "body"), ("rtree", "id, low, high")):
            connection.execute(f'CREATE VIRTUAL TABLE "the ""{module}""" USING {module}({columns})')
        connection.execute("""INSERT INTO "the ""fts5""\" VALUES ('hello world')""")
        connection.execute("""INSERT INTO "the ""fts4""\" VALUES ('hello world')""")
        connection.execute("""INSERT INTO "the ""fts3""\" VALUES ('hello world')""")
        connection.execute("""INSERT INTO "the ""rtree""\" VALUES (1, 2.0, 3.0)""")
        connection.commit()
    with Executor(workers=0, limits=Limits()) as executor:
        for module in ("fts5", "fts4", "fts3"):
            sql = f"""SELECT body FROM "the ""{module}""\" WHERE body MATCH 'world'"""
            assert executor.run(database, sql).rows == [("hello world",)]
        assert executor.run(database, 'SELECT * FROM "the ""rtree""" WHERE low < 2.5').rows == [(1, 2.0, 3.0)]


def test_a_table_whose_module_is_unknown_does_not_close_the_others(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "INSERT INTO sqlite_master VALUES ('table', 'odd', 'odd', 0, 'CREATE VIRTUAL TABLE odd USING unknown(a)')"
        )
        connection.commit()
    with Executor(workers=0, limits=Limits()) as executor:
        assert executor.run(database, "SELECT count(*) FROM item").rows == [(500,)]
        odd = executor.run(database, "SELECT * FROM odd")
    assert (odd.status, odd.error) == ("error", "no such module: unknown")


def test_the_sandbox_imports_nothing_heavy() -> None:
    script = "import sys, tutelage.text2sql.database.executor; print('\\n'.join(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "lightning", "numpy", "sqlglot", "pydantic"} & set(ran.stdout.split())
