"""The task from end to end on a small database of one's own, and what is refused before the long part."""

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from api_server import completion, send, serve
from omegaconf import DictConfig
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, MistralConfig

from tutelage.core import run
from tutelage.core.callbacks import BEST, CHECKPOINTS, LAST
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.evaluate import compare, evaluate
from tutelage.core.results import read_metrics
from tutelage.core.store import Store
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.database.executor import Executor
from tutelage.text2sql.evaluation.score import score_predictions
from tutelage.text2sql.model.adapters import QLora
from tutelage.text2sql.model.tiny import Tiny
from tutelage.text2sql.results.benchmark_report import table
from tutelage.text2sql.results.items import Item, read_items, write_items
from tutelage.text2sql.results.report import groups
from tutelage.text2sql.results.scoring import LIMITS, ExecutionScorer, accuracy
from tutelage.text2sql.task import Text2SqlTask, load_run
from tutelage.text2sql.training.module import Text2SqlModule

Compose = Callable[..., DictConfig]
Script = Callable[..., subprocess.CompletedProcess[str]]
CITIES = ("Rome", "Oslo", "Lima", "Bern", "Kiev", "Cairo", "Delhi", "Paris")
SMALL = [
    "task=text2sql", "data=own", "trainer=cpu", "trainer.progress_bar=false", "trainer.max_epochs=2",
    "model.vocabulary=400", "model.hidden_size=32", "model.layers=2", "model.heads=2", "model.context=256",
    "data.max_length=256", "data.batch_size=2", "data.val_size=4", "inference.max_new_tokens=24",
]  # fmt: skip


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """A database of people in cities, an explored folder and two test questions, as overrides."""
    database = tmp_path / "people.sqlite"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE person (name TEXT, city TEXT, age INTEGER)")
        rows = [(f"p{i}", city, 20 + i) for i, city in enumerate(CITIES)]
        connection.executemany("INSERT INTO person VALUES (?, ?, ?)", rows)
    connection.close()
    explored = tmp_path / "explored"
    explored.mkdir()
    asked = [(f"Who lives in {city}?", f"SELECT name FROM person WHERE city = '{city}'") for city in CITIES]
    columns = ("name", "city", "age")
    asked += [(f"Show every {c} by {o}", f"SELECT {c} FROM person ORDER BY {o}") for c in columns for o in columns]
    asked += [
        (f"Count {c} over {n}", f"SELECT count({c}) FROM person WHERE age > {n}") for c in columns for n in (3, 9)
    ]
    asked += [(f"The {w} age", f"SELECT {w}(age) FROM person") for w in ("min", "max", "avg", "sum")]
    with (explored / "pairs.jsonl").open("w") as file:
        for i, (question, sql) in enumerate(asked):
            pair = {
                "id": f"{i}", "db_id": "people", "level": 1 + i % 3, "question": question, "sql": sql, "operators": [],
                "sampler": "mix", "parent": None, "walk": i, "columns": [], "tables": ["person"], "state": {},
            }  # fmt: skip
            file.write(json.dumps(pair) + "\n")
    test = tmp_path / "test.jsonl"
    golds = [("How many people?", "SELECT count(*) FROM person"), ("Oldest?", "SELECT max(age) FROM person")]
    test.write_text("".join(json.dumps({"question": q, "sql": s}) + "\n" for q, s in golds))
    return [f"data.database={database}", f"data.explored={explored}", f"data.test={test}"]


def test_groups_go_from_easy_to_hard() -> None:
    asked = [("extra", "", "0"), ("easy", "", "1"), ("easy", "", "0"), ("hard", "", "1"), ("medium", "", "")]
    items = [{"difficulty": d, "level": v, "right": r, "source": "people"} for d, v, r in asked]
    items += [{"difficulty": "", "level": level, "right": "1", "source": "explored"} for level in "21"]
    assert groups(items) == [
        ("easy", 2, 50.0), ("hard", 1, 100.0), ("extra", 1, 0.0),
        ("explored, level 1", 1, 100.0), ("explored, level 2", 1, 100.0),
    ]  # fmt: skip


