"""items.csv, whatever the text in it."""

from pathlib import Path

from tutelage.core.store import write_atomically
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.results.benchmark_report import visible
from tutelage.text2sql.results.items import Item, read_items, write_items


def test_any_text_is_written_and_read(tmp_path: Path) -> None:
    texts = ["a\x00b", "x" * 300_000, "line\r\nline\rline", 'a,"b"', "é 🙂 \u2028"]
    items = [Item(Example(f"{i}", "d", text, "SELECT 1"), text, False, "error", text) for i, text in enumerate(texts)]
    write_items(tmp_path / "items.csv", items)
    rows = read_items(tmp_path / "items.csv")
    assert [(row["question"], row["sql"], row["error"]) for row in rows] == [(text, text, text) for text in texts]
    write_items(tmp_path / "items.csv", [Item(Example("0", "d", "?", None), "\ud800", None, "error", "\udcff")])
    (row,) = read_items(tmp_path / "items.csv")
    assert (row["sql"], row["error"], row["right"]) == ("\\ud800", "\\udcff", "")


def test_a_lone_surrogate_is_its_own_escape_in_json(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.json", '{"a": "\udcff"}')
    assert (tmp_path / "a.json").read_bytes() == b'{"a": "\\udcff"}'


def test_what_a_page_cannot_hold_is_shown_by_its_number() -> None:
    assert visible("a\x00b\x1b[31m\ud800\ufffe\x85\n\té🙂") == "a\\x00b\\x1b[31m\\ud800\\ufffe\\x85\n\té🙂"
