"""The reward in the signatures of TRL and verl. Neither is needed to import this."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.data.examples import Source
from tutelage.text2sql.database.sqlite_file import check_file
from tutelage.text2sql.prompts import Prompt, sql_of
from tutelage.text2sql.reward.judge import Attempt, Reward, file_of

_of_thread = threading.local()


def grpo_reward(reward: Reward) -> Callable[..., list[float]]:
    """Make a reward function for TRL's ``GRPOTrainer(reward_funcs=…)``.

    The data set needs the columns ``database`` (the path of a SQLite file) and ``sql`` (the gold, or a list of golds)
    beside ``prompt``; `rows` makes them.
    """

    def execution_reward(
        *,
        completions: Sequence[Any],
        database: Sequence[str],
        sql: Sequence[str | Sequence[str]],
        **_others: Any,  # TRL passes every other column, the prompts and its state
    ) -> list[float]:
        attempts = [
            Attempt(Path(path), _golds(gold), sql_of(_text(completion)))
            for completion, path, gold in zip(completions, database, sql, strict=True)
        ]
        return [judgement.reward for judgement in reward(attempts)]

    return execution_reward


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | Sequence[str],
    extra_info: Mapping[str, Any] | None = None,
    *,
    dense: bool = False,
    store: str | None = None,
) -> float:
    """Score one answer, for verl (``custom_reward_function.path`` is this file, ``.name`` this function).

    Args:
        data_source: The name of the set; not used.
        solution_str: The model's answer.
        ground_truth: The gold query, or several.
        extra_info: Holds ``database``, the path of the SQLite file.
        dense: See `Reward`; to be given as ``custom_reward_function.reward_kwargs``.
        store: See `Reward`; None for the environment's ``TUTELAGE_STORE``, or ``store``.

    Raises:
        DataError: ``extra_info`` names no database.
    """
    return compute_scores([data_source], [solution_str], [ground_truth], [extra_info], dense=dense, store=store)[0]


def compute_scores(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[str | Sequence[str]],
    extra_infos: Sequence[Mapping[str, Any] | None],
    *,
    dense: bool = False,
    store: str | None = None,
) -> list[float]:
    """Score many answers together, for verl's ``reward_model.reward_manager=batch``; see `compute_score`."""
    databases = []
    for extra in extra_infos:
        if not extra or "database" not in extra:
            hint = "give each row extra_info={'database': the path of its SQLite file}"
            raise DataError("extra_info", "no database", hint)
        databases.append(Path(str(extra["database"])))
    attempts = [
        Attempt(database, _golds(gold), sql_of(text))
        for database, gold, text in zip(databases, ground_truths, solution_strs, strict=True)
    ]
    return [judgement.reward for judgement in _reward(store, dense=dense)(attempts)]


def rows(source: Source, *, prompt: Prompt, reward: Reward | None = None) -> list[dict[str, Any]]:
    """Write a source's training questions as rows of a data set for TRL: ``prompt`` (turns), ``database``, ``sql``.

    Args:
        source: Of the questions.
        prompt: How a question is put.
        reward: Leaves out questions whose gold can pay no reward; None keeps all.

    Raises:
        ConfigError: None are left, or a database is no SQLite file.
    """
    found: list[dict[str, Any]] = []
    for example in source.split("train"):
        database = file_of(source.databases[example.db_id])
        if example.sql is None or (reward is not None and not reward.says_something(database, example.sql)):
            continue
        turns = prompt.messages(example, source.catalog(example.db_id), matches={})
        found.append({"prompt": turns, "database": str(database), "sql": [example.sql, *example.alternatives]})
    if not found:
        raise ConfigError("data", "no training questions that can pay a reward", "give data with training questions")
    return found


def _golds(gold: str | Sequence[str]) -> tuple[str, ...]:
    return (gold,) if isinstance(gold, str) else tuple(gold)


def _text(completion: Any) -> str:
    """A completion is a text, or turns whose last one is the answer."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def _reward(store: str | None, *, dense: bool) -> Reward:
    """One for each thread of a worker, since verl scores in threads and a database connection has one."""
    known: dict[tuple[str, bool], Reward] = _of_thread.__dict__.setdefault("rewards", {})
    place = store or os.environ.get("TUTELAGE_STORE", "store")
    if (place, dense) not in known:
        known[place, dense] = Reward(store=Path(place), dense=dense)
    return known[place, dense]


def check_rows(databases: Sequence[str]) -> None:
    """Refuse databases that cannot be opened, before a training begins.

    Raises:
        DataError: Names the first one.
    """
    for database in dict.fromkeys(databases):
        check_file(Path(database), where="database")