def test_from_questions_to_a_score(own: list[str], compose_config: Compose, tmp_path: Path, capsys: Any) -> None:
    cfg = compose_config(*SMALL, *own, "method.held_out=0.3", "report.base=true", "logger=tensorboard")
    folder = tmp_path / "run"
    metrics = run.train(cfg, folder=folder)
    logged = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert logged.Scalars("test/ex")[0].value == pytest.approx(metrics["test/ex"])
    texts = {
        name: logged.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0] for name in ("results", "examples")
    }
    assert b"people's questions (2)" in texts["results"] and b"How many people?" in texts["examples"]
    assert metrics["test/ex_count"] == 2
    assert metrics["base/test/ex"] == 0.0  # random weights write no query
    assert metrics["test/ex_held_out_count"] >= 2
    printed = capsys.readouterr().out
    assert "people's questions (2)" in printed
    assert "base model, untrained" in printed
    predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == metrics["test/ex_count"] + metrics["test/ex_held_out_count"]
    assert {"id", "db_id", "sql", "candidates"} <= predictions[0].keys()
    with (folder / "items.csv").open() as file:
        items = list(csv.DictReader(file))
    assert len(items) == len(predictions)
    page = (folder / "report.html").read_text()
    assert "Explored: what explored holds" in page and "<svg" in page
    right = sum(item["right"] == "1" for item in items)
    assert page.count('<div class="pairs') == min(5, right) + min(5, len(items) - right)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["corpus"]["seeds"] == 0

    # What was saved is the best checkpoint, and transformers opens it.
    saved = AutoModelForCausalLM.from_pretrained(folder / "model")
    state = torch.load(folder / CHECKPOINTS / BEST, weights_only=True)["state_dict"]
    for name, parameter in saved.named_parameters():
        torch.testing.assert_close(parameter, state[f"model.network.{name}"], rtol=0, atol=0)
    loaded = load_run(folder, device="cpu")
    for name, parameter in loaded.model.causal.named_parameters():
        torch.testing.assert_close(parameter, state[f"model.network.{name}"], rtol=0, atol=0)
    assert evaluate(folder)["test/ex_held_out"] == metrics["test/ex_held_out"]


def questions(path: Path, asked: list[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"question": q, "sql": s}) + "\n" for q, s in asked))
    return path


@pytest.fixture
def train_questions(tmp_path: Path) -> Path:
    """Six questions that people wrote, of five query templates."""
    asked = [(f"Who is from {city}?", f"SELECT name FROM person WHERE city = '{city}'") for city in CITIES[:2]]
    asked += [(f"The {c} of all?", f"SELECT {c} FROM person") for c in ("name", "city", "age")]
    return questions(tmp_path / "train.jsonl", [*asked, ("How old on average?", "SELECT avg(age) FROM person")])


def test_sft_on_questions_of_ones_own(
    own: list[str], train_questions: Path, compose_config: Compose, tmp_path: Path
) -> None:
    """Where there are no validation questions, some of what is trained on, by template, picks the checkpoint."""
    own = [override for override in own if not override.startswith("data.explored")]
    cfg = compose_config(*SMALL, *own, "method=sft", f"data.train={train_questions}", "trainer.max_epochs=1")
    metrics = run.train(cfg, folder=tmp_path / "run")
    assert (metrics["test/ex_count"], "val/best" in metrics) == (2, True)
    corpus = json.loads((tmp_path / "run/manifest.json").read_text())["corpus"]
    assert corpus["seeds"] + corpus["val"] == 6
    assert corpus["val"] >= 1

    given = questions(tmp_path / "val.jsonl", [("All ages?", "SELECT age FROM person")])
    task = run.open_task(
        compose_config(*SMALL, *own, "method=sft", f"data.train={train_questions}", f"data.val={given}"),
        folder=tmp_path / "other",
    )
    assert isinstance(task, Text2SqlTask)
    assert [e.id for e in task.corpus.val] == ["own/val/0"]
    assert len(task.corpus.stages[0]) == 6


def test_a_single_template_leaves_nothing_to_pick_by(own: list[str], compose_config: Compose, tmp_path: Path) -> None:
    one = questions(tmp_path / "train.jsonl", [(f"Over {n}?", f"SELECT {n} FROM person") for n in (3, 4)])
    with pytest.raises(ConfigError, match=r"a single query template.*data\.val"):
        run.open_task(compose_config(*SMALL, *own, "method=sft", f"data.train={one}"), folder=tmp_path)


