"""From questions to queries: prompts, candidates, execution, selection, repair."""

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.store import Store, write_atomically
from tutelage.text2sql.data.examples import Example, Source
from tutelage.text2sql.database.check import check_database
from tutelage.text2sql.database.executor import Executor, Query, Result
from tutelage.text2sql.database.values import ValueIndex
from tutelage.text2sql.inference.generate import Decoding, Engine, NoAnswer, Request
from tutelage.text2sql.inference.select import Candidate, Selection, choose
from tutelage.text2sql.inference.vllm import check_vllm
from tutelage.text2sql.prompts import Encoded, Matches, Prompt, View, sql_of
from tutelage.text2sql.prompts.chat import Message, check_template, prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPAIR = "This query fails: {error}\nAnswer with a corrected query in a ```sql block."
PREDICTIONS = "predictions.jsonl"  # of a run's folder
NO_QUERY = "the answer holds no query"
NO_ANSWER = "no answer: "  # begins the error of a candidate that a server did not write


@dataclass(frozen=True, slots=True)
class Inference:
    """How questions are answered (``conf/inference/*.yaml``).

    Attributes:
        engine: What generates: ``transformers``, ``vllm`` for a saved model on a GPU, or ``api`` for a server
            (``api_engine.Served`` then says which).
        kind: ``greedy``, ``beam`` or ``sample``.
        candidates: Answers to each question.
        temperature: Sampling temperature.
        top_p: Probability that the tokens sampled from have together.
        select: Which candidate is the answer: ``first``, ``first_that_runs`` or ``majority`` by result.
        repair_rounds: How often a query that fails goes back to the model with its error.
        max_new_tokens: Where an answer is cut off.
        batch_size: Rows at a time.
    """

    engine: Literal["transformers", "vllm", "api"]
    kind: Literal["greedy", "beam", "sample"]
    candidates: int
    temperature: float
    top_p: float
    select: Selection
    repair_rounds: int
    max_new_tokens: int
    batch_size: int

    def __post_init__(self) -> None:
        """Refuse what cannot work; ``Decoding`` refuses the rest."""
        if self.engine == "vllm":
            check_vllm()
        if self.repair_rounds < 0:
            raise ConfigError("inference.repair_rounds", f"{self.repair_rounds} is negative", "give 0 or more")
        self.decoding()

    def decoding(self) -> Decoding:
        """How the first answers are written."""
        return Decoding(self.kind, self.candidates, self.temperature, self.top_p, self.max_new_tokens, self.batch_size)

    def greedy(self) -> "Inference":
        """One greedy answer, neither run nor repaired: for scores while training, and for repairs."""
        return replace(self, kind="greedy", candidates=1, select="first", repair_rounds=0)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question.

    Attributes:
        id: The example's.
        db_id: The database's.
        question: As asked.
        source: Who asked: people (``seed``), or an exploration.
        sql: The chosen query; empty if the model wrote none.
        chosen: Its index among the candidates.
        candidates: All of them, repairs last.
        dropped: Columns that the schema filter left out of the prompt.
    """

    id: str
    db_id: str
    question: str
    source: Literal["seed", "explored"]
    sql: str
    chosen: int
    candidates: tuple[Candidate, ...]
    dropped: tuple[str, ...]

    @property
    def unanswered(self) -> str:
        """Why the model wrote nothing; empty if it wrote something."""
        error = self.candidates[self.chosen].error
        return error.removeprefix(NO_ANSWER) if error.startswith(NO_ANSWER) else ""

    def record(self) -> dict[str, Any]:
        """As a line of ``predictions.jsonl``."""
        return asdict(self)


class Answerer:
    """Answers questions about a source's databases. It holds no model, so that one in training can be asked."""

    def __init__(
        self, source: Source, *, prompt: Prompt, inference: Inference, executor: Executor, store: Store | None
    ) -> None:
        """Keep what every answer needs.

        Args:
            source: Of the databases.
            prompt: How a question is put.
            inference: How it is answered.
            executor: The sandbox that candidates run in.
            store: Where indexes of values are kept.
        """
        self.source, self.prompt, self.inference, self.executor, self.store = source, prompt, inference, executor, store
        self._values: dict[str, ValueIndex] = {}
        self._matches: dict[tuple[str, str], Matches] = {}

    def changed(self, *, inference: Inference | None = None, executor: Executor | None = None) -> "Answerer":
        """Answer the same questions in another way, or in another sandbox; the indexes of values are shared."""
        other = Answerer(
            self.source,
            prompt=self.prompt,
            inference=inference or self.inference,
            executor=executor or self.executor,
            store=self.store,
        )
        other._values, other._matches = self._values, self._matches
        return other

    def encode(self, tokenizer: "PreTrainedTokenizerBase", example: Example) -> Encoded:
        """Turn a question into token ids, with the values of its database that match it; see ``Prompt.encode``."""
        catalog = self.source.catalog(example.db_id)
        return self.prompt.encode(tokenizer, example, catalog, matches=self.matches(example))

    def encode_group(
        self, tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example], *, view: View | None, longest: int
    ) -> list[Encoded]:
        """Turn examples of one database into token ids to train on, all with the same view of its schema.

        Args:
            tokenizer: The model's.
            examples: The group.
            view: Which version of the schema; None for the whole.
            longest: The most tokens of prompt and answer together; a longer schema loses detail, then columns.
        """
        catalog = self.source.catalog(examples[0].db_id)
        if view is not None:
            sqls = [example.sql for example in examples]
            catalog = self.prompt.training_view(catalog, db_id=examples[0].db_id, sqls=sqls, view=view)
        return [
            self.prompt.encode(
                tokenizer, example, catalog, matches=self.matches(example), training=True, longest=longest
            )
            for example in examples
        ]

    def matches(self, example: Example) -> Matches:
        """Find the values of the example's database that its question and evidence speak of, by column."""
        key = (example.db_id, f"{example.question} {example.evidence}")
        if key not in self._matches:  # training asks anew in each epoch
            if example.db_id not in self._values:
                catalog = self.source.catalog(example.db_id)
                self._values[example.db_id] = ValueIndex.open(
                    catalog, database=self.source.databases[example.db_id], store=self.store
                )
            self._matches[key] = self._values[example.db_id].match(key[1])
        return self._matches[key]

    def check(
        self, tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example], *, context: int | None
    ) -> list[Encoded]:
        """Refuse what cannot be answered, before the long part.

        Args:
            tokenizer: The model's.
            examples: All that will be asked.
            context: The most tokens that the model can attend to; None if it sets no limit.

        Returns:
            The encoded examples.

        Raises:
            ConfigError: The tokenizer does not fit the prompt's template.
            DataError: A database vanished, or a prompt leaves no room for an answer.
        """
        check_template(tokenizer, self.prompt.template)
        for db_id in dict.fromkeys(example.db_id for example in examples):
            if db_id not in self.source.databases:
                raise DataError("data", f"no database {db_id}", "leave its questions out, or give the database")
            check_database(self.source.databases[db_id], where="data")
        encoded = [self.encode(tokenizer, example) for example in examples]
        room = None if context is None else context - self.inference.max_new_tokens
        too_long = [
            (len(prompt.prompt_ids), example.id)
            for prompt, example in zip(encoded, examples, strict=True)
            if not prompt.fits or (room is not None and len(prompt.prompt_ids) > room)
        ]
        if too_long:
            longest, worst = max(too_long)
            limit = self.prompt.max_tokens if room is None else min(self.prompt.max_tokens, room)
            raise DataError(
                "prompt",
                f"{len(too_long)} prompts have more than {limit} tokens (prompt.max_tokens, or the model's context "
                f"less inference.max_new_tokens); the longest, {worst}, has {longest}",
                "set prompt.max_tokens to the context less the answer, use prompt=brief, or a longer-context model",
            )
        filtered = [len(prompt.dropped) for prompt in encoded if prompt.dropped]
        if filtered:
            warnings.warn(
                f"{len(filtered)} of {len(encoded)} prompts exceed prompt.max_tokens={self.prompt.max_tokens}: "
                f"{sum(filtered) / len(filtered):.0f} columns each, on average, are left out of their schemas "
                "(predictions.jsonl names them)",
                stacklevel=2,
            )
        return encoded

    def answer(
        self,
        engine: Engine,
        tokenizer: "PreTrainedTokenizerBase",
        examples: Sequence[Example],
        *,
        context: int | None = None,
        encoded: Sequence[Encoded] | None = None,
        results: dict[str, Result] | None = None,
    ) -> list[Answer]:
        """Answer questions: candidates of all of them are generated together, then run, then repaired.

        Args:
            engine: Writes.
            tokenizer: The model's.
            examples: The questions.
            context: The most tokens that the model can attend to; a repair that does not fit is not asked for. None
                sets no limit.
            encoded: The encoded examples, where :meth:`check` has returned them already.
            results: Receives the result of each query that ran, by its SQL. None keeps none of them: over a test set
                they would not fit into memory.
        """
        room = None if context is None else context - self.inference.max_new_tokens
        encoded = encoded or [self.encode(tokenizer, example) for example in examples]
        requests = [
            Request(example.id, prompt.prompt_ids, tuple(prompt.messages))
            for example, prompt in zip(examples, encoded, strict=True)
        ]
        texts = engine.generate(requests, self.inference.decoding())
        answers = self._select(examples, encoded, texts, kept=results)
        for number in range(1, self.inference.repair_rounds + 1):
            # Also where none is broken: the engine of a sharded model has to be called in all processes or in none.
            broken = [index for index, answer in enumerate(answers) if _is_repairable(answer)]
            asked = {index: self._repair(tokenizer, encoded[index], answers[index], number) for index in broken}
            fitting = [index for index in broken if room is None or len(asked[index].prompt_ids) <= room]
            if len(fitting) < len(broken):
                warnings.warn(
                    f"queries that fail and are not repaired: {len(broken) - len(fitting)}. Prompt, query and error "
                    f"are longer than {room} tokens (the model's context less inference.max_new_tokens)",
                    stacklevel=2,
                )
            broken = fitting
            retries = [asked[index] for index in broken]
            repaired = engine.generate(retries, self.inference.greedy().decoding())
            sqls = [[sql_of(text)] for (text,) in repaired]
            ran = self._run([examples[index] for index in broken], sqls, kept=results)
            for index, (text,), (result,) in zip(broken, repaired, ran, strict=True):
                candidate = Candidate(str(text), sql_of(text), result.status, _why(text, result.error), round=number)
                answers[index] = _with_repair(answers[index], candidate)
        return answers

    def _select(
        self,
        examples: Sequence[Example],
        encoded: Sequence[Encoded],
        texts: Sequence[Sequence[str]],
        *,
        kept: dict[str, Result] | None,
    ) -> list[Answer]:
        """Choose each example's query among its candidates; they are run only where that matters."""
        sqls = [[sql_of(text) for text in written] for written in texts]
        runs = self.inference.select != "first" or self.inference.repair_rounds > 0
        all_results = self._run(examples, sqls, kept=kept) if runs else None
        answers = []
        for number, (example, prompt) in enumerate(zip(examples, encoded, strict=True)):
            written, queries = texts[number], sqls[number]
            if all_results is None:
                chosen = 0
                candidates = [
                    Candidate(str(text), sql, "error" if isinstance(text, NoAnswer) else None, _why(text, ""))
                    for text, sql in zip(written, queries, strict=True)
                ]
            else:
                results = next(all_results)
                chosen, counts = choose(self.inference.select, queries, results)
                candidates = [
                    Candidate(str(text), sql, result.status, _why(text, result.error), count)
                    for text, sql, result, count in zip(written, queries, results, counts, strict=True)
                ]
            answers.append(
                Answer(
                    id=example.id,
                    db_id=example.db_id,
                    question=example.question,
                    source=example.source,
                    sql=candidates[chosen].sql,
                    chosen=chosen,
                    candidates=tuple(candidates),
                    dropped=prompt.dropped,
                )
            )
        return answers

    def _run(
        self, examples: Sequence[Example], sqls: Sequence[Sequence[str]], *, kept: dict[str, Result] | None
    ) -> Iterator[list[Result]]:
        """Run each example's queries in the sandbox, equal ones once; ``kept`` receives what the queries gave."""
        distinct = [list(dict.fromkeys(sql for sql in queries if sql)) for queries in sqls]
        stream = self.executor.map(
            Query(self.source.databases[example.db_id], sql)
            for example, queries in zip(examples, distinct, strict=True)
            for sql in queries
        )
        for queries, once in zip(sqls, distinct, strict=True):
            found = {sql: next(stream) for sql in once}
            if kept is not None:
                kept.update(found)
            yield [found.get(sql, Result("error", (), [], NO_QUERY, 0.0)) for sql in queries]

    def _repair(self, tokenizer: "PreTrainedTokenizerBase", prompt: Encoded, answer: Answer, number: int) -> Request:
        """The prompt with the failed answer and its error; ``number`` counts the repairs of an answer."""
        failed = answer.candidates[answer.chosen]
        turns: list[Message] = [
            *prompt.messages,
            {"role": "assistant", "content": failed.text},
            {"role": "user", "content": REPAIR.format(error=failed.error)},
        ]
        ids = prompt_ids(tokenizer, turns, template=self.prompt.template)
        return Request(f"{answer.id}#{number}", ids, tuple(turns))


def _why(text: str, error: str) -> str:
    """A candidate's error: that of its query, unless there is no answer at all."""
    return f"{NO_ANSWER}{text.why}" if isinstance(text, NoAnswer) else error


def write_predictions(path: Path, answers: Sequence[Answer]) -> None:
    """Write a line an answer, with its candidates, their fate and votes."""
    write_atomically(path, "".join(json.dumps(answer.record(), ensure_ascii=False) + "\n" for answer in answers))


def _is_repairable(answer: Answer) -> bool:
    """Whether the query fails in a way that the model can be told of: not where its process was ended, or no answer."""
    return answer.candidates[answer.chosen].status not in ("ok", "crashed") and not answer.unanswered


def _with_repair(answer: Answer, candidate: Candidate) -> Answer:
    """Add a repair, and choose it: if it fails too, the next round starts from its error."""
    candidates = (*answer.candidates, candidate)
    # A repair without any query must not take the place of one that at least is there.
    if not candidate.sql:
        return replace(answer, candidates=candidates)
    return replace(answer, sql=candidate.sql, chosen=len(candidates) - 1, candidates=candidates)
