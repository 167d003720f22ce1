"""A model's own right answers to training questions: sampled, judged by execution, and kept where they differ.

Rejection sampling fine-tuning (Yuan et al. 2023, arXiv 2308.01825), with rounds as in STaR (Zelikman et al. 2022,
arXiv 2203.14465): the first round samples from the model as it is, each later one from what the round before it
trained, and every round trains anew from the model as it is.
"""

import copy
import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from tutelage.core import launch
from tutelage.core.callbacks import CHECKPOINTS, LAST
from tutelage.core.errors import ConfigError
from tutelage.core.run import train
from tutelage.core.store import Store, content_hash, write_atomically
from tutelage.text2sql.data.corpus import Corpus
from tutelage.text2sql.data.examples import Example, Source
from tutelage.text2sql.data.methods import Rejection
from tutelage.text2sql.prompts import sql_of
from tutelage.text2sql.reward import Attempt, Reward
from tutelage.text2sql.reward.judge import file_of
from tutelage.text2sql.training.seed_only import inputs

SAMPLES = "samples.jsonl"  # a line a question: all that the model answered
KEPT = "kept.jsonl"  # a line a question: its right answers, and how the others ended
_AT_ONCE = 32  # questions between two writes: what a kill can cost

Sampler = Callable[[Sequence[Example]], list[list[str]]]


@dataclass(frozen=True, slots=True)
class OwnAnswers:
    """What a model answered to one question.

    Attributes:
        right: Different queries that earned the whole reward, in the order of the samples.
        outcomes: How many samples ended how.
    """

    right: tuple[str, ...]
    outcomes: dict[str, int]


