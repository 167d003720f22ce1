"""Does a real model gain from exploring a database? A part for each database × row × seed, each with an outcome.

    python experiments/explore_gain/run.py model=<folder or .gguf> data=<folder of spider, bird and defog> out=<folder>

``explorer=<folder or .gguf>`` adds the row of a larger explorer. ``rows=base,offline``, ``databases=superhero``,
``pairs=64`` and ``seeds=1,2`` choose parts, ``report`` alone runs none. Parts that are done are not done again, a part
that failed is tried again; results.csv and table.md are written into the folder after each.
"""

import csv
import json
import math
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.randomness import generator
from tutelage.core.store import write_atomically
from tutelage.text2sql.evaluation.significance import mcnemar
from tutelage.text2sql.results.items import ITEMS, read_items

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CHOICE = 20261124  # of the databases; written down before any of them was looked at
NUM_SPIDER, FEWEST, MOST = 8, 30, 40  # databases of Spider train; questions that one has, and that are scored
DEFOG_FEWEST = 20
ROWS = ("base", "offline", "model", "explorer", "explorer_base")
LEVELS = 4
# One thread; few pairs a step and three epochs, so that there are some ten steps. Validated after each epoch, and
# before the first: a run that ends below the untrained model keeps it.
TRAINING = [
    "method=db_explore", "method.held_out=0", "method.val_share=0.1", "adapter.rank=16", "adapter.alpha=32",
    "optim.lr=1e-4", "trainer=cpu", "trainer.precision=bf16-mixed", "trainer.threads=1", "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1", "data.max_length=2048", "data.branches=8", "data.batch_size=1",
    "data.micro_batch_tokens=null", "model.gradient_checkpointing=false", "report.base=false",
]  # fmt: skip
ANSWERING = ["inference.batch_size=16", "inference.max_new_tokens=160", "trainer.progress_bar=false"]


@dataclass(frozen=True, slots=True)
class Database:
    """A database, and the questions of people that nothing is trained on."""

    name: str
    path: Path
    questions: list[dict[str, str]]
    columns: int  # of all tables: what a prompt's length goes by


def main() -> None:
    """Read the arguments, run the parts, write the tables."""
    given = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    out = Path(given["out"]).absolute()
    databases = list(choose(Path(given["data"]).absolute()))
    if "databases" in given:
        databases = [database for database in databases if database.name in given["databases"].split(",")]
    default = "base,offline,model" + (",explorer,explorer_base" if "explorer" in given else "")
    rows = given.get("rows", default).split(",")
    parts = [
        (database, row, int(seed)) for database in databases for seed in given.get("seeds", "1").split(",")
        for row in rows
    ]  # fmt: skip
    for database, row, seed in parts if "report" not in sys.argv else []:
        folder = out / database.name / f"{row}-{seed}"
        outcome = folder / "outcome.json"
        if outcome.exists() and "failed" not in json.loads(outcome.read_text(encoding="utf-8")):
            continue
        print(f"{database.name} ({database.columns} columns), {row}, seed {seed}", flush=True)
        found = run_part(database, row, seed, folder, models=given, pairs=int(given.get("pairs", "64")))
        write_atomically(outcome, json.dumps(found, indent=2) + "\n")
        print(f"  {found}", flush=True)
        report(out, databases)
    report(out, databases)


# ---- what is asked ----------------------------------------------------------------------------------------------


