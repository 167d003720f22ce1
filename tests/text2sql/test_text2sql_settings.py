"""Each published setting of conf/experiment/ trains three steps and is tested, on a small tree of the true layout."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from tutelage.core.curves import read_curves
from tutelage.core.run import train

EXPERIMENTS = Path(__file__).resolve().parents[2] / "conf" / "experiment"
NAMES = ["spider_omnisql", "spider_db_explore", "bird_omnisql", "bird_db_explore"]


def write_database(path: Path, *, rows: int) -> None:
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE singer (singer_id INTEGER PRIMARY KEY, name TEXT, age INTEGER)")
        connection.execute(
            "CREATE TABLE song (song_id INTEGER PRIMARY KEY, singer_id INTEGER REFERENCES singer, title TEXT)"
        )
        connection.executemany("INSERT INTO singer VALUES (?, ?, ?)", [(i, f"name {i}", 20 + i) for i in range(rows)])
        connection.executemany(
            "INSERT INTO song VALUES (?, ?, ?)", [(i, i % rows, f"title {i}") for i in range(2 * rows)]
        )
    connection.close()


def questions(databases: list[str], count: int, *, key: str) -> list[dict[str, Any]]:
    rest = {"evidence": "", "difficulty": "simple"}
    return [
        {
            "question_id": n,
            "db_id": db,
            "question": f"How many singers are older than {n}?",
            key: f"SELECT count(*) FROM singer WHERE age > {n}",
            **rest,
        }
        for db in databases
        for n in range(count)
    ]


def write_spider(root: Path) -> None:
    training = [f"concert_{i}" for i in range(30)]  # twenty are kept out for selection
    for name in [*training, "tested"]:
        write_database(root / "database" / name / f"{name}.sqlite", rows=6)
    for file, items in (
        ("train_spider", questions(training, 2, key="query")),
        ("train_others", []),
        ("dev", questions(["tested"], 3, key="query")),
    ):
        (root / f"{file}.json").write_text(json.dumps(items))


def write_bird(root: Path) -> None:
    training = [f"concert_{i}" for i in range(30)]
    for folder, names in ((root / "train" / "train_databases", training), (root / "dev_databases", ["tested"])):
        for name in names:
            write_database(folder / name / f"{name}.sqlite", rows=6)
    (root / "train" / "train.json").write_text(json.dumps(questions(training, 2, key="SQL")))
    (root / "dev.json").write_text(json.dumps(questions(["tested"], 3, key="SQL")))


def test_each_setting_on_databases_is_tried() -> None:
    files = {path.stem for path in EXPERIMENTS.glob("*.yaml") if "text2sql" in path.read_text()}
    assert files == set(NAMES)


@pytest.mark.slow  # ten seconds each
@pytest.mark.parametrize("name", NAMES)
def test_three_steps(name: str, compose_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    """What the machine and the hour do not allow is set as a user would set it; the rest is the setting's own."""
    data = tmp_path / "data"
    data.mkdir()
    write_spider(data) if name.startswith("spider") else write_bird(data)
    small = [
        f"data.root={data}", "model=tiny", "trainer=cpu", "trainer.max_steps=3", "trainer.max_epochs=3",
        "trainer.check_val_every_n_epoch=1", "trainer.progress_bar=false", "trainer.log_every_n_steps=1",
        "data.batch_size=2", "data.max_length=1024",
        "data.val_size=2", "inference.max_new_tokens=8", "explore.walks=16",
    ]  # fmt: skip
    metrics = train(compose_config(f"experiment={name}", *small), folder=tmp_path / "run")
    assert metrics["test/ex"] >= 0
    assert [step for step, _ in read_curves(tmp_path / "run")["train/loss"]] == [0, 1, 2]