def test_seed_questions_alone_are_compared_with_on_ones_own(
    own: list[str], train_questions: Path, compose_config: Compose, tmp_path: Path
) -> None:
    cfg = compose_config(
        *SMALL, *own, f"data.train={train_questions}", "report.base=true", "trainer.max_epochs=1", "data.val_size=2"
    )
    metrics = run.train(cfg, folder=tmp_path / "run")
    assert {metrics[f"{role}test/ex_count"] for role in ("", "base/", "sft/")} == {2}


def test_answers_of_a_run_are_scored_by_the_published_scorer(
    spider_root: Path, compose_config: Compose, tmp_path: Path
) -> None:
    """DB-Explore with ``data.test_size``: predictions.jsonl holds explored questions, and some of people's."""
    (spider_root / "train_spider.json").write_text("[]")
    options = [option for option in SMALL if option != "data=own"]
    cfg = compose_config(
        *options, "data=spider", f"data.root={spider_root}", "data.test_size=3", "explore.walks=6",
        "explore.per_level=8", "explore.max_level=2", "method.held_out=0.3", "method.val_share=0.2",
        "trainer.max_epochs=1",
    )  # fmt: skip
    metrics = run.train(cfg, folder=tmp_path / "run")
    assert metrics["test/ex_held_out_count"] >= 1
    lines = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines()]
    assert Counter(line["source"] for line in lines) == {"seed": 3, "explored": metrics["test/ex_held_out_count"]}
    scores = score_predictions(
        benchmark="spider",
        root=spider_root,
        predictions=[tmp_path / "run/predictions.jsonl"],
        store=tmp_path / "store",
        workers=1,
    )
    assert (len(scores.systems[0].outcomes), scores.benchmark.not_asked) == (3, 2)
    assert [item.id for item in scores.benchmark.items] == [line["id"].rpartition("/")[2] for line in lines[:3]]
    assert scores.systems[0].predictions.queries == [line["sql"] for line in lines[:3]]
    assert "3 items of 5; 2 not asked (data.test_size)" in table(scores)


def test_a_finished_run_answers_with_other_settings_and_data(
    own: list[str], spider_root: Path, compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    before = run.train(compose_config(*SMALL, *own, "method.held_out=0.3", "trainer.max_epochs=1"), folder=folder)
    shutil.rmtree(tmp_path / "store")
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    weights = (folder / "model" / "model.safetensors").read_bytes()
    scores = {name: value for name, value in before.items() if name.startswith("test/")}
    assert scores["test/ex_held_out_count"] >= 2

    # As it is, with nothing in the store: nothing is explored or trained again.
    again = evaluate(folder)
    assert {name: again[name] for name in scores} == scores
    assert (folder / "model" / "model.safetensors").read_bytes() == weights
    assert not {path.name for path in (tmp_path / "store").iterdir()} & {"explored", "tiny_models", "seed_only"}

    # Answered in another way, into a folder of its own.
    repaired = evaluate(folder, changes=["inference=repair", "inference.max_new_tokens=24"], out=tmp_path / "repaired")
    assert repaired["test/ex_count"] == 2
    answers = [json.loads(line) for line in (tmp_path / "repaired/predictions.jsonl").read_text().splitlines()]
    assert max(len(answer["candidates"]) for answer in answers) == 3  # one, and two repairs of what fails
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name in files} == {
        name: (folder / name).read_bytes() for name in files
    }
    # Put in another way.
    asked = evaluate(folder, changes=["prompt=brief", "prompt.max_tokens=200"], out=tmp_path / "asked")
    assert asked["test/ex_count"] == 2
    # Other questions, and another database: what was held out of this one is not asked there.
    more = questions(tmp_path / "more.jsonl", [(f"Over {n}?", f"SELECT {n} FROM person") for n in range(3)])
    assert evaluate(folder, changes=[f"data.test={more}"], out=tmp_path / "more")["test/ex_count"] == 3
    (spider_root / "train_spider.json").write_text("[]")
    changes = ["data=spider", f"data.root={spider_root}", "data.test_size=4"]
    other = evaluate(folder, changes=changes, out=tmp_path / "other")
    assert other["test/ex_count"] == 4
    assert not [name for name in other if "held_out" in name]
    evaluate(folder, changes=["data=scorecard", f"data.spider={spider_root}"], out=tmp_path / "card")
    card = json.loads((tmp_path / "card/scorecard.json").read_text())
    assert card["system"] == "run" and list(card["sets"]) == ["spider_dev"]
    assert card["sets"]["spider_dev"]["metrics"]["execution"]["system"]["items"] == 5
    with pytest.raises(ConfigError, match="fixed when the run was trained"):
        evaluate(folder, changes=["model.layers=3"])
    # Answered by a server: the run's data and prompt, and nobody's weights.
    shutil.move(folder / "model" / "model.safetensors", tmp_path / "model.safetensors")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serve() as server:
        server.script = [send(completion("SELECT count(*) FROM person"))]
        changes = ["inference=api", f"inference.base_url={server.url}", "inference.model=m"]
        assert evaluate(folder, changes=changes, out=tmp_path / "served")["test/ex"] == 50.0


