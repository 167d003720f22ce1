"""Prediction files: every form that is in use is read, and both submission forms are written."""

import json
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tutelage.core.errors import DataError
from tutelage.core.store import write_atomically
from tutelage.text2sql.evaluation.gold import Item

BIRD_SEPARATOR = "\t----- bird -----\t"
_SOURCES = ("seed", "explored")
_NOT_UTF8 = re.compile("[\\udc80-\\udcff]")  # as surrogateescape leaves the bytes
# Where the official scorers have no way to say that there is no prediction: fails, so it scores 0.
NO_PREDICTION = "SELECT"


@dataclass(frozen=True, slots=True)
class Predictions:
    """A system's queries, one for each scored item.

    Attributes:
        name: Of the system: the file's name, or its folder's where the file is a run's own.
        path: Where they come from.
        form: How the file is written.
        queries: In the order of the items; empty where the system gave none.
        not_asked: The places of items that a run was not asked (``data.test_size``); only a run's own file has any.
    """

    name: str
    path: Path
    form: str
    queries: list[str]
    not_asked: frozenset[int] = frozenset()

    def without(self, places: Collection[int]) -> "Predictions":
        """The same without some items."""
        kept = [query for place, query in enumerate(self.queries) if place not in places]
        return replace(self, queries=kept, not_asked=frozenset())


def read_predictions(path: Path, *, items: Sequence[Item], all_items: Sequence[Item]) -> Predictions:
    """Read a file of predictions.

    Forms: Spider's text (a query a line, optionally a tab and the db_id); BIRD's JSON (place or question_id →
    ``SQL\\t----- bird -----\\tdb_id``, or plain SQL); a JSON list; JSON lines with ``id`` and ``prediction`` (or
    ``sql``), as runs write them, where ``source`` tells people's questions from explored ones, which are passed over,
    and questions may be missing; a JSON object with ``predictions`` and optionally ``question_ids``.

    Args:
        path: The file.
        items: What is scored.
        all_items: The whole split: a file may cover all of it, or the scored items alone.

    Raises:
        DataError: It cannot be read, or does not belong to these questions.
    """
    where = "predictions"
    if not path.is_file():
        raise DataError(where, f"no file {path}", "give the path of a file of predictions")
    text = _read_text(path)
    name = path.parent.name if path.stem in ("predictions", "predict") else path.stem
    if path.suffix == ".jsonl":
        records = _json_lines(path, text)
        if records and all(isinstance(record, dict) and record.get("source") in _SOURCES for record in records):
            return _of_run(name, path, records, items, all_items)
        form, queries = "JSON lines", _from_records(path, records, items, all_items)
    elif path.suffix == ".json" or text.lstrip()[:1] in ("{", "["):
        form, queries = "JSON", _from_json(path, text, items, all_items)
    else:
        form, queries = "text, a query a line", _from_lines(path, text, items, all_items)
    return Predictions(name, path, form, queries)


def _read_text(path: Path) -> str:
    """Read UTF-8. A byte that is none becomes a lone surrogate: its query fails, and no other one.

    Raises:
        DataError: The file is UTF-16.
    """
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("predictions", f"{path} is UTF-16", "save it as UTF-8")
    text = content.decode("utf-8-sig", "surrogateescape")
    damaged = sum(bool(_NOT_UTF8.search(line)) for line in text.split("\n"))
    if damaged:
        warnings.warn(f"{path}: {damaged} lines are not UTF-8, and are scored as failed", stacklevel=3)
    return text


def write_spider(path: Path, queries: Sequence[str]) -> None:
    """Write Spider's submission form: a query a line, in the data's order."""
    write_atomically(path, "".join(f"{one_line(query) or NO_PREDICTION}\n" for query in queries))


