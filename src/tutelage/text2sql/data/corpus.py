"""All questions of a run: seeds and explored pairs to train on, some to pick the checkpoint by, others to score on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlglot

from tutelage.core.errors import ConfigError
from tutelage.core.store import Store, content_hash
from tutelage.text2sql.data.examples import Example, Source
from tutelage.text2sql.data.explored import Part, example_of, split_by_template
from tutelage.text2sql.data.methods import DbExplore, Method, thin
from tutelage.text2sql.database.address import dialect_of, text_of
from tutelage.text2sql.database.schema import DIALECTS, Dialect
from tutelage.text2sql.explore.config import explore_settings
from tutelage.text2sql.explore.pair import read_pairs
from tutelage.text2sql.explore.pipeline import explore

WHICH = {
    "train": "the databases of the training questions",
    "eval": "the databases of the test questions (transductive: trained on databases that it is scored on)",
    "custom": "databases named in the config",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which databases are explored (the part of ``explore`` that is this task's).

    Attributes:
        split: Those of the training questions, those of the test questions, or ``databases``.
        databases: With ``custom``: their db_ids.
    """

    split: Literal["train", "eval", "custom"]
    databases: tuple[str, ...] = ()

    def of(self, source: Source) -> list[str]:
        """Name the databases, in the order of their first question.

        Raises:
            ConfigError: There are none, or one that the data lacks.
        """
        if self.split == "custom":
            chosen = list(self.databases)
        else:
            questions = source.split("train" if self.split == "train" else "test")
            # A single database without questions of its own is what there is to explore.
            chosen = list(dict.fromkeys(e.db_id for e in questions)) or (
                list(source.databases) if len(source.databases) == 1 else []
            )
        unknown = [db_id for db_id in chosen if db_id not in source.databases]
        if unknown or not chosen:
            what = f"no database {unknown[0]}" if unknown else f"split={self.split} names no database"
            raise ConfigError("explore.databases", what, f"choose among {', '.join(list(source.databases)[:8])}")
        return chosen


@dataclass(frozen=True, slots=True)
class Corpus:
    """The questions of a run.

    Attributes:
        stages: To train on, in the order of the curriculum.
        val: To pick the checkpoint by.
        test: People's questions to score on; empty where there are none.
        held_out: Explored pairs to score on, of query templates that were never trained on.
        notes: Counts, and what was explored, as JSON values.
    """

    stages: list[list[Example]]
    val: list[Example]
    test: list[Example]
    held_out: list[Example]
    notes: dict[str, Any]


def assemble(
    source: Source,
    method: Method,
    *,
    explored: Sequence[Example],
    explored_in: str,
    test_size: int | None,
    seed: int,
) -> Corpus:
    """Share questions out.

    Args:
        source: Of people's questions.
        method: What of all this is trained on.
        explored: Explored pairs; empty if the method does not explore.
        explored_in: Which databases they are about, in words.
        test_size: How many of the test questions are scored; None for all.
        seed: Of what is left out.

    Raises:
        ConfigError: Nothing to train on, to pick the checkpoint by, or to score on.
    """
    parts: dict[Part, list[Example]] = {"train": list(explored), "val": [], "held_out": []}
    val = [e for e in source.split("val") if e.sql is not None]
    held_out: list[Example] = []
    share = 0.0 if val else method.val_share
    if isinstance(method, DbExplore):
        parts = split_by_template(explored, val=share, held_out=method.held_out, seed=0)
        held_out = thin(parts["held_out"], method.held_out_size, "held out", seed=0)
    val = val or parts["val"]
    seeds = [e for e in source.split("train") if e.sql is not None]
    if not val:  # nothing was explored, so some of the seeds must tell
        seed_parts = split_by_template(seeds, val=share, held_out=0.0, seed=0)
        seeds, val = seed_parts["train"], seed_parts["val"]
    stages = method.stages(seeds, parts["train"], seed=seed)
    test = thin([e for e in source.split("test") if e.sql is not None], test_size, "test", seed=0)
    if not val:
        raise ConfigError(
            "data",
            "no questions to pick a checkpoint by: what is trained on has a single query template, or method.val_share "
            "is 0",
            "give validation questions (data=own: data.val=…), more training questions, or explore more",
        )
    if not test and not held_out:
        raise ConfigError("data", "nothing to score on", "give test questions, or set method.held_out above 0")
    trained = [example for stage in stages for example in stage]
    notes: dict[str, Any] = {
        "seeds": sum(e.source == "seed" for e in trained),
        "explored_pairs": sum(e.source == "explored" for e in trained),
        "explored_in": explored_in if explored else "nothing was explored",
        "val": len(val),
        "test": len(test),
        "held_out": len(held_out),
    }
    return Corpus(stages, val, test, held_out, notes)


def explore_all(
    source: Source, db_ids: Sequence[str], *, settings: Mapping[str, Any], seed: int, store: Store
) -> list[Example]:
    """Explore databases, or find what was explored of them.

    Training questions weigh the graph's edges; test questions are guarded: no pair may be one of them.
    """
    train, test = (_seed_file(source, split, store=store) for split in ("train", "test"))
    examples: list[Example] = []
    for db_id in db_ids:
        own = {"database": text_of(source.databases[db_id]), "db_id": db_id, "seed": seed}
        files = {"seeds": None if train is None else str(train), "guard": [] if test is None else [str(test)]}
        folder = explore(explore_settings({**settings, **own, **files}), store=store)
        examples += [example_of(pair) for pair in read_pairs(folder)]
    return examples


def _as_sqlite(sql: str, dialect: Dialect) -> str:
    """Write a query as an exploration reads it, which works on SQLite's; as it is where sqlglot cannot."""
    if dialect == "sqlite":
        return sql
    try:
        return sqlglot.transpile(sql, read=DIALECTS[dialect].sqlglot, write="sqlite")[0]
    except (sqlglot.errors.SqlglotError, RecursionError, IndexError):
        return sql


def _seed_file(source: Source, split: Literal["train", "test"], *, store: Store) -> Path | None:
    """Write a split's questions as the exploration reads them."""
    rows = [
        {"db_id": e.db_id, "question": e.question, "sql": _as_sqlite(e.sql, dialect_of(source.databases[e.db_id]))}
        for e in source.split(split)
        if e.sql is not None
    ]
    if not rows:
        return None
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def write(folder: Path) -> None:
        (folder / "seeds.jsonl").write_text(text, encoding="utf-8")

    return store.make("seed_questions", {"rows": content_hash({"text": text})}, write) / "seeds.jsonl"
