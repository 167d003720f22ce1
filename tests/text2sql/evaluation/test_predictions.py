"""Every form of prediction files, what is wrong with them, and both submission forms."""

import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.core.errors import DataError
from tutelage.text2sql.evaluation.gold import Item
from tutelage.text2sql.evaluation.predictions import (
    BIRD_SEPARATOR,
    NO_PREDICTION,
    one_line,
    read_predictions,
    write_bird,
    write_spider,
)

ITEMS = [Item("10", "shop", "?", "SELECT 1"), Item("11", "zoo", "?", "SELECT 2"), Item("12", "shop", "?", "SELECT 3")]
SHOP = [ITEMS[0], ITEMS[2]]


def read(path: Path, content: str | Any, *, items: list[Item] = ITEMS) -> list[str]:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_predictions(path, items=items, all_items=ITEMS).queries


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.sql", "a\nb\nc\n"),
        ("p.txt", "a\tshop\nb\tzoo\nc"),
        ("p.txt", "  a \r\nb\tmore\ttext\r\nc\r\n\r\n\r\n"),
        ("p.json", {"10": "a", "11": "b", "12": "c"}),
        ("p.json", {"12": "c", "10": f"a{BIRD_SEPARATOR}shop", "11": f"b{BIRD_SEPARATOR}zoo"}),
        ("p.json", {"0": "a", "1": "b", "2": "c"}),  # places, as BIRD's own tools write them
        ("p.json", ["a", "b", "c"]),
        ("p.json", [{"question_id": 11, "SQL": "b"}, {"question_id": 10, "SQL": "a"}, {"question_id": 12, "SQL": "c"}]),
        ("p.json", {"predictions": ["a", "b", "c"]}),
        ("p.json", {"predictions": ["c", "b", "a"], "question_ids": [12, 11, 10]}),
        ("p.jsonl", '{"id": "12", "sql": "c"}\n\n{"id": 10, "sql": "a"}\n{"id": 11, "prediction": "b", "sql": "gold"}'),
        (
            "p.jsonl",
            "\n".join(json.dumps({"id": f"bird/dev/{i}", "prediction": p}) for i, p in zip((10, 11, 12), "abc")),
        ),
        ("predict", '{"10": "a", "11": "b", "12": "c"}'),
        ("p.sql", "\ufeffa\nb\nc"),
    ],
)
def test_forms(tmp_path: Path, name: str, content: Any) -> None:
    assert read(tmp_path / name, content) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "content", [["a", "c"], ["a", "b", "c"], {"10": "a", "12": "c"}, {"10": "a", "11": "b", "12": "c"}]
)
def test_a_file_may_cover_the_scored_items_alone(tmp_path: Path, content: Any) -> None:
    assert read(tmp_path / "p.json", content, items=SHOP) == ["a", "c"]


def test_empty_lines_are_empty_predictions(tmp_path: Path) -> None:
    assert read(tmp_path / "p.sql", "a\n\nc\n") == ["a", "", "c"]
    assert read(tmp_path / "p.sql", "a\nb\n\n") == ["a", "b", ""]
    assert read(tmp_path / "p.sql", "\n\n\n\n") == ["", "", ""]
    assert read(tmp_path / "p.json", {"10": None, "11": 0, "12": "c"}) == ["", "", "c"]


