"""One page about one system: each set by its rules, what is missing by name, synonyms, corrected labels."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.store import Store
from tutelage.text2sql.data.scorecard import SETS, Scorecard
from tutelage.text2sql.model.tiny import Tiny
from tutelage.text2sql.results.operators import UNPARSED, operators_of
from tutelage.text2sql.task import Text2SqlTask

Compose = Callable[..., DictConfig]


@pytest.fixture
def roots(spider_root: Path, bird_root: Path) -> list[str]:
    """Spider with Syn (one question in other words, one with another gold), BIRD with one corrected label."""
    dev = json.loads((spider_root / "dev.json").read_text())
    syn = [dict(item) for item in dev]
    syn[0]["question"], syn[4]["question"] = "How many stores?", "Stores of Bonn?"
    syn[2] = {**syn[2], "question": "Titles?", "query": "SELECT city FROM shop"}
    (spider_root / "spider_syn_dev.json").write_text(json.dumps(syn))
    bird = json.loads((bird_root / "dev.json").read_text())
    corrected = [{**bird[0], "SQL": "SELECT DISTINCT city FROM shop"}, bird[2]]
    (bird_root / "mini_dev_cleaned_superhero.json").write_text(json.dumps(corrected))
    return [f"data.spider={spider_root}", f"data.bird={bird_root}"]


@pytest.mark.parametrize(
    ("sql", "kinds"),
    [
        ("SELECT a FROM t WHERE a = 1", ("one table, no operator",)),
        ("SELECT a FROM t UNION SELECT b FROM u", ("UNION, INTERSECT, EXCEPT",)),
        ("SELECT count(*) FROM a, b, c GROUP BY x", ("JOIN", "GROUP BY", "aggregate", "two JOINs or more")),
        ("SELECT a FROM t WHERE a > (SELECT avg(a) FROM t)", ("aggregate", "subquery")),
        ("WITH x AS (SELECT a FROM t) SELECT a FROM x LIMIT 1", ("LIMIT", "WITH")),
        ("SELECT FROM ((", (UNPARSED,)),
    ],
)
def test_operators(sql: str, kinds: tuple[str, ...]) -> None:
    assert operators_of(sql) == kinds


def test_a_folder_of_predictions(
    roots: list[str], compose_config: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "mine", tmp_path / "out"
    folder.mkdir()
    (folder / "spider_dev.sql").write_text("SELECT count(*) FROM shop\n\n\n\nSELECT name , id FROM shop WHERE id < 3\n")
    (folder / "spider_syn.json").write_text(
        json.dumps(["SELECT 7", "", "", "", "SELECT name , id FROM shop WHERE id < 3"])
    )
    names = "SELECT name FROM shop"
    (folder / "bird_dev.json").write_text(json.dumps({"10": names, "11": "", "12": "", "13": ""}))
    (folder / "bird_corrected.json").write_text(json.dumps({"10": names, "12": ""}))
    cfg = compose_config(
        "task=text2sql", "data=scorecard", *roots, f"predictions={folder}", f"out={out}", primary="evaluate"
    )
    metrics = Text2SqlTask.score(cfg, folder=tmp_path / "unused")
    assert metrics["spider_dev/execution"] == 40.0 and metrics["bird_corrected/ex"] == 0.0
    found = json.loads((out / "scorecard.json").read_text())
    assert list(found["sets"]) == ["spider_dev", "spider_syn", "bird_dev", "bird_corrected"]
    assert found["absent"] == {
        "spider_realistic": f"no spider_realistic.* in {folder}",
        "spider_dk": f"no spider_dk.* in {folder}",
        **{name: f"no {name}.* in {folder}" for name in ("defog_sqlite", "defog_duckdb", "defog_postgresql")},
    }
    assert found["synonyms"] == {
        "asked": 2,
        "same_words": 2,
        "other_gold": 1,
        "other_sql": 1,
        "right_before": 2,
        "right_after": 1,
        "only_before": 1,
        "only_after": 0,
        "p_value": 1.0,
    }
    assert found["corrected"]["items"] == 2
    assert found["corrected"]["flips"] == [{"id": "10", "before": True, "after": False, "changed": ["SQL"]}]
    assert found["sets"]["bird_dev"]["without_database"] == {"absent": 1}
    assert found["sets"]["spider_dev"]["metrics"]["execution"]["gold"]["value"] == 100.0
    assert found["sets"]["spider_dev"]["by_operator"]["DISTINCT"]["items"] == 1
    page = (out / "scorecard.html").read_text()
    assert "Spider-DK" in page and "not scored: no spider_dk.* in" in page and "1 verdicts change" in page
    assert (out / "spider_dev/report.html").is_file() and (out / "bird_dev/items.csv").is_file()
    assert "Spider-Realistic" in capsys.readouterr().out
    with pytest.raises(DataError, match="Name the files by their sets: spider_dev, spider_syn"):
        Text2SqlTask.score(
            compose_config("task=text2sql", "data=scorecard", *roots, f"predictions={out}", primary="evaluate"),
            folder=tmp_path / "unused",
        )


def test_a_model_as_it_is(roots: list[str], compose_config: Compose, tmp_path: Path) -> None:
    weights = Tiny(vocabulary=300, hidden_size=32, layers=1, heads=2, context=512).folder(
        Store(tmp_path / "weights"), texts=["SELECT name FROM shop"], seed=1
    )
    out = tmp_path / "out"
    given = ["task=text2sql", "data=scorecard", *roots, "model=smollm2_135m", f"model.path={weights}", "trainer=cpu"]
    given += ["inference.max_new_tokens=4", "trainer.progress_bar=false", "prompt.max_tokens=450", f"out={out}"]
    metrics = Text2SqlTask.score(compose_config(*given, primary="evaluate"), folder=tmp_path / "unused")
    assert metrics["test/ex_count"] == 5 + 5 + 3 + 2
    found = json.loads((out / "scorecard.json").read_text())
    assert list(found["sets"]) == ["spider_dev", "spider_syn", "bird_dev", "bird_corrected"]
    assert found["sets"]["spider_syn"]["metrics"]["execution"]["system"]["items"] == 5
    assert found["absent"]["defog_sqlite"] == "data.defog is not given"
    assert found["absent"]["spider_dk"].startswith("data.variants: no questions of Spider's variant 'dk'")


def test_sets_keep_their_databases_apart(roots: list[str], spider_root: Path, bird_root: Path, tmp_path: Path) -> None:
    source = Scorecard(spider=str(spider_root), bird=str(bird_root), defog=str(tmp_path / "nowhere"))
    assert sorted(source.databases) == ["bird/shop", "spider/shop"]
    assert source.catalog("bird/shop").table("raw") and source.notes["absent"].keys() == SETS.keys() - {
        "spider_dev",
        "spider_syn",
        "bird_dev",
        "bird_corrected",
    }
    assert {e.id.rpartition("/")[0] + "/" for e in source.split("test")} == {
        SETS[name].prefix for name in ("spider_dev", "spider_syn", "bird_dev", "bird_corrected")
    }
    with pytest.raises(ConfigError, match="no folder of any set"):
        Scorecard()
    with pytest.raises(DataError, match="no set is at hand"):
        Scorecard(defog=str(tmp_path / "nowhere"))
