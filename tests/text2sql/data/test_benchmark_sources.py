"""Spider and BIRD: what is read, what is left out, what is held out."""

import json
import sqlite3
from pathlib import Path
from typing import Literal

import pytest

from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.data.bird import Bird
from tutelage.text2sql.data.spider import Spider
from tutelage.text2sql.evaluation.gold import load_benchmark

Variant = Literal["syn", "realistic", "dk"]


def database(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a INTEGER, b TEXT)")
    connection.close()


@pytest.fixture
def spider_root(tmp_path: Path) -> Path:
    """Three training databases, two dev databases of which one is missing."""
    for name in ("alpha", "beta", "gamma", "delta"):
        database(tmp_path / "database" / name / f"{name}.sqlite")
    train = [
        {"db_id": db, "question": f"Q  {db}\n{n}?", "query": "SELECT a FROM t"}
        for db in ("alpha", "beta")
        for n in range(2)
    ]
    others = [{"db_id": db, "question": "Q?", "query": "SELECT b FROM t"} for db in ("gamma", "lost_train")]
    dev = [{"db_id": db, "question": "Q?", "query": "SELECT 1"} for db in ("delta", "lost", "delta", "lost", "lost")]
    for name, items in (("train_spider", train), ("train_others", others), ("dev", dev)):
        (tmp_path / f"{name}.json").write_text(json.dumps(items))
    return tmp_path


def test_spider_splits(spider_root: Path) -> None:
    source = Spider(root=str(spider_root), val_databases=1)
    (held_out,) = source.notes["val_databases"]
    assert {e.db_id for e in source.split("val")} == {held_out}
    assert {e.db_id for e in source.split("train")} == {"alpha", "beta", "gamma"} - {held_out}
    assert [e.id for e in source.split("test")] == ["spider/dev/0", "spider/dev/2"]
    assert source.notes["missing_databases"] == ["lost", "lost_train"]
    assert source.notes["questions_without_database"] == 4
    assert source.notes["doubtful_databases"] == []
    first = Spider(root=str(spider_root), val_databases=0).split("train")[0]
    assert (first.id, first.question, first.sql) == ("spider/train_spider/0", "Q alpha 0?", "SELECT a FROM t")
    assert [c.name for c in source.catalog("delta").table("t").columns] == ["a", "b"]
    assert source.catalog("delta") is source.catalog("delta")


def test_the_choice_of_validation_databases_is_a_function_of_its_seed(spider_root: Path) -> None:
    chosen = {
        tuple(Spider(root=str(spider_root), val_databases=1, split_seed=s).notes["val_databases"]) for s in range(9)
    }
    assert chosen == {("alpha",), ("beta",), ("gamma",)}
    first, again = (Spider(root=str(spider_root), val_databases=2, split_seed=3) for _ in range(2))
    assert first.notes == again.notes
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != Spider(root=str(spider_root), val_databases=1, split_seed=3).fingerprint