def test_a_model_as_it_is_answers_in_the_same_harness(
    own: list[str], compose_config: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Zero-shot: a folder of weights, no run. What it scores is what ``report.base`` gives the same weights."""
    weights = Tiny(vocabulary=400, hidden_size=32, layers=2, heads=2, context=512).folder(
        Store(tmp_path / "weights"), texts=["SELECT name FROM person WHERE city = 'Rome'"], seed=1
    )
    model = ["task=text2sql", "data=own", *own, "model=smollm2_135m", f"model.path={weights}", "trainer=cpu"]
    model += [
        "inference.max_new_tokens=8",
        "trainer.progress_bar=false",
        "prompt.max_tokens=400",
        "data.max_length=400",
    ]
    folder = tmp_path / "zero_shot"
    metrics = Text2SqlTask.score(
        compose_config(*model, f"out={folder}", primary="evaluate"), folder=tmp_path / "unused"
    )
    assert (metrics["test/ex"], metrics["test/ex_count"]) == (0.0, 2)
    assert {path.name for path in folder.iterdir()} == {
        ".hydra", "items.csv", "manifest.json", "metrics.json", "predictions.jsonl", "report.html",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "the model, untrained" in printed and "Nothing was trained." in printed
    assert read_metrics(folder) == metrics
    trained = run.train(
        compose_config(*model, "report.base=true", "trainer.max_epochs=1", "data.val_size=1"), folder=tmp_path / "run"
    )
    assert trained["base/test/ex"] == metrics["test/ex"]
    compare(tmp_path / "run", folder)
    assert "people's questions (2)" in capsys.readouterr().out


@pytest.mark.slow  # 20 s: two rounds of sampling and training
def test_two_rounds_of_rejection_sampling(own: list[str], compose_config: Compose, tmp_path: Path) -> None:
    """The model of the first round is kept in the store, and its samples too: a second run asks nothing again."""
    weights = Tiny(vocabulary=400, hidden_size=32, layers=2, heads=2, context=512).folder(
        Store(tmp_path / "weights"), texts=["SELECT name FROM person WHERE city = 'Rome'"], seed=1
    )
    given = ["task=text2sql", "data=own", *own, "model=smollm2_135m", f"model.path={weights}", "trainer=cpu"]
    given += ["method=rejection", "method.rounds=2", "method.samples=2", "trainer.max_epochs=1", "prompt=bare"]
    given += [
        "inference.max_new_tokens=8",
        "trainer.progress_bar=false",
        "prompt.max_tokens=400",
        "data.max_length=400",
    ]
    with pytest.warns(UserWarning, match="this run trains on the golds alone"):  # random weights know no SQL
        run.train(compose_config(*given), folder=tmp_path / "run")
    notes = json.loads((tmp_path / "run/manifest.json").read_text())["corpus"]["rejection"]
    assert notes["questions"] > 0 and notes["own_answers"] == 0
    assert sum(notes["outcomes"].values()) == 2 * notes["questions"]
    (store,) = {Path(str(compose_config(*given).store))}
    rounds = [path for path in (store / "rejection_rounds").iterdir() if path.is_dir()]
    samples = sorted((store / "rejection_samples").rglob("samples.jsonl"))
    assert len(rounds) == 1 and len(samples) == 2
    before = [path.stat().st_mtime_ns for path in samples]
    with pytest.warns(UserWarning, match="this run trains on the golds alone"):
        run.train(compose_config(*given), folder=tmp_path / "other")
    assert [path.stat().st_mtime_ns for path in samples] == before
    with pytest.raises(ConfigError, match="rejection learns from a model's own answers"):
        run.open_task(compose_config(*SMALL, *own, "method=rejection"), folder=tmp_path / "tiny")


@pytest.mark.parametrize(("scores", "kept"), [((50.0, 10.0), 1), ((10.0, 50.0), 0), ((10.0, 10.0), 0)])
def test_a_run_that_ends_below_the_untrained_model_keeps_it(
    scores: tuple[float, float],
    kept: int,
    own: list[str],
    compose_config: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = Tiny(vocabulary=400, hidden_size=32, layers=1, heads=1, context=512).folder(
        Store(tmp_path / "weights"), texts=["SELECT name FROM person WHERE city = 'Rome'"], seed=1
    )
    left = list(scores)

    def validated(self: Text2SqlModule) -> None:
        self.log("val/ex", left.pop(0))

    monkeypatch.setattr(Text2SqlModule, "on_validation_epoch_end", validated)
    cfg = compose_config(
        "task=text2sql", "data=own", *own, "model=smollm2_135m", f"model.path={weights}", "trainer=cpu",
        "inference.max_new_tokens=4", "trainer.progress_bar=false", "prompt.max_tokens=400", "data.max_length=400",
        "trainer.max_epochs=1", "data.val_size=1",
    )  # fmt: skip
    metrics = run.train(cfg, folder=tmp_path / "run")
    assert (metrics["val/untrained"], metrics["val/best"], metrics["untrained_kept"]) == (*scores, kept)
    assert metrics["base/test/ex_count"] == 2  # the row that a pretrained model always has
    saved = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
    updates = sum(float(tensor.abs().sum()) for name, tensor in saved.items() if "lora_B" in name)
    assert (updates == 0.0) == bool(kept)  # an adapter begins as no change
    assert ("the untrained model is kept" in capsys.readouterr().out) == bool(kept)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ([], r"predictions: nothing to score.*model=qwen2_5_coder_0_5b"),
        (["model=smollm2_135m", "prompt=bare"], "prompt: bare shows no schema"),
        (["model=smollm2_135m", "data.test=null"], r"no test questions.*data\.test"),
        (["model=smollm2_135m", "model.path=/nowhere"], "nothing at /nowhere"),
    ],
)
def test_a_model_that_cannot_be_scored_as_it_is(
    change: list[str], says: str, own: list[str], compose_config: Compose, tmp_path: Path
) -> None:
    cfg = compose_config("task=text2sql", "data=own", "trainer=cpu", *own, *change, primary="evaluate")
    with pytest.raises(ConfigError, match=says):
        Text2SqlTask.score(cfg, folder=tmp_path / "scores")


@pytest.mark.slow
def test_a_real_model_scores_what_it_scored_before(shared_data: Path, compose_config: Compose, tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct (GGUF, Q4_1) on the first questions of Spider dev, zero-shot: EX pinned.

    ``TUTELAGE_WEIGHTS`` is the folder that holds ``smollm2/``; run with ``pytest -m slow -k real_model``.
    """
    weights = Path(os.environ.get("TUTELAGE_WEIGHTS", "weights")) / "smollm2"
    if not weights.is_dir():
        pytest.skip(f"no weights at {weights}: set TUTELAGE_WEIGHTS to the folder that holds smollm2/")
    cfg = compose_config(
        "task=text2sql", "data=spider", f"data.root={shared_data / 'spider'}", "data.test_size=32", "trainer=cpu",
        "model=smollm2_135m", f"model.path={next(weights.glob('*.gguf'))}", "trainer.progress_bar=false",
        "inference.max_new_tokens=48", "inference.batch_size=8", primary="evaluate",
    )  # fmt: skip
    metrics = Text2SqlTask.score(cfg, folder=tmp_path / "scores")
    assert (metrics["test/ex"], metrics["test/ex_count"]) == (3.125, 32)
    right = [row["id"] for row in read_items(tmp_path / "scores/items.csv") if row["right"] == "1"]
    assert right == ["spider/dev/196"]


def test_adapter_run_can_be_opened_and_merged(own: list[str], compose_config: Compose, tmp_path: Path) -> None:
    lora = ["adapter=lora", "adapter.rank=4", "report.merge=true", "trainer.max_epochs=1"]
    run.train(compose_config(*SMALL, *own, *lora), folder=tmp_path / "run")
    assert (tmp_path / "run/model/adapter_config.json").is_file()
    loaded = load_run(tmp_path / "run", device="cpu").model
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "run/merged").eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.causal(input_ids=ids).logits, merged(input_ids=ids).logits, rtol=1e-4, atol=1e-5
        )


