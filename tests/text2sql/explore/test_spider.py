"""What the study in experiments/explore_spider claims, on one small database of Spider."""

import json
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tutelage.core.store import Store
from tutelage.text2sql.explore import config
from tutelage.text2sql.explore.guard import plain
from tutelage.text2sql.explore.pair import read_pairs
from tutelage.text2sql.explore.pipeline import explore

CONF = Path(__file__).resolve().parents[3] / "conf"


def test_pairs_of_a_spider_database_run_and_are_none_of_its_questions(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "spider"
    database = root / "database" / "course_teach" / "course_teach.sqlite"
    if not database.exists():
        pytest.skip(f"no Spider in {shared_data}")
    gold = [item for item in json.loads((root / "dev.json").read_text()) if item["db_id"] == "course_teach"]
    guard = tmp_path / "guard.json"
    guard.write_text(json.dumps([{"question": item["question"], "query": item["query"]} for item in gold]))
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [f"database='{database}'", f"guard=['{guard}']", "walks=48", "per_level=20", "limits.workers=0"]
        settings = config.explore_settings(compose("explore", overrides=overrides))
    pairs = read_pairs(explore(settings, store=Store(tmp_path), out=tmp_path / "out", say=lambda _: None))
    # Its three tables of three, three and four columns give 29 projections that dev does not ask for.
    assert Counter(pair.level for pair in pairs) == {1: 20, 2: 20, 3: 20, 4: 20, 5: 20}
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    assert all(connection.execute(pair.sql).fetchone() is not None for pair in pairs)
    connection.close()
    assert not {plain(pair.question) for pair in pairs} & {plain(item["question"]) for item in gold}
    queries = {" ".join(item["query"].lower().split()) for item in gold}
    assert not {" ".join(pair.sql.lower().split()) for pair in pairs} & queries