def write_bird(path: Path, queries: Sequence[str], *, items: Sequence[Item]) -> None:
    """Write BIRD's submission form: one JSON object, in the data's order, which is what its scorer goes by."""
    ids = [item.id for item in items]
    keys = ids if len(set(ids)) == len(ids) else [str(place) for place in range(len(ids))]
    lines = {key: f"{query}{BIRD_SEPARATOR}{item.db_id}" for key, query, item in zip(keys, queries, items, strict=True)}
    write_atomically(path, json.dumps(lines, indent=4, ensure_ascii=False) + "\n")


def one_line(sql: str) -> str:
    """Put a query on one line without tabs: comments go, and white space inside of strings becomes blanks."""
    kept: list[str] = []
    index = 0
    while index < len(sql):
        char = sql[index]
        if sql.startswith("--", index):
            end = sql.find("\n", index)
        elif sql.startswith("/*", index):
            end = sql.find("*/", index)
            end = end if end < 0 else end + 2
        elif char in "'\"`":
            end = sql.find(char, index + 1)  # a doubled quote: the next string begins at once
            end = len(sql) if end < 0 else end + 1
            kept.append(sql[index:end])
            index = end
            continue
        else:
            kept.append(char)
            index += 1
            continue
        kept.append(" ")
        index = len(sql) if end < 0 else end
    return "".join(" " if char in "\t\n\r\v\f\x85\u2028\u2029" else char for char in "".join(kept)).strip()


# ---- text -------------------------------------------------------------------------------------------------------


def _from_lines(path: Path, text: str, items: Sequence[Item], all_items: Sequence[Item]) -> list[str]:
    # Lines as Python's text files have them: only these three end one.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while len(lines) > min(len(items), 1) and not lines[-1].strip() and len(lines) not in (len(items), len(all_items)):
        lines.pop()
    covered = _covered(path, len(lines), items, all_items)
    fields = [line.strip().split("\t") for line in lines]
    known = {item.db_id for item in all_items}
    for number, (line, item) in enumerate(zip(fields, covered, strict=True), 1):
        # A tab ends the query whatever follows; only a db_id can be checked.
        if len(line) == 2 and line[1] in known and line[1] != item.db_id:
            raise DataError(
                "predictions",
                f"{path}, line {number} is for {line[1]}, but question {item.id} asks {item.db_id}",
                "put the lines in the order of the questions",
            )
    return _of_items([line[0] for line in fields], items, covered)


def _covered(path: Path, count: int, items: Sequence[Item], all_items: Sequence[Item]) -> Sequence[Item]:
    """The items that so many predictions are for."""
    if count == len(all_items):
        return all_items
    if count == len(items):
        return items
    scored = f" ({len(items)} of them have a database here)" if len(items) != len(all_items) else ""
    raise DataError(
        "predictions",
        f"{path} has {count} predictions for {len(all_items)} questions{scored}",
        "give one prediction a question in the data's order, an empty line where there is none; or a file with ids",
    )


def _of_items(queries: Sequence[str], items: Sequence[Item], covered: Sequence[Item]) -> list[str]:
    if len(covered) == len(items):
        return list(queries)
    scored = {item.db_id for item in items}
    return [query for query, item in zip(queries, covered, strict=True) if item.db_id in scored]


# ---- a run's own file -------------------------------------------------------------------------------------------


def _of_run(name: str, path: Path, records: list[Any], items: Sequence[Item], all_items: Sequence[Item]) -> Predictions:
    """The answers to people's questions; the others of the split were left out by ``data.test_size``."""
    asked = [record for record in records if record["source"] == "seed"]
    given = {str(record.get("id")).rpartition("/")[2] for record in asked}
    not_asked = frozenset(place for place, item in enumerate(items) if item.id not in given)
    if len(not_asked) == len(items):
        raise DataError("predictions", f"{path} answers none of these questions", "give the data that the run used")
    empty = [{"id": item.id, "sql": ""} for item in all_items if item.id not in given]
    queries = _from_records(path, [*asked, *empty], items, all_items)
    return Predictions(name, path, "a run's answers", queries, not_asked)


# ---- JSON -------------------------------------------------------------------------------------------------------


def _json_lines(path: Path, text: str) -> list[Any]:
    records: list[Any] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DataError("predictions", f"{path}, line {number} is not JSON ({error})", "fix it") from error
    return records