def test_two_runs_are_compared_on_the_questions_of_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def finished_run(name: str, rights: str, *, explored: str = "", gold: str = "SELECT 1") -> Path:
        (tmp_path / name / ".hydra").mkdir(parents=True)
        task = "task: {_target_: tutelage.text2sql.task.Text2SqlTask}\n"
        (tmp_path / name / ".hydra" / "config.yaml").write_text(task)
        (tmp_path / name / "metrics.json").write_text("{}")
        marks = {"1": True, "0": False, "?": None}
        items = [Item(Example(f"{i}", "d", "?", gold), "", marks[mark], "ok", "") for i, mark in enumerate(rights)]
        items += [
            Item(Example(f"e{i}", "d", "?", gold, source="explored"), "", marks[mark], "ok", "")
            for i, mark in enumerate(explored)
        ]
        write_items(tmp_path / name / "items.csv", items)
        return tmp_path / name

    # Eight questions count for both (one's gold does not run); six are right in the first alone, one in the second.
    first = finished_run("first", "11111110?", explored="11")
    compare(first, finished_run("second", "00000011?", explored="010"))
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")]
    # McNemar: 2·(C(7,0) + C(7,1)) / 2^7 = 0.125, and 1 where one pair differs.
    assert rows == [
        ["people's questions (8)", "87.5", "25.0", "+62.5", "6", "1", "0.125"],
        ["held-out explored questions (2)", "100.0", "50.0", "+50.0", "1", "0", "1"],
    ]
    assert "Left out, since only one of them was asked: 1." in printed

    with pytest.raises(DataError, match="have no question in common"):
        compare(first, finished_run("other", "11111110?", gold="SELECT 2"))
    (first / ".hydra" / "config.yaml").write_text("task: {_target_: tutelage.multilabel.task.MultilabelTask}\n")
    with pytest.raises(ConfigError, match="is a run of another task"):
        compare(first, tmp_path / "second")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["method=sft"], "sft trains on seed questions, and this data has none"),
        (["data.max_length=300"], "300 tokens, but the model attends to 256"),
        (["adapter=qlora"], "qlora needs"),
        (["data.explored=/nowhere"], "no folder /nowhere"),
        (["data.database=/nowhere.sqlite"], "/nowhere.sqlite"),
        (["data.batch_size=0"], "0 is not positive"),
        (["+explore.splits=eval"], "splits"),
        (["trainer.ema_decay=0.99"], "trainer.ema_decay: checkpoints of a language model"),
        (["trainer.compile=true"], "trainer.compile: text2sql does not compile its model"),
        (["trainer.precision=bf16-true"], "trainer.precision: bf16-true keeps what is trained in 16 bits"),
        (["trainer.precision=16-mixed"], "trainer.precision: 16-mixed needs a GPU"),
        (["data.micro_batch_tokens=100"], "100 tokens do not hold a row of data.max_length=256"),
    ],
)
def test_refused_before_the_long_part(
    change: list[str], says: str, own: list[str], compose_config: Compose, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        run.open_task(compose_config(*SMALL, *own, *change), folder=tmp_path)
    assert says in str(caught.value)


def test_weights_in_4_bits_are_not_spread(
    own: list[str], compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QLora, "check", lambda self: None)  # as if there were GPUs and bitsandbytes
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    spread = [option for option in SMALL if option != "trainer=cpu"]
    with pytest.raises(ConfigError, match="weights in 4 bits cannot be spread over devices"):
        run.open_task(compose_config(*spread, *own, "trainer=fsdp", "adapter=qlora"), folder=tmp_path)


def test_a_windowed_model_is_refused_before_anything_long(
    own: list[str], compose_config: Compose, tmp_path: Path
) -> None:
    MistralConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        sliding_window=128,
    ).save_pretrained(tmp_path / "windowed")  # fmt: skip
    pretrained = ["model=smollm2_135m", f"model.path={tmp_path / 'windowed'}", "data.max_length=256"]
    with pytest.raises(ConfigError, match=r"data\.max_length: 256 tokens, but .*windowed attends to the last 128 only"):
        run.open_task(compose_config("task=text2sql", "data=own", *own, *pretrained), folder=tmp_path)