def choose(data: Path) -> Iterator[Database]:
    """Spider train databases chosen by the seed, superhero, and Defog's; smallest first within each."""
    spider = data / "spider"
    dev = {item["db_id"] for item in json.loads((spider / "dev.json").read_text(encoding="utf-8"))}
    asked: dict[str, list[dict[str, str]]] = {}
    for name in ("train_spider.json", "train_others.json"):
        for item in json.loads((spider / name).read_text(encoding="utf-8")):
            asked.setdefault(item["db_id"], []).append({"question": item["question"], "sql": item["query"]})
    names = sorted(
        name
        for name, items in asked.items()
        if len(items) >= FEWEST and name not in dev and has_rows(spider / "database" / name / f"{name}.sqlite")
    )
    drawn = sorted(generator(CHOICE, "explore_gain").permutation(len(names))[:NUM_SPIDER].tolist())
    chosen = [
        database(names[place], spider / "database" / names[place] / f"{names[place]}.sqlite", asked[names[place]])
        for place in drawn
    ]
    yield from sorted(chosen, key=lambda one: one.columns)
    bird = data / "bird"
    if (bird / "dev.json").exists():
        questions = [
            {"question": item["question"], "sql": item["SQL"]}
            for item in json.loads((bird / "dev.json").read_text(encoding="utf-8"))
            if item["db_id"] == "superhero"
        ]
        yield database("superhero", bird / "dev_databases" / "superhero" / "superhero.sqlite", questions)
    defog: dict[str, list[dict[str, str]]] = {}
    with (data / "defog" / "questions_gen_sqlite.csv").open(encoding="utf-8", newline="") as file:
        for item in csv.DictReader(file):
            gold = item["query"].split(";")[0]  # of several that are accepted, the first
            defog.setdefault(item["db_name"], []).append({"question": item["question"], "sql": gold})
    found = [
        database(f"{name}", data / "defog" / "database" / name / f"{name}.sqlite", items)
        for name, items in defog.items()
        if len(items) >= DEFOG_FEWEST
    ]
    yield from sorted(found, key=lambda one: one.columns)


def database(name: str, path: Path, questions: list[dict[str, str]]) -> Database:
    """Take at most ``MOST`` of a database's questions, drawn by the seed."""
    order = sorted(generator(CHOICE, "questions", name).permutation(len(questions))[:MOST].tolist())
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = sum(len(connection.execute(f'PRAGMA table_info("{table}")').fetchall()) for table in tables)
    return Database(name, path, [questions[place] for place in order], columns)


def has_rows(path: Path) -> bool:
    """Whether each table of a database has a row."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes
        tables = [
            row[0].decode()
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not row[0].startswith(b"sqlite_")
        ]
        return bool(tables) and all(
            connection.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone() is not None for table in tables
        )


# ---- a part -----------------------------------------------------------------------------------------------------


def run_part(one: Database, row: str, seed: int, folder: Path, *, models: dict[str, str], pairs: int) -> dict[str, Any]:
    """Explore, train and score; or score the model as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps(item) + "\n" for item in one.questions), encoding="utf-8")
    model = models["explorer" if row == "explorer_base" else "model"]
    test = [
        "task=text2sql", "data=own", f"data.database='{one.path}'", f"data.test='{questions}'",
        "model=qwen2_5_coder_0_5b", f"model.path='{Path(model).absolute()}'", f"store='{folder.parent / 'store'}'",
        *ANSWERING,
    ]  # fmt: skip
    descriptions = one.path.parent / "database_description"
    if descriptions.is_dir():
        test.append(f"data.descriptions='{descriptions}'")
    if row in ("base", "explorer_base"):
        scored = folder / "scored"
        shutil.rmtree(scored, ignore_errors=True)  # what a kill left of it
        minutes, error = call(["evaluate.py", *test, f"run='{scored}'"], folder / "score.log")
        return {"failed": error} if error else {**score(scored), "score_minutes": minutes, "pairs": 0}
    explored, trained = folder / "explored", folder / "trained"
    by_model = row != "offline"
    synthesizer = "model" if by_model else row
    command = [
        "explore.py", f"database='{one.path}'", f"guard=['{questions}']", f"seed={seed}", f"max_level={LEVELS}",
        f"per_level={-(-pairs // LEVELS) + 2}", "walks=96", "patience=48", f"out='{explored}'",
        f"run='{folder / 'explore'}'", f"store='{folder.parent / 'store'}'",
        f"synthesizer={synthesizer}",
    ]  # fmt: skip
    if by_model:
        explorer = Path(models["explorer" if row == "explorer" else "model"]).absolute()
        command += ["model=qwen2_5_coder_0_5b", f"model.path='{explorer}'"]
    explore_minutes, error = call(command, folder / "explore.log")
    if error:
        return {"failed": error}
    train = [*test, *TRAINING, f"data.explored='{explored}'", f"method.max_pairs={pairs}", f"seed={seed}"]
    train_minutes, error = call(["train.py", *train, f"run='{trained}'"], folder / "train.log")
    if error:
        return {"failed": error}
    found = json.loads((explored / "manifest.json").read_text(encoding="utf-8"))
    return {
        **score(trained),
        "explore_minutes": explore_minutes,
        "train_minutes": train_minutes,
        "pairs": found["counts"]["pairs"],
        "untrained_kept": json.loads((trained / "metrics.json").read_text(encoding="utf-8"))["untrained_kept"],
        "rejected": found["counts"]["rejected_by_reason"],
    }