def test_nul_bytes_are_kept(tmp_path: Path) -> None:
    assert read(tmp_path / "p.sql", "a\x00b\nb\nc") == ["a\x00b", "b", "c"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.sql", "a\nb", "2 predictions for 3 questions"),
        ("p.sql", "a\nb\nc\nd", "4 predictions for 3 questions"),
        ("p.sql", "", "1 predictions for 3|0 predictions for 3"),
        ("p.sql", "a\tzoo\nb\tzoo\nc\tshop", "line 1 is for zoo, but question 10 asks shop"),
        ("p.json", {"10": "a", "11": "b"}, "lacks 1 of 3 questions, such as 12"),
        ("p.json", {"10": "a", "11": "b", "99": "c"}, "1 ids that belong to no question, such as 99"),
        ("p.json", {"10": f"a{BIRD_SEPARATOR}zoo", "11": "b", "12": "c"}, "10 is for zoo"),
        ("p.json", {"10": ["a"], "11": "b", "12": "c"}, "10 is a list"),
        ("p.json", "3", "holds int"),
        ("p.json", "{", "not JSON"),
        ("p.json", [["a"], "b", "c"], "10 is a list"),
        ("p.jsonl", '{"id": 1', "line 1 is not JSON"),
        ("p.jsonl", '{"sql": "a"}', "record 1 has no id"),
        ("p.jsonl", '{"id": 10}', "record 1 has neither"),
        ("p.jsonl", '{"id": 10, "sql": "a"}\n{"id": 10, "sql": "a"}', "has id 10 twice"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path / name, content)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        read_predictions(tmp_path / "none.sql", items=ITEMS, all_items=ITEMS)
    (tmp_path / "p.sql").write_bytes(b"\xff\xfe\n")
    with pytest.raises(DataError, match="is UTF-16"):
        read_predictions(tmp_path / "p.sql", items=ITEMS, all_items=ITEMS)
    (tmp_path / "p.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="is not JSON"):
        read_predictions(tmp_path / "p.json", items=ITEMS, all_items=ITEMS)


def test_a_line_that_is_not_utf8_fails_alone(tmp_path: Path) -> None:
    lines = [b"SELECT 1" for _ in ITEMS]
    lines[1] = b"SELECT 'caf\xe9'"
    (tmp_path / "p.sql").write_bytes(b"\n".join(lines) + b"\n")
    with pytest.warns(UserWarning, match="1 lines are not UTF-8"):
        read = read_predictions(tmp_path / "p.sql", items=ITEMS, all_items=ITEMS)
    assert read.queries == ["SELECT 1" if place != 1 else "SELECT 'caf\udce9'" for place in range(len(ITEMS))]


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        ("SELECT a\nFROM\tt", "SELECT a FROM t"),
        ("SELECT a -- all of it\nFROM t", "SELECT a   FROM t"),
        ("SELECT '--\t' /* x\n */ FROM t", "SELECT '-- '   FROM t"),
        ("SELECT 'it''s -- so', \"a--b\", `c--d`", "SELECT 'it''s -- so', \"a--b\", `c--d`"),
        ("SELECT a -- open", "SELECT a"),
        ("SELECT 'open -- string", "SELECT 'open -- string"),
        ("", ""),
    ],
)
def test_one_line(sql: str, line: str) -> None:
    assert one_line(sql) == line


def test_submission_forms_are_read_back(tmp_path: Path) -> None:
    queries = ["SELECT a\nFROM t", "", "SELECT 'x\u2028y'"]
    write_spider(tmp_path / "p.sql", queries)
    assert read_predictions(tmp_path / "p.sql", items=ITEMS, all_items=ITEMS).queries == [
        "SELECT a FROM t",
        NO_PREDICTION,
        "SELECT 'x y'",
    ]
    write_bird(tmp_path / "p.json", queries, items=ITEMS)
    assert read_predictions(tmp_path / "p.json", items=ITEMS, all_items=ITEMS).queries == queries
    content = json.loads((tmp_path / "p.json").read_text())
    assert next(iter(content.items())) == ("10", "SELECT a\nFROM t\t----- bird -----\tshop")


def test_names(tmp_path: Path) -> None:
    (tmp_path / "my_run").mkdir()
    for path, name in ((tmp_path / "my_run" / "predictions.jsonl", "my_run"), (tmp_path / "gpt.sql", "gpt")):
        path.write_text(
            "\n".join(json.dumps({"id": i, "prediction": "a"}) for i in (10, 11, 12)) if name == "my_run" else "a\nb\nc"
        )
        assert read_predictions(path, items=ITEMS, all_items=ITEMS).name == name
