"""How an exploration asks a language model: prompts go in, replies come out, whoever has the weights.

There are two back ends: :class:`ServerDoor` here, for any server of OpenAI's protocol, and ``inference/local_door.py``
for a model that is at hand. Both keep each reply on disk before it is used, so that no reply is paid for twice.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tutelage.core.errors import ConfigError
from tutelage.core.randomness import seed_of
from tutelage.core.store import content_hash
from tutelage.text2sql.api.client import Client, Refused, Service
from tutelage.text2sql.api.journal import Ledger, Price, Replies, Reply
from tutelage.text2sql.explore.pair import Json
from tutelage.text2sql.prompts.chat import Message


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt.

    Attributes:
        name: With the door's seed, what is sampled is a function of it.
        messages: The turns before the reply.
    """

    name: str
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How replies are drawn; temperature 0 is greedy."""

    count: int
    temperature: float
    max_tokens: int


@runtime_checkable
class Door(Protocol):
    """Asks a model."""

    def ask(self, asks: Sequence[Ask], *, stage: str, sampling: Sampling) -> list[list[Reply]]:
        """Return ``sampling.count`` replies to each prompt.

        Args:
            asks: Asked together: those that begin alike cost less.
            stage: What they are for, in the journal.
            sampling: How replies are drawn.

        Raises:
            RunError: The budget is spent, or nobody answers. What was answered is kept.
        """

    def summary(self) -> dict[str, Json]:
        """Say what was asked, and what it cost."""

    def close(self) -> None:
        """Give back what asking needs; it can be asked again."""


class ServerDoor:
    """A server of OpenAI's protocol: vLLM, llama.cpp, Ollama, or a service that is paid for."""

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
        concurrency: int,
        requests_per_minute: float | None,
        seconds: float,
        tries: int,
        db_id: str,
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
            concurrency: Calls under way at once.
            requests_per_minute: None for no limit.
            seconds: How long to wait for an answer.
            tries: How often to ask before giving up.
            db_id: The database that the budget is for.
            seed: Of sampling.

        Raises:
            ConfigError: A value that cannot work.
        """
        dollars = "say what a million tokens cost in US dollars; 0 for a server of your own"
        price_input = _given(price.get("input"), "price.input", dollars)
        price_output = _given(price.get("output"), "price.output", dollars)
        budget_usd = _given(budget_usd, "budget_usd", "say how many US dollars this may cost; 0 where prices are 0")
        for name, value in (("concurrency", concurrency), ("tries", tries)):
            if value < 1:
                raise ConfigError(f"synthesizer.{name}", f"{value} is too few", "give 1 or more")
        self.concurrency = concurrency
        self._seed = seed
        folder = Path(replies)
        self._ledger = Ledger(
            folder / "ledger.jsonl",
            account=content_hash({"db_id": db_id, "model": model, "base_url": base_url, "seed": seed}),
            price=Price(price_input, price_output),
            budget_usd=budget_usd,
        )
        self._client = Client(
            Service(
                where="synthesizer",
                model=model,
                base_url=base_url,
                key_variable=key_variable,
                parameters=parameters,
                seconds=seconds,
                tries=tries,
                concurrency=concurrency,
                requests_per_minute=requests_per_minute,
            ),
            replies=Replies(folder / "replies.jsonl"),
            ledger=self._ledger,
            seed=seed,
        )
        self._lock = threading.Lock()
        self._refused = 0

    def reply(self, messages: list[dict[str, str]], *, stage: str, response_format: Json) -> Reply:
        """Ask once, with the server's own parameters; for any number of threads."""
        return self._client.ask(messages, stage=stage, response_format=response_format)

    def ask(self, asks: Sequence[Ask], *, stage: str, sampling: Sampling) -> list[list[Reply]]:
        """See :class:`Door`. Each reply is a request: not every server gives several at once."""

        def one(ask: Ask, number: int) -> Reply:
            extra: dict[str, Json] = {"temperature": sampling.temperature}
            if sampling.temperature:
                extra["seed"] = seed_of(self._seed, stage, ask.name, number) % 2**31  # the protocol takes 32 bits
            turns = [{"role": str(turn["role"]), "content": turn["content"]} for turn in ask.messages]
            try:
                return self._client.ask(turns, stage=stage, response_format=None, extra=extra)
            except Refused as error:  # this prompt is too long, for one; others may not be
                with self._lock:
                    self._refused += 1
                return Reply("", f"refused: {error.what}", None, None)

        with ThreadPoolExecutor(self.concurrency) as threads:
            futures = [[threads.submit(one, ask, number) for number in range(sampling.count)] for ask in asks]
            try:
                return [[future.result() for future in of_one] for of_one in futures]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def summary(self) -> dict[str, Json]:
        """See :class:`Door`."""
        counts = self._client.counts
        told: dict[str, Json] = {
            "replies_paid": counts["paid"],
            "replies_from_cache": counts["cached"],
            "retries": counts["retries"],
            "spent_usd": round(self._ledger.spent_usd, 6),
        }
        return {**told, "refused": self._refused} if self._refused else told

    def close(self) -> None:
        """See :class:`Door`."""


def _given(value: float | None, name: str, hint: str) -> float:
    if value is None:
        raise ConfigError(f"synthesizer.{name}", "is not given", hint)
    return value