def sampled(
    store: Store,
    key: dict[str, Any],
    questions: Sequence[Example],
    *,
    sampler: Callable[[], Sampler],
    source: Source,
    workers: int,
) -> dict[str, OwnAnswers]:
    """Sample and judge, or find what was kept; a run that is killed goes on behind its last written question.

    Args:
        store: Where answers are kept.
        key: What they depend on.
        questions: With SQL.
        sampler: Loads the model; it is not called where nothing is left to ask.
        source: Of the databases.
        workers: Processes that run queries.

    Returns:
        The answers to each question, by its id.
    """

    def build(folder: Path) -> dict[str, Any]:
        answers = _sample(folder / SAMPLES, questions, sampler)
        found = _judge(questions, answers, source=source, store=store, workers=workers)
        lines = [{"id": id, "right": list(own.right), "outcomes": own.outcomes} for id, own in found.items()]
        write_atomically(folder / KEPT, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        return {"questions": len(questions), "with_right_answers": sum(bool(own.right) for own in found.values())}

    if store.find("rejection_samples", key) is None:
        launch.refuse_to_train_first("what the model answers to training questions")
    folder = store.make("rejection_samples", key, build)
    records = [json.loads(line) for line in (folder / KEPT).read_text(encoding="utf-8").splitlines()]
    return {record["id"]: OwnAnswers(tuple(record["right"]), record["outcomes"]) for record in records}


def _sample(path: Path, questions: Sequence[Example], sampler: Callable[[], Sampler]) -> dict[str, list[str]]:
    """Append answers to a file as they come, and return those of all questions."""
    answers: dict[str, list[str]] = {}
    good = 0  # bytes
    if path.is_file():
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                record = json.loads(line)
            except ValueError:
                break  # cut off by a kill: what comes from here on is asked again
            answers[record["id"]] = record["answers"]
            good += len(line)
        os.truncate(path, good)
    left = [question for question in questions if question.id not in answers]
    if not left:
        return answers
    ask = sampler()
    with path.open("a", encoding="utf-8") as file:
        for first in range(0, len(left), _AT_ONCE):
            part = left[first : first + _AT_ONCE]
            for question, texts in zip(part, ask(part), strict=True):
                answers[question.id] = [str(text) for text in texts]
                file.write(json.dumps({"id": question.id, "answers": answers[question.id]}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
            print(f"  answered {len(answers)} of {len(questions)} training questions", flush=True)
    return answers


def _judge(
    questions: Sequence[Example], answers: dict[str, list[str]], *, source: Source, store: Store, workers: int
) -> dict[str, OwnAnswers]:
    found: dict[str, OwnAnswers] = {}
    with Reward(store=store.root, workers=workers) as reward:
        for first in range(0, len(questions), _AT_ONCE):
            part = questions[first : first + _AT_ONCE]
            attempts = [
                Attempt(file_of(source.databases[question.db_id]), (question.sql, *question.alternatives), sql_of(text))
                for question in part
                if question.sql is not None
                for text in answers[question.id]
            ]
            judged = iter(reward(attempts))
            for question in part:
                right: dict[str, str] = {}
                outcomes: dict[str, int] = {}
                for text in answers[question.id]:
                    judgement = next(judged)
                    outcomes[judgement.outcome] = outcomes.get(judgement.outcome, 0) + 1
                    if judgement.right:
                        sql = sql_of(text)
                        right.setdefault(spelling(sql), sql)
                found[question.id] = OwnAnswers(tuple(right.values()), outcomes)
    return found


def spelling(sql: str) -> str:
    """What two queries share that differ in case and white space only."""
    return " ".join(sql.rstrip("; \n").lower().split())


def with_own_answers(corpus: Corpus, method: Rejection, found: dict[str, OwnAnswers]) -> Corpus:
    """Train on right answers beside, or instead of, the golds.

    Raises:
        ConfigError: There are none, and the golds are not trained on.
    """
    counts = {"questions": 0, "with_right_answers": 0, "own_answers": 0, "not_asked": 0}
    outcomes: dict[str, int] = {}
    stages: list[list[Example]] = []
    for stage in corpus.stages:
        kept: list[Example] = []
        for example in stage:
            assert example.sql is not None
            own = found.get(example.id)
            counts["questions"] += 1
            if own is None:
                counts["not_asked"] += 1
            right = own.right if own is not None else ()
            for name, count in (own.outcomes if own is not None else {}).items():
                outcomes[name] = outcomes.get(name, 0) + count
            new = [sql for sql in right if not method.keep_gold or spelling(sql) != spelling(example.sql)]
            new = new[: method.keep]
            counts["with_right_answers"] += bool(right)
            counts["own_answers"] += len(new)
            kept += [example] if method.keep_gold else []
            kept += [replace(example, id=f"{example.id}#{number}", sql=sql) for number, sql in enumerate(new, 1)]
        stages.append(kept)
    if not counts["own_answers"]:
        what = "no sampled answer is right and differs from its gold"
        if not method.keep_gold:
            raise ConfigError("method", what, "start from a model that knows some SQL, or set method.keep_gold=true")
        warnings.warn(f"{what}: this run trains on the golds alone", stacklevel=2)
    notes = {**corpus.notes, "rejection": {**counts, "outcomes": dict(sorted(outcomes.items()))}}
    return replace(corpus, stages=[stage for stage in stages if stage], notes=notes)


def previous_round(cfg: DictConfig, *, store: Store, fingerprint: str) -> Path | None:
    """Train the round before this one, or find it; None where this is the first.

    Returns:
        The folder of its run.
    """
    if cfg.method.rounds == 1:
        return None
    own = copy.deepcopy(cfg)
    with open_dict(own):
        own.method.rounds = cfg.method.rounds - 1
        own.report = {**own.report, "base": False, "merge": False}
        own.logger = None
    key = round_inputs(own, fingerprint=fingerprint)

    def build(folder: Path) -> None:
        print(f"First round {own.method.rounds} of rejection sampling (kept in {folder.with_suffix('')})")
        train(own, folder=folder)
        (folder / CHECKPOINTS / LAST).unlink(missing_ok=True)

    if store.find("rejection_rounds", key) is None:
        launch.refuse_to_train_first(f"round {own.method.rounds} of rejection sampling")
    return store.make("rejection_rounds", key, build)


def round_inputs(cfg: DictConfig, *, fingerprint: str) -> dict[str, Any]:
    """What a round's weights depend on."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return {**inputs(cfg, fingerprint=fingerprint), "method": plain["method"], "explore": plain["explore"]}


def sample_key(cfg: DictConfig, questions: Sequence[Example], *, fingerprint: str) -> dict[str, Any]:
    """What sampled answers depend on: the questions, the model that is asked, and how."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    method = plain["method"]
    before = copy.deepcopy(cfg)
    with open_dict(before):
        before.method.rounds = method["rounds"] - 1
    model = round_inputs(before, fingerprint=fingerprint) if method["rounds"] > 1 else {"model": plain["model"]}
    return {
        "asked": model,
        "round": method["rounds"],
        "prompt": plain["prompt"],
        "seed": plain["seed"],
        "max_new_tokens": plain["inference"]["max_new_tokens"],
        **{name: method[name] for name in ("samples", "temperature", "top_p")},
        "data": fingerprint,
        "questions": content_hash({"rows": [(q.id, q.db_id, q.question, q.evidence, q.sql) for q in questions]}),
    }