def call(command: list[str], log: Path) -> tuple[float, str]:
    """Run a program in one thread; return its processor minutes, and why it failed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["PYTHONPATH"] = str(ROOT / "src")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    minutes = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60
    tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    return round(minutes, 2), f"{command[0]}: {' '.join(tail)}" if done.returncode else ""


def score(folder: Path) -> dict[str, Any]:
    """How many questions of people were answered right, in their order."""
    right = [int(item["right"]) for item in read_items(folder / ITEMS) if item["source"] == "seed" and item["right"]]
    return {"right": right, "ex": round(100 * sum(right) / len(right), 1)}


# ---- tables -----------------------------------------------------------------------------------------------------


def report(out: Path, databases: list[Database]) -> None:
    """Write a row a part, and the table over all databases that both rows have."""
    parts: dict[tuple[str, str, int], dict[str, Any]] = {}
    lines = []
    for one in databases:
        for path in sorted((out / one.name).glob("*-*/outcome.json")):
            row, _, seed = path.parent.name.rpartition("-")
            found = json.loads(path.read_text(encoding="utf-8"))
            if "failed" not in found:
                parts[one.name, row, int(seed)] = found
                low, high = wilson(sum(found["right"]), len(found["right"]))
                minutes = [round(found.get(f"{name}_minutes", 0.0), 1) for name in ("explore", "train", "score")]
                counts = [len(found["right"]), found["pairs"], found["ex"], round(100 * low, 1), round(100 * high, 1)]
                lines.append([one.name, one.columns, row, seed, *counts, *minutes])
    heading = ["database", "columns", "row", "seed", "questions", "pairs", "ex", "low", "high"]
    with (out / "results.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[*heading, "explore_minutes", "train_minutes", "score_minutes"], *lines])
    write_atomically(out / "table.md", table(parts))


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    z, share = 1.959964, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def table(parts: dict[tuple[str, str, int], dict[str, Any]]) -> str:
    """Each row beside base, over the questions of all databases that have both (McNemar's exact test)."""
    text = "| row | databases | questions | EX, base | EX | difference (95 %) | won, lost | p |\n"
    text += "|---|---|---|---|---|---|---|---|\n"
    for row in ROWS[1:]:
        mine = [key for key in parts if key[1] == row and (key[0], "base", 1) in parts]
        if not mine:
            continue
        base = [right for name, _, _ in mine for right in parts[name, "base", 1]["right"]]
        own = [right for key in mine for right in parts[key]["right"]]
        test = mcnemar(own, base)
        differences = [100 * (a - b) for a, b in zip(own, base, strict=True)]
        mean = sum(differences) / len(differences)
        variance = sum((value - mean) ** 2 for value in differences) / max(1, len(differences) - 1)
        half = 1.96 * (variance / len(differences)) ** 0.5
        scores = [100 * sum(side) / len(side) for side in (base, own)]
        interval = f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"
        text += (
            f"| {row} | {len({key[0] for key in mine})} | {len(own)} | {scores[0]:.1f} | {scores[1]:.1f} | "
            f"{interval} | {test.only_first}, {test.only_second} | {test.p_value:.3f} |\n"
        )
    return text


if __name__ == "__main__":
    main()