def test_asking_a_4_bit_run_without_a_gpu_says_what_to_do(
    own: list[str], compose_config: Compose, tmp_path: Path
) -> None:
    run.save_config(compose_config(*SMALL, *own, "adapter=qlora"), tmp_path / "run")
    (tmp_path / "run/model").mkdir()
    with pytest.raises(ConfigError, match=r"needs a CUDA device.*report\.merge=true"):
        load_run(tmp_path / "run", device="cpu")


def test_asking_a_4_bit_run_without_a_gpu_takes_the_merged_model(
    own: list[str], compose_config: Compose, tmp_path: Path
) -> None:
    lora = ["adapter=lora", "adapter.rank=4", "report.merge=true", "trainer.max_epochs=1"]
    cfg = compose_config(*SMALL, *own, *lora)
    run.train(cfg, folder=tmp_path / "run")
    cfg.adapter._target_ = "tutelage.text2sql.model.adapters.QLora"  # what a machine with a GPU would have trained
    run.save_config(cfg, tmp_path / "run")
    model = load_run(tmp_path / "run", device="cpu").model
    assert not model.adapted
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "run/merged")
    torch.testing.assert_close(model.network.state_dict(), merged.state_dict(), rtol=0, atol=0)


def test_no_model_there(own: list[str], compose_config: Compose, tmp_path: Path) -> None:
    cfg = compose_config("task=text2sql", "data=own", *own, "model=smollm2_135m", "model.path=/nowhere/model.gguf")
    with pytest.raises(ConfigError, match=r"model\.path: nothing at /nowhere/model\.gguf"):
        run.open_task(cfg, folder=tmp_path)


