"""Files of questions that people write by hand: a bad row is left out, counted and named."""

import json
from dataclasses import dataclass
from pathlib import Path

from tutelage.core.errors import DataError
from tutelage.text2sql.data.examples import Split
from tutelage.text2sql.data.questions import say_bad_rows

_FORM = 'write rows as {"question": "…", "sql": "…"}'


@dataclass(frozen=True, slots=True)
class Row:
    """One question.

    Attributes:
        number: Of the row, from 1.
        db_id: What its database is called; empty where the row does not say.
        database: The database's file or URL; empty where the row does not say.
    """

    number: int
    question: str
    sql: str
    db_id: str
    database: str
    evidence: str
    difficulty: str


@dataclass(frozen=True, slots=True)
class Rows:
    """A file's questions, and what is wrong with those that are left out."""

    path: Path
    good: list[Row]
    bad: list[str]

    def say_bad(self, split: Split) -> None:
        """Warn of what was left out.

        Raises:
            DataError: That is everything.
        """
        if not self.good:
            first = self.bad[0] if self.bad else "it has no rows"
            raise DataError(f"data.{split}", f"no question can be used in {self.path}: {first}", _FORM)
        say_bad_rows([f"{self.path.name}, {text}" for text in self.bad], total=len(self.good) + len(self.bad))


def read_rows(path: Path, *, split: Split) -> Rows:
    """Read JSON lines, or a JSON list, of ``question`` and ``sql`` (``query`` and ``SQL`` are read as well).

    Raises:
        DataError: The file is missing, or is no text.
    """
    if not path.is_file():
        raise DataError(f"data.{split}", f"no file {path}", "give JSON lines of question and sql")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"data.{split}", f"{path} is not UTF-8 ({error})", "save it as UTF-8") from error
    rows = Rows(path, [], [])
    for number, content in _objects(path, text, split):
        row = _row(number, content)
        if isinstance(row, str):
            rows.bad.append(row)
        else:
            rows.good.append(row)
    return rows


def _objects(path: Path, text: str, split: Split) -> list[tuple[int, object]]:
    if text.lstrip().startswith("["):
        try:
            return list(enumerate(json.loads(text), start=1))
        except ValueError as error:
            raise DataError(f"data.{split}", f"{path} is not JSON ({error})", "give a JSON list, or lines") from error
    found: list[tuple[int, object]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                found.append((number, json.loads(line)))
            except ValueError:
                found.append((number, line))
    return found


def _row(number: int, content: object) -> Row | str:
    """A row, or what is wrong with it."""
    if not isinstance(content, dict):
        return f"row {number} is no JSON object"
    sql = next((content[key] for key in ("sql", "query", "SQL") if isinstance(content.get(key), str)), "")
    texts = {key: content.get(key) or "" for key in ("question", "db_id", "database", "evidence", "difficulty")}
    for key, value in texts.items():
        if not isinstance(value, str):
            return f"row {number}: {key} is no text"
    for key, value in (("question", texts["question"]), ("sql", sql)):
        if not value.strip():
            return f"row {number} has no {key}"
    return Row(number, sql=sql, **{key: value.strip() for key, value in texts.items()})
