"""Questions and SQL by a language model behind an OpenAI-compatible server, in DB-Explore's three stages.

Semantic exploration begins at a walk's columns (arXiv 2503.04959: a sampled subgraph prompts the model for queries);
structure-guided generation goes on in the shape of queries that were mined from seeds; progressive rewriting makes a
pair harder by one operator. The paper's prompts are not published: those in ``prompts/`` are our own.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal

import sqlglot
from pydantic import BaseModel
from sqlglot.errors import SqlglotError

from tutelage.core.errors import ConfigError
from tutelage.core.randomness import generator
from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.database.schema import DIALECTS, Catalog
from tutelage.text2sql.explore.door import ServerDoor
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.knowledge import Knowledge
from tutelage.text2sql.explore.pair import Candidate, Json, Pair, Walk
from tutelage.text2sql.explore.reading import operators_of
from tutelage.text2sql.explore.synthesizers.api_answer import (
    Asked,
    Begun,
    Continued,
    Extended,
    Item,
    Meaning,
    Unusable,
    format_of,
    read_list,
    read_object,
)
from tutelage.text2sql.explore.synthesizers.api_prompts import BRINGS_A_QUERY, MEANINGS, Shape, Sight, Templates
from tutelage.text2sql.explore.synthesizers.base import Synthesizer

_SHOWN_ROWS = 3


class Api(Synthesizer):
    """Asks a model for pairs; what it cannot use of the answers is counted."""

    walks_at_once = 16  # so that many requests are under way

    def __init__(
        self,
        *,
        model: str,
        base_url: str,
        key_variable: str,
        price: Mapping[str, float | None],
        budget_usd: float | None,
        replies: str,
        parameters: Mapping[str, Any],
        response_format: Literal["json_schema", "json_object", "text"],
        width: int,
        structure_share: float,
        concurrency: int,
        requests_per_minute: float | None,
        seconds: float,
        tries: int,
        catalog: Catalog,
        facts: Facts,
        knowledge: Knowledge,
        execute: Callable[[str], Result],
        seed: int,
    ) -> None:
        """Ask nothing yet.

        Args:
            model: The server's name for the model.
            base_url: Such as ``http://localhost:8000/v1``.
            key_variable: The environment variable that holds the key.
            price: ``input`` and ``output``, in US dollars per million tokens.
            budget_usd: What this database with this model and seed may cost, in all runs together.
            replies: The folder of the replies and of the ledger.
            parameters: Sent with every request; one of them limits the answer's tokens.
            response_format: How the server is asked for JSON; the answer is checked in any case.
            width: Pairs that a request asks for.
            structure_share: How often a pair is extended along a mined shape, where one fits; else it is rewritten.
            concurrency: Calls under way at once.
            requests_per_minute: None for no limit.
            seconds: How long to wait for an answer.
            tries: How often to ask before giving up.
            catalog: The database's structure.
            facts: What it means.
            knowledge: How it is joined and asked.
            execute: Runs SQL in the sandbox: a rewriting sees how its parent's answer begins.
            seed: Names the choices.

        Raises:
            ConfigError: A value that cannot work.
        """
        if width < 1:
            raise ConfigError("synthesizer.width", f"{width} is too few", "give 1 or more")
        self.concurrency = concurrency
        self._catalog, self._execute, self._seed = catalog, execute, seed
        self._width, self._structure_share, self._format = width, structure_share, response_format
        self._dialect = DIALECTS[catalog.dialect].sqlglot
        self._sight, self._templates = Sight(catalog, facts, knowledge), Templates()
        self._door = ServerDoor(
            model=model,
            base_url=base_url,
            key_variable=key_variable,
            price=price,
            budget_usd=budget_usd,
            replies=replies,
            parameters=parameters,
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            seconds=seconds,
            tries=tries,
            db_id=catalog.db_id,
            seed=seed,
        )
        self._unusable: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, walk: Walk) -> list[Candidate]:
        """Ask what a walk's columns mean, and for plain questions about them."""
        answer = self._ask(
            "semantic",
            {"shown": self._sight.of_walk(walk), "count": self._width},
            Begun,
        )
        pairs = self._items("semantic", answer, "pairs", Asked)
        meanings = self._items("semantic", answer, "meanings", Meaning)
        state: dict[str, Json] = {"meanings": {said.column: said.meaning for said in meanings}}
        return [
            Candidate(pair.question, pair.sql, 1, (), state)
            for pair in pairs
            if self._is_one_step("semantic", pair.sql, (), None)
        ]

    def extend(self, parent: Pair, walk: Walk) -> list[Candidate]:
        """Ask for pairs that do one thing more: in a mined shape, or by rewriting the parent."""
        rng = generator(self._seed, "api", walk.id, parent.id)
        shown = self._sight.around(parent, walk)
        possible = self._sight.next_operators(parent, shown)
        if not possible:
            return []
        shapes = self._sight.shapes(parent, possible)
        values = {
            "shown": shown,
            "joins": self._sight.joins(shown),
            "question": parent.question,
            "sql": parent.sql,
        }
        if shapes and rng.random() < self._structure_share:
            stage = "structure"
            # Frequent shapes are the likelier ones, as people's questions are.
            weights = [shape.support for shape in shapes]
            chosen = rng.choice(
                len(shapes),
                size=min(self._width, len(shapes)),
                replace=False,
                p=[weight / sum(weights) for weight in weights],
            )
            values["shapes"] = [
                Shape(next(op for op in shapes[i].operators if op not in parent.operators), shapes[i].text)
                for i in chosen.tolist()
            ]
        else:
            stage = "progressive"
            drawn = rng.permutation(len(possible))[: self._width].tolist()
            values["operators"] = [{"name": possible[i], "meaning": MEANINGS[possible[i]]} for i in sorted(drawn)]
            values["rows"] = self._execute(parent.sql).rows[:_SHOWN_ROWS]
        answer = self._ask(stage, values, Continued)
        return [
            Candidate(pair.question, pair.sql, parent.level + 1, (*parent.operators, pair.operator), dict(parent.state))
            for pair in self._items(stage, answer, "pairs", Extended)
            if self._is_one_step(stage, pair.sql, parent.operators, pair.operator)
        ]

    def summary(self) -> dict[str, Json]:
        """Say what this process asked, what could not be used of it, and what all runs together cost."""
        with self._lock:
            unusable: dict[str, Json] = {fault: times for fault, times in sorted(self._unusable.items()) if times}
        return {**self._door.summary(), "unusable": unusable}

    def _ask(self, stage: str, values: Mapping[str, object], answer: type[BaseModel]) -> dict[str, Json]:
        """Return the answer's object; an empty one, and a count, where it cannot be read."""
        named = {"db_id": self._catalog.db_id, "dialect": self._catalog.dialect}
        messages = self._templates.fill(stage, {**values, **named})
        reply = self._door.reply(messages, stage=stage, response_format=format_of(self._format, answer))
        try:
            return read_object(reply, answer)
        except Unusable as error:
            self._count(f"{stage}: {error.fault}")
            return {}

    def _items(self, stage: str, answer: Mapping[str, Json], name: str, item: type[Item]) -> list[Item]:
        items, num_bad = read_list(answer.get(name, []), item)
        self._count(f"{stage}: item of another schema", num_bad)
        return items

    def _is_one_step(self, stage: str, sql: str, before: tuple[str, ...], operator: str | None) -> bool:
        """Whether a query has its parent's operators and the one that was asked for, and no others."""
        try:
            found = set(operators_of(sqlglot.parse_one(sql, dialect=self._dialect)))
        except (SqlglotError, RecursionError):
            return True  # the filter rejects it, and keeps it for the reader
        added = found - set(before)
        asked = set() if operator is None else {operator}
        if set(before) <= found and (added == asked or (asked < added and operator in BRINGS_A_QUERY)):
            return True
        self._count(f"{stage}: not the operators asked for")
        return False

    def _count(self, fault: str, times: int = 1) -> None:
        with self._lock:
            self._unusable[fault] += times