def test_empty_explored_folder(own: list[str], compose_config: Compose, tmp_path: Path) -> None:
    (tmp_path / "explored/pairs.jsonl").write_text("")
    with pytest.raises(DataError, match="is empty"):
        run.open_task(compose_config(*SMALL, *own), folder=tmp_path)


def test_prompt_longer_than_the_context(own: list[str], compose_config: Compose, tmp_path: Path) -> None:
    task = run.open_task(compose_config(*SMALL, *own, "inference.max_new_tokens=250"), folder=tmp_path)
    with pytest.raises(DataError, match="the longest"):
        task.prepare()


def test_scores_by_hand(own: list[str], tmp_path: Path) -> None:
    def ask(id: str, sql: str) -> Example:
        return Example(id, "people", "?", sql)

    gold = [
        ask("a", "SELECT name FROM person ORDER BY age"),
        ask("b", "SELECT max(age) FROM person"),
        ask("c", "SELEC"),
    ]
    with Executor(workers=0, limits=LIMITS) as executor:
        scorer = ExecutionScorer({"people": tmp_path / "people.sqlite"}, executor=executor)
        items = scorer.score(gold, ["SELECT name FROM person ORDER BY age DESC", "SELECT 27", "SELECT 1"])
    assert [item.right for item in items] == [False, True, None]  # the last gold does not run, so it counts nowhere
    assert [item.status for item in items] == ["ok", "ok", "ok"]


