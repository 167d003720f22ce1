"""A small database, and a run whose model says what it is told to."""

import sqlite3
from pathlib import Path

from tutelage.text2sql.data.questions import Questions


def database(path: Path) -> Path:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE item (name TEXT, price INTEGER)")
        connection.executemany("INSERT INTO item VALUES (?, ?)", [("[red] Lamp", 5), (None, 9), (b"\x00\x01", 7)])
    connection.close()
    return path


def source_of(*paths: Path) -> Questions:
    databases = {path.stem: path for path in paths}
    return Questions(name="own", splits={}, databases=databases, notes={}, fingerprint="")
