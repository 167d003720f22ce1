"""Questions and SQL by a language model that explores for itself: the one that is to be trained, or another.

The grammar of ``offline`` builds queries that are right by construction, and the model says them as people do; it
proposes queries of its own over sampled subgraphs (DB-Explore, arXiv 2503.04959), and its free queries tell words for
columns. Each question is then answered by independent samples of the same model, which see the question alone.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlglot
from sqlglot.errors import SqlglotError

from tutelage.core.errors import ConfigError
from tutelage.text2sql.api.journal import Reply
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.database.schema import DIALECTS, Catalog
from tutelage.text2sql.database.schema_filter import rank_columns, subset
from tutelage.text2sql.database.values import ValueIndex
from tutelage.text2sql.explore.door import Ask, Door, Sampling, ServerDoor
from tutelage.text2sql.explore.facts.evidence import evidence_for
from tutelage.text2sql.explore.facts.fact import Fact
from tutelage.text2sql.explore.facts.from_seeds import facts_from_seeds
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.knowledge import Knowledge
from tutelage.text2sql.explore.pair import Candidate, Json, Pair, Walk
from tutelage.text2sql.explore.reading import operators_of
from tutelage.text2sql.explore.seeds import Seed
from tutelage.text2sql.explore.synthesizers.api_answer import read_pairs, read_question
from tutelage.text2sql.explore.synthesizers.api_prompts import SPOKEN, Templates
from tutelage.text2sql.explore.synthesizers.base import Synthesizer
from tutelage.text2sql.explore.synthesizers.offline import Offline
from tutelage.text2sql.prompts import Detail, Prompt, sql_of
from tutelage.text2sql.prompts.base import most_that_fit
from tutelage.text2sql.prompts.chat import Message

_SPEAK = Sampling(1, 0.0, 64)
_OWN_TOKENS = 96  # of a question and its query
_CHARACTERS = 3  # that a token has at least: a schema that fits by this count fits
# What a model says of a column is read only where nobody else says anything; of a value it is for a person to judge.
_CONFIDENCE = {"code": 0.4}
_LIKELY = 0.5


class Model(Synthesizer):
    """A grammar's queries in the words of a model, and queries of the model's own."""

    walks_at_once = 16  # so that many prompts are asked together
    verifies = True

    def __init__(
        self,
        *,
        door: Door | None,
        server: Mapping[str, Any],
        prompt: Prompt | None,
        width: int,
        own: int,
        fact_walks: int,
        samples: int,
        temperature: float,
        max_new_tokens: int,
        catalog: Catalog,
        facts: Facts,
        knowledge: Knowledge,
        execute: Callable[[str], Result],
        seed: int,
    ) -> None:
        """Ask nothing yet.

        Args:
            door: Asks a model that is at hand.
            server: :class:`ServerDoor`'s settings; where ``base_url`` is given, the server is asked instead.
            prompt: How a question is put to the model that is trained: independent answers see this prompt.
            width: Candidates of the grammar a parent is extended to, at most.
            own: Queries of its own that the model is asked for at each walk.
            fact_walks: Walks over which free queries are asked for at the beginning, to learn words from.
            samples: Independent answers to each question.
            temperature: Of the answers and of free queries.
            max_new_tokens: Where an answer is cut off.
            catalog: The database's structure.
            facts: What it means.
            knowledge: How it is joined and asked.
            execute: Runs SQL in the sandbox.
            seed: Names the choices.

        Raises:
            ConfigError: Nobody to ask, or a value that cannot work.
        """
        for name, value, least in (("own", own, 0), ("fact_walks", fact_walks, 0), ("samples", samples, 1)):
            if value < least:
                raise ConfigError(f"synthesizer.{name}", f"{value} is too few", f"give {least} or more")
        if temperature <= 0:
            raise ConfigError("synthesizer.temperature", "answers that are all the same verify nothing", "give 0.8")
        if prompt is None:
            raise ConfigError("model", "no model is named", "give one: model=qwen2_5_coder_0_5b")
        if server.get("base_url") is not None:
            door = ServerDoor(**{**server, "db_id": catalog.db_id, "seed": seed})
        if door is None:
            raise ConfigError("synthesizer.door", "nobody to ask", "give model=…, or synthesizer.server.base_url=…")
        self._door, self._prompt = door, prompt
        self._width, self._own, self._fact_walks, self._seed = width, own, fact_walks, seed
        self._answering = Sampling(samples, temperature, max_new_tokens)
        self._free = Sampling(1, temperature, max(1, own) * _OWN_TOKENS)
        self._catalog, self._knowledge, self._execute = catalog, knowledge, execute
        self._templates = Templates()
        self._values: ValueIndex | None = None
        self._of_walk: dict[int, list[Candidate]] = {}
        self._unusable: Counter[str] = Counter()
        self._know(facts)

    def _know(self, facts: Facts) -> None:
        self._facts = facts
        self._grammar = Offline(
            width=self._width,
            catalog=self._catalog,
            facts=facts,
            knowledge=self._knowledge,
            execute=self._execute,
            seed=self._seed,
        )

    def learn(self, walks: Sequence[Walk]) -> list[Fact]:
        """Ask for free queries over walks; the words that their questions have for columns and joins are facts."""
        asked = [walk for walk in walks[: self._fact_walks] if self._own]
        found = [
            Seed(candidate.question, candidate.sql, None)
            for candidates in self._free_queries(asked, stage="facts").values()
            for candidate in candidates
            if (result := self._execute(candidate.sql)).status == "ok" and result.rows
        ]
        facts = [
            replace(fact, source="model", confidence=_CONFIDENCE.get(fact.kind, _LIKELY))
            for fact in facts_from_seeds(self._catalog, found)
        ]
        self._know(self._facts.merged(facts))
        return facts

    def prepare(self, walks: Sequence[Walk]) -> None:
        """Ask for queries of the model's own at each walk."""
        self._of_walk = self._free_queries(walks, stage="own") if self._own else {}

    def begin(self, walk: Walk) -> list[Candidate]:
        """Propose what the grammar does, and the model's own queries, which may have several operators at once."""
        return [*self._grammar.begin(walk), *self._of_walk.get(walk.id, ())]

    def extend(self, parent: Pair, walk: Walk) -> list[Candidate]:
        """Propose the grammar's extensions; a query of the model's own is not extended."""
        return self._grammar.extend(parent, walk) if parent.state.get("by") != "model" else []

    def spoken(self, candidates: Sequence[Candidate]) -> list[str | None]:
        """Say the grammar's questions as people do; the model's own are as it wrote them."""
        stiff = [candidate for candidate in candidates if candidate.state.get("by") != "model"]
        asks = [self._ask_to_speak(candidate) for candidate in stiff]
        replies = self._door.ask(asks, stage="speak", sampling=_SPEAK)
        said = {candidate.sql: read_question(reply) for candidate, (reply,) in zip(stiff, replies, strict=True)}
        return [said.get(candidate.sql, candidate.question) for candidate in candidates]

    def answers(self, candidates: Sequence[Candidate]) -> list[list[str]]:
        """Let the model answer questions, each several times, with the prompt that it is trained on."""
        if self._values is None:
            self._values = ValueIndex.open(self._catalog, store=None)
        asks = []
        for candidate in candidates:
            example = Example(
                candidate.question, self._catalog.db_id, candidate.question, None, evidence=candidate.evidence
            )
            known = f"{candidate.question} {candidate.evidence}"
            shown, detail = self._shown(known)
            messages = self._prompt.messages(example, shown, matches=self._values.match(known), detail=detail)
            asks.append(Ask(known, tuple(messages)))
        replies = self._door.ask(asks, stage="answer", sampling=self._answering)
        return [[sql_of(reply.text) for reply in of_one] for of_one in replies]

    def summary(self) -> dict[str, Json]:
        """Say what was asked, and what could not be used of it."""
        unusable: dict[str, Json] = {fault: times for fault, times in sorted(self._unusable.items()) if times}
        return {**self._grammar.summary(), **self._door.summary(), "unusable": unusable}

    def close(self) -> None:
        """Give back the model's memory."""
        self._door.close()

    def _free_queries(self, walks: Iterable[Walk], *, stage: str) -> dict[int, list[Candidate]]:
        walks = list(walks)
        asks = [
            self._ask_about(
                str(walk.id),
                "own",
                {
                    "count": self._own,
                    "dialect": DIALECTS[self._catalog.dialect].display,
                    "columns": [f"{table}.{column}" for table, column in walk.columns],
                },
                near=" ".join(f"{table} {column}" for table, column in walk.columns),
            )
            for walk in walks
        ]
        replies = self._door.ask(asks, stage=stage, sampling=self._free)
        return {walk.id: self._read_own(reply) for walk, (reply,) in zip(walks, replies, strict=True)}

    def _read_own(self, reply: Reply) -> list[Candidate]:
        pairs = read_pairs(reply)
        if not pairs:
            self._unusable["own: no question with its SQL"] += 1
        found = []
        for pair in pairs[: self._own]:
            try:
                operators = operators_of(sqlglot.parse_one(pair.sql, dialect=DIALECTS[self._catalog.dialect].sqlglot))
            except (SqlglotError, RecursionError):
                self._unusable["own: SQL that does not parse"] += 1
                continue
            found.append(Candidate(pair.question, pair.sql, len(operators) + 1, operators, {"by": "model"}))
        return found

    def _ask_to_speak(self, candidate: Candidate) -> Ask:
        """A query and its stiff question, after some with their answers: a small model follows turns, not lists."""
        evidence = candidate.evidence or evidence_for(candidate, self._catalog, self._facts)
        queries = [*((sql, stiff, "") for sql, stiff, _ in SPOKEN), (candidate.sql, candidate.question, evidence)]
        asked = [
            {"sql": sql, "question": stiff, "evidence": known, "first": number == 0}
            for number, (sql, stiff, known) in enumerate(queries)
        ]
        first = self._ask_about(candidate.sql, "speak", asked[0], near=f"{candidate.question} {candidate.sql}")
        turns = [*first.messages]
        for values, (_, _, said) in zip(asked[1:], SPOKEN, strict=True):
            turns.append({"role": "assistant", "content": said})
            turns.append({"role": "user", "content": self._templates.write("speak", values)})
        return Ask(candidate.sql, tuple(turns))

    def _ask_about(self, name: str, template: str, values: Mapping[str, object], *, near: str) -> Ask:
        """A prompt that begins as the answers' prompts do: with the system's turn and the database."""
        shown, detail = self._shown(near)
        system, _ = self._prompt.messages(Example("", shown.db_id, "", None), shown, matches={}, detail=detail)
        database = self._prompt.database(shown, matches={}, detail=detail)
        user: Message = {"role": "user", "content": f"{database}\n\n{self._templates.write(template, values)}"}
        return Ask(name, (system, user))

    def _shown(self, near: str) -> tuple[Catalog, Detail]:
        """The schema as far as it fits: first with less detail, then without the columns that are far from a text."""
        most = self._prompt.max_tokens * _CHARACTERS
        full = Detail(self._prompt.comments, self._prompt.samples)
        for detail in (full, Detail(full.comments, 0), Detail(False, 0)):
            if len(self._prompt.database(self._catalog, matches={}, detail=detail)) <= most:
                return self._catalog, detail
        ranked = rank_columns(self._catalog, near, matches={}, needed=frozenset())
        kept = most_that_fit(
            len(ranked),
            lambda count: (
                len(self._prompt.database(subset(self._catalog, ranked[:count]), matches={}, detail=detail)) <= most
            ),
        )
        return subset(self._catalog, ranked[:kept]), detail