def _from_json(path: Path, text: str, items: Sequence[Item], all_items: Sequence[Item]) -> list[str]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError("predictions", f"{path} is not JSON ({error})", "write it again") from error
    if isinstance(content, list) and content and isinstance(content[0], dict):
        return _from_records(path, content, items, all_items)
    if isinstance(content, list):
        covered = _covered(path, len(content), items, all_items)
        queries = [_query(path, value, item) for value, item in zip(content, covered, strict=True)]
        return _of_items(queries, items, covered)
    if isinstance(content, dict) and isinstance(content.get("predictions"), list):
        ids = content.get("question_ids")
        if ids is None:
            return _from_json(path, json.dumps(content["predictions"]), items, all_items)
        return _by_id(path, list(zip(map(str, ids), content["predictions"], strict=False)), items, all_items)
    if isinstance(content, dict):
        return _by_id(path, list(content.items()), items, all_items)
    raise DataError("predictions", f"{path} holds {type(content).__name__}", _FORMS)


def _from_records(path: Path, records: list[Any], items: Sequence[Item], all_items: Sequence[Item]) -> list[str]:
    pairs: list[tuple[str, Any]] = []
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict) or not (record.keys() >= {"id"} or record.keys() >= {"question_id"}):
            raise DataError("predictions", f"{path}, record {number} has no id", _FORMS)
        field = next((field for field in ("prediction", "sql", "SQL", "query") if field in record), None)
        if field is None:
            raise DataError("predictions", f"{path}, record {number} has neither prediction nor sql", _FORMS)
        pairs.append((str(record.get("id", record.get("question_id"))), record[field]))
    return _by_id(path, pairs, items, all_items)


def _by_id(path: Path, pairs: Sequence[tuple[str, Any]], items: Sequence[Item], all_items: Sequence[Item]) -> list[str]:
    # A run's ids have the data set's name before them: spider/dev/17.
    given: dict[str, Any] = {}
    for key, value in pairs:
        short = key.rpartition("/")[2]
        if short in given:
            raise DataError("predictions", f"{path} has id {key} twice", "keep one prediction a question")
        given[short] = value
    by_id = {item.id for item in all_items}
    keyed: Mapping[int, str]
    if given.keys() <= by_id:
        keyed = {place: item.id for place, item in enumerate(all_items)}
    elif given.keys() <= {str(place) for place in range(len(all_items))}:  # the keys of BIRD's own tools
        keyed = {place: str(place) for place in range(len(all_items))}
    else:
        unknown = sorted(given.keys() - by_id)
        raise DataError(
            "predictions",
            f"{path} has {len(unknown)} ids that belong to no question, such as {', '.join(unknown[:3])}",
            "give the file of predictions for this split",
        )
    scored = {item.db_id for item in items}
    expected = [(keyed[place], item) for place, item in enumerate(all_items) if item.db_id in scored]
    absent = [key for key, _ in expected if key not in given]
    if absent:
        raise DataError(
            "predictions",
            f"{path} lacks {len(absent)} of {len(expected)} questions, such as {', '.join(absent[:3])}",
            "add them, with an empty prediction where there is none",
        )
    return [_query(path, given[key], item) for key, item in expected]


def _query(path: Path, value: Any, item: Item) -> str:
    if not isinstance(value, str):
        # BIRD's scorer takes what is no text for no answer, too.
        if value is None or isinstance(value, int | float):
            return ""
        raise DataError("predictions", f"{path}: the prediction for {item.id} is a {type(value).__name__}", _FORMS)
    sql, separator, db_id = value.partition(BIRD_SEPARATOR)
    if separator and db_id.strip() != item.db_id:
        raise DataError(
            "predictions",
            f"{path}: the prediction for {item.id} is for {db_id.strip()}, but the question asks {item.db_id}",
            "give the file of predictions for this split, in its order",
        )
    return sql


_FORMS = "see docs/score_your_predictions.md for the forms that are read"