def test_what_is_wrong_with_a_folder_is_said(spider_root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.val_databases: 3 of 3 training databases would leave none"):
        Spider(root=str(spider_root), val_databases=3)
    with pytest.raises(DataError, match=r"data\.root: no train_spider\.json in"):
        Spider(root=str(tmp_path / "nowhere"))
    (spider_root / "dev.json").write_text('[{"db_id": "delta", "question": "Q?"}]')
    with pytest.raises(DataError, match=r"item 0 of .*dev\.json has no text 'query'"):
        Spider(root=str(spider_root))
    (spider_root / "dev.json").write_text('[{"db_id":')
    with pytest.raises(DataError, match="is not JSON"):
        Spider(root=str(spider_root))
    (spider_root / "dev.json").write_text('[{"db_id": "lost", "question": "Q?", "query": "SELECT 1"}]')
    with pytest.raises(DataError, match=r"no <db_id>/<db_id>\.sqlite in"):
        Spider(root=str(spider_root))


def test_a_bad_item_is_left_out_and_named(spider_root: Path) -> None:
    items = [{"db_id": "delta"}, {"db_id": "delta", "question": "Q?", "query": "SELECT 1"}]
    (spider_root / "dev.json").write_text(json.dumps(items))
    with pytest.warns(
        UserWarning, match=r"1 of 2 questions are left out: item 0 of .*dev\.json has no text 'question'"
    ):
        source = Spider(root=str(spider_root), val_databases=0)
    assert [e.id for e in source.split("test")] == ["spider/dev/1"]


def test_variants_are_found_by_name(spider_root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("variants")
    with pytest.raises(DataError, match=r"data\.variants: no questions of Spider's variant 'syn': looked for .*Syn"):
        Spider(root=str(spider_root), test="syn", variants=str(folder))
    with pytest.raises(ConfigError, match=r"data\.variants: no folder"):
        Spider(root=str(spider_root), test="syn", variants=str(folder / "nowhere"))
    database(folder / "spider_dk/database/new/new.sqlite")
    asked = [("delta", "Q?"), ("new", "Who?"), ("delta", "Which?")]
    items = json.dumps([{"db_id": db, "question": text, "query": "SELECT a FROM t"} for db, text in asked])
    (folder / "spider_dk/Spider-DK.json").write_text(items)
    source = Spider(root=str(spider_root), test="dk", variants=str(folder), val_databases=0)
    assert [e.id for e in source.split("test")] == ["spider/dk/0", "spider/dk/1", "spider/dk/2"]
    assert source.databases["new"] == folder / "spider_dk/database/new/new.sqlite"
    assert source.notes["questions_as_in_dev"] == 1
    (spider_root / "tables.json").write_text("[]")
    benchmark = load_benchmark("spider", root=spider_root, split="dk", on_missing="error", variants=folder)
    assert [item.db_id for item in benchmark.items] == ["delta", "new", "delta"]


@pytest.mark.parametrize(
    ("test", "count", "as_in_dev"), [("syn", 1034, 155), ("realistic", 508, 152), ("dk", 535, None)]
)
def test_the_real_variants(shared_data: Path, test: Variant, count: int, as_in_dev: int | None) -> None:
    if not (shared_data / "spider_variants").is_dir():
        pytest.skip(f"no variants of Spider at {shared_data / 'spider_variants'}")
    source = Spider(root=str(shared_data / "spider"), test=test)
    assert source.notes["questions"]["test"] == count
    assert source.notes["missing_databases"] == []
    assert as_in_dev is None or source.notes["questions_as_in_dev"] == as_in_dev
    benchmark = load_benchmark("spider", root=shared_data / "spider", split=test, on_missing="error")
    assert [item.question for item in benchmark.items[:1]] == [source.split("test")[0].question]


def test_a_database_that_vanishes_later(spider_root: Path) -> None:
    source = Spider(root=str(spider_root), val_databases=0)
    source.databases["delta"].unlink()
    with pytest.raises(DataError, match="no file"):
        source.catalog("delta")


def test_bird_evidence_and_difficulty(tmp_path: Path) -> None:
    database(tmp_path / "dev_databases" / "here" / "here.sqlite")
    meanings = tmp_path / "dev_databases" / "here" / "database_description"
    meanings.mkdir()
    (meanings / "t.csv").write_text("original_column_name,column_name,column_description\na,,the first letter\n")
    items = [
        {
            "question_id": 7,
            "db_id": "here",
            "question": "Q?",
            "evidence": "a  is one",
            "SQL": "SELECT a FROM t",
            "difficulty": "simple",
        },
        {
            "question_id": 8,
            "db_id": "gone",
            "question": "Q?",
            "evidence": "",
            "SQL": "SELECT 1",
            "difficulty": "moderate",
        },
    ]
    (tmp_path / "dev.json").write_text(json.dumps(items))
    source = Bird(root=str(tmp_path))
    (example,) = source.split("test")
    assert (example.id, example.evidence, example.difficulty) == ("bird/dev/7", "a is one", "simple")
    assert source.split("train") == source.split("val") == []
    assert source.notes["missing_databases"] == ["gone"]
    assert source.notes["questions_without_database"] == 1
    assert source.catalog("here").column("t", "a").description == "the first letter"
    without = Bird(root=str(tmp_path), evidence=False)
    assert without.split("test")[0].evidence == ""
    assert without.fingerprint != source.fingerprint


def test_bird_train_is_read_where_it_is(tmp_path: Path) -> None:
    for part, name in (("dev_databases", "d"), ("train/train_databases", "a"), ("train/train_databases", "b")):
        database(tmp_path / part / name / f"{name}.sqlite")
    (tmp_path / "dev.json").write_text(json.dumps([{"db_id": "d", "question": "Q?", "SQL": "SELECT 1"}]))
    train = [{"db_id": name, "question": "Q?", "SQL": "SELECT 1", "evidence": None} for name in ("a", "b")]
    (tmp_path / "train" / "train.json").write_text(json.dumps(train))
    source = Bird(root=str(tmp_path), val_databases=1)
    assert [len(source.split(name)) for name in ("train", "val", "test")] == [1, 1, 1]
    assert {source.split("train")[0].id, source.split("val")[0].id} == {"bird/train/0", "bird/train/1"}


def test_the_real_spider(shared_data: Path) -> None:
    if not (shared_data / "spider" / "dev.json").is_file():
        pytest.skip(f"no Spider at {shared_data / 'spider'}")
    source = Spider(root=str(shared_data / "spider"))
    assert source.notes["questions"] == {
        "train": 8659 - len(source.split("val")),
        "val": len(source.split("val")),
        "test": 1034,
    }
    assert len(source.notes["val_databases"]) == 10
    # They hold no rows: there any query that runs would be right.
    assert not {"academic", "geo", "imdb", "yelp", "scholar", "restaurants"} & set(source.notes["val_databases"])
    assert source.notes["doubtful_databases"] == ["wta_1"]
    assert source.notes["missing_databases"] == []
    assert not {e.db_id for e in source.split("train")} & {e.db_id for e in source.split("test")}


def test_the_real_bird(shared_data: Path) -> None:
    if not (shared_data / "bird" / "dev.json").is_file():
        pytest.skip(f"no BIRD at {shared_data / 'bird'}")
    source = Bird(root=str(shared_data / "bird"))
    assert source.notes["questions"]["test"] == 129
    assert source.notes["questions_without_database"] == 1534 - 129
    assert len(source.notes["missing_databases"]) == 10
    assert source.catalog("superhero").column("colour", "colour").description.startswith("the color of the superhero")
    root = str(shared_data / "bird")
    mini = Bird(root=root, questions="mini_dev")
    assert mini.notes["questions"]["test"] == 52
    corrected = {e.id.rpartition("/")[2]: e for e in Bird(root=root, questions="corrected").split("test")}
    changed = [e.sql != corrected[e.id.rpartition("/")[2]].sql for e in mini.split("test")]
    assert (len(corrected), sum(changed)) == (52, 2)