def test_interval_by_hand() -> None:
    item = Item(Example("a", "d", "?", ""), "", True, "ok", "")
    wrong = Item(Example("b", "d", "?", ""), "", False, "ok", "")
    found = accuracy([item] * 8 + [wrong] * 2)
    # Wilson, n = 10, p = 0.8, z = 1.96: (0.4902, 0.9433)
    assert (found.percent, found.low, found.high, found.count) == pytest.approx((80.0, 49.02, 94.33, 10), abs=0.01)
    assert accuracy([wrong] * 5).low == pytest.approx(0.0, abs=1e-9)


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / CHECKPOINTS / name, weights_only=True)["state_dict"]
    return state


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(own: list[str], train_script: Script, tmp_path: Path) -> None:
    """With LoRA and dropout; killed in the first epoch and in the second."""
    common = [
        *SMALL, *own, f"store={tmp_path / 'store'}", "adapter=lora", "adapter.rank=4", "adapter.dropout=0.1",
        "data.max_length=80", "trainer.checkpoint_every_n_steps=1",
    ]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = train_script(*common, f"run={whole}")
    assert done.returncode == 0, done.stderr
    for after in (2, 4):
        stopped = train_script(*([*common] if not killed.exists() else []), f"run={killed}", kill_after=after)
        assert stopped.returncode == -signal.SIGKILL, stopped.stderr
        assert read_metrics(killed) is None
    done = train_script(f"run={killed}")
    assert done.returncode == 0, done.stderr
    for name in (LAST, BEST):
        expected, found = weights(whole, name), weights(killed, name)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected), name
    assert (whole / "items.csv").read_text() == (killed / "items.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [["cpus"], ["fsdp", "trainer.accelerator=cpu", "trainer.precision=32-true"]])
def test_two_processes_score_what_one_scores(
    trainer: list[str], own: list[str], compose_config: Compose, tmp_path: Path
) -> None:
    one = run.train(compose_config(*SMALL, *own), folder=tmp_path / "one")
    several = [f"trainer={trainer[0]}" if option == "trainer=cpu" else option for option in SMALL]
    two = run.train(compose_config(*several, *own, *trainer[1:], "trainer.devices=2"), folder=tmp_path / "two")
    tests = [{k: v for k, v in metrics.items() if k.startswith("test/")} for metrics in (one, two)]
    assert tests[0] == tests[1]
    expected, found = (weights(tmp_path / name, BEST) for name in ("one", "two"))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5)


def test_a_long_schema_is_filtered_and_no_sample_dropped(
    own: list[str], compose_config: Compose, tmp_path: Path
) -> None:
    """data.max_length below prompt.max_tokens dropped the samples of large databases instead."""
    whole = run.open_task(compose_config(*SMALL, *own, "prompt=brief"), folder=tmp_path)
    assert isinstance(whole, Text2SqlTask)
    longest = max(s.length for stage in whole.corpus.stages for e in stage for s in whole._encoder()([e], None))
    short = [f"data.max_length={longest - 4}", "prompt.max_tokens=512"]
    task = run.open_task(compose_config(*SMALL, *own, "prompt=brief", *short), folder=tmp_path)
    assert isinstance(task, Text2SqlTask)
    lengths = [s.length for stage in task.corpus.stages for e in stage for s in task._encoder()([e], None)]
    assert max(lengths) <= longest - 4
    task.datamodule().train_dataloader()
    assert not (tmp_path / "overlong.json").exists()


def test_weights_are_looked_at_before_anything_is_explored(
    own: list[str], compose_config: Compose, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    Tiny(vocabulary=300, hidden_size=32, layers=1, heads=2, context=256)._write(folder, ["SELECT 1"] * 3, 1)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    overrides = ["model=smollm2_135m", f"model.path={folder}", "data.max_length=256"]
    task = run.open_task(compose_config("task=text2sql", "data=own", *own, *overrides), folder=tmp_path)
    with pytest.raises(DataError, match="is cut off"):
        task.prepare()
    assert "corpus" not in vars(task)


def test_validation_and_test_share_their_indexes_of_values(
    own: list[str], compose_config: Compose, tmp_path: Path
) -> None:
    task = run.open_task(compose_config(*SMALL, *own), folder=tmp_path)
    assert isinstance(task, Text2SqlTask)
    other = task.answerer.changed(inference=task.inference.greedy())
    task.answerer.matches(task.corpus.test[0])
    assert other._values is task.answerer._values and len(other._values) == 1
