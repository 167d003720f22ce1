"""Prediction files full of what is no answer, through evaluate.py: every item is scored, and the report opens."""

import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hostile import ENDLESS, STATEMENTS, SURROGATES

ROOT = Path(__file__).resolve().parents[3]
# Cells of 10 MB, and little that takes long to be refused; the slow test below has limits as wide as users'.
NARROW = ["limits.seconds=1", "limits.bytes=12000000", "limits.memory_mb=512", "workers=3"]
WIDE = ["limits.seconds=2", "limits.bytes=40000000", "limits.memory_mb=1024", "workers=2"]


class Page(HTMLParser):
    """Counts the tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self.closed[tag] += 1


def evaluate(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    places = [f"store={folder / 'store'}", f"run={folder / 'run'}"]
    return subprocess.run(
        [sys.executable, "evaluate.py", "task=text2sql", *places, *overrides],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def ask_as_often(path: Path, times: int) -> None:
    """Repeat the first question of a benchmark, with ids of their own."""
    first = json.loads(path.read_text())[0]
    path.write_text(json.dumps([{**first, "question_id": number} for number in range(times)]))


def check_files(folder: Path, count: int) -> list[dict[str, str]]:
    """Whether the three files are whole, and read by what users read them with."""
    with (folder / "items.csv").open(newline="", encoding="utf-8") as file:
        items = list(csv.DictReader(file))
    assert len(items) == count
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert scores["items"] == count
    assert sum(scores["systems"][0]["statuses"].values()) == count
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]", text)
    assert len(text) < 4_000_000
    page = Page()
    page.feed(text)
    assert {tag: page.open[tag] for tag in ("table", "details", "pre", "div")} == {
        tag: page.closed[tag] for tag in ("table", "details", "pre", "div")
    }
    assert page.open["script"] == 0
    return items


def test_there_are_enough_of_them() -> None:
    assert len(set(STATEMENTS)) == len(STATEMENTS) >= 160


def test_spider_as_text(spider_root: Path, tmp_path: Path) -> None:
    ask_as_often(spider_root / "dev.json", len(STATEMENTS))
    # One line each, as bytes: a lone surrogate is no UTF-8.
    lines = [re.sub(r"[\r\n]", " ", sql).encode("utf-8", "surrogatepass") for sql in STATEMENTS]
    (tmp_path / "mine.sql").write_bytes(b"\n".join(lines) + b"\n")
    ran = evaluate(tmp_path, "data=spider", f"data.root={spider_root}", f"predictions={tmp_path / 'mine.sql'}", *NARROW)
    assert ran.returncode == 0, ran.stderr
    assert f"{len(SURROGATES)} lines" in ran.stderr  # said, since it may be the file that is damaged
    items = check_files(tmp_path / "run", len(STATEMENTS))
    statuses = {sql: item["status"] for sql, item in zip(STATEMENTS, items, strict=True)}
    assert {statuses[sql] for sql in SURROGATES} == {"error"}
    assert {statuses[sql] for sql in ENDLESS} == {"timeout"}
    assert statuses["SELECT char(0)"] == statuses["SELECT CAST(x'ff' AS TEXT)"] == "wrong"
    assert statuses["ATTACH 'evil.sqlite' AS evil"] == "refused"
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.slow
def test_bird_as_json(bird_root: Path, tmp_path: Path) -> None:
    ask_as_often(bird_root / "dev.json", len(STATEMENTS))
    (tmp_path / "mine.json").write_text(json.dumps({str(number): sql for number, sql in enumerate(STATEMENTS)}))
    ran = evaluate(tmp_path, "data=bird", f"data.root={bird_root}", f"predictions={tmp_path / 'mine.json'}", *WIDE)
    assert ran.returncode == 0, ran.stderr
    items = check_files(tmp_path / "run", len(STATEMENTS))
    statuses = {sql: (item["status"], item["status_strict"]) for sql, item in zip(STATEMENTS, items, strict=True)}
    # BIRD's scorer fails on text that is not UTF-8; the strict one reads it.
    assert statuses["SELECT CAST(x'ff' AS TEXT)"] == ("error", "wrong")
    assert {statuses[sql] for sql in SURROGATES} == {("error", "error")}
    assert {statuses[sql] for sql in ENDLESS} == {("timeout", "timeout")}
