"""Answers by a server that speaks OpenAI's protocol: vLLM, llama.cpp, Ollama, or a service that is paid for."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tutelage.core.errors import ConfigError, RunError
from tutelage.core.randomness import seed_of
from tutelage.text2sql.api.client import Client, Refused, Service
from tutelage.text2sql.api.journal import Json, Ledger, Price, Replies
from tutelage.text2sql.inference.answer import Inference
from tutelage.text2sql.inference.generate import Decoding, NoAnswer, Request
from tutelage.text2sql.prompts.chat import CHATML

REPLIES, LEDGER = "replies.jsonl", "ledger.jsonl"  # of the folder that scores go to
# What a token holds at most here: real ones hold more, so a prompt that fits by this count fits.
COUNTED = Regex(r"[A-Za-z]{1,4}|\d|[^\S\n]+|\n+|.")


@dataclass(frozen=True, slots=True)
class Served(Inference):
    """Questions are answered by a server (``conf/inference/api.yaml``).

    Attributes:
        model: The server's name for the model.
        base_url: Such as ``http://localhost:8000/v1``.
        key_variable: The environment variable that holds the key; a server of one's own needs none.
        parameters: Sent with every request as they are.
        concurrency: Requests under way at once.
        requests_per_minute: None for no limit.
        seconds: How long to wait for an answer.
        tries: How often to ask before an item counts as unanswered.
        price: ``input`` and ``output``, in US dollars per million tokens, and ``budget``: the most, in US dollars, that
            the answers in one folder may cost.
    """

    model: str
    base_url: str
    key_variable: str
    parameters: Mapping[str, Any]
    concurrency: int
    requests_per_minute: float | None
    seconds: float
    tries: int
    price: Mapping[str, float]

    def __post_init__(self) -> None:
        """Refuse what no server can do."""
        if self.engine != "api":
            raise ConfigError("inference.engine", f"{self.engine} is no server", "take inference=greedy, or engine=api")
        if self.kind == "beam":
            raise ConfigError(
                "inference.kind", "servers of this protocol have no beam search", "take inference.kind=sample or greedy"
            )
        if self.concurrency < 1 or self.tries < 1:
            raise ConfigError("inference.concurrency", "concurrency and tries are at least 1", "raise them")
        if {*self.price} != {"input", "output", "budget"}:
            what = f"{dict(self.price)}"
            raise ConfigError("inference.price", what, "give {input: …, output: …, budget: …}; 0 for a free server")
        Inference.__post_init__(self)

    def service(self) -> Service:
        """The server, and how long an answer may be."""
        limits = {} if "max_completion_tokens" in self.parameters else {"max_tokens": self.max_new_tokens}
        return Service(
            where="inference",
            model=self.model,
            base_url=self.base_url,
            key_variable=self.key_variable,
            parameters={**limits, **self.parameters},
            seconds=self.seconds,
            tries=self.tries,
            concurrency=self.concurrency,
            requests_per_minute=self.requests_per_minute,
        )


class ApiEngine:
    """Asks a server. Each candidate is a request with a seed of its own: not every server gives several at once.

    An answer is on disk as soon as it is there, and is not asked for again. A request that fails after all tries, or
    that the server refuses, leaves a :class:`NoAnswer` and ends nothing; only where nothing at all is answered does
    the run end, with the reason.
    """

    def __init__(self, inference: Served, *, folder: Path, seed: int) -> None:
        """Ask nothing yet.

        Args:
            inference: The server.
            folder: Where answers are kept; what it holds is not asked again.
            seed: Of sampling.

        Raises:
            ConfigError: The address is none, or a parameter cannot be set.
        """
        price = Price(float(inference.price["input"]), float(inference.price["output"]))
        ledger = Ledger(
            folder / LEDGER,
            account=inference.base_url,
            price=price,
            budget_usd=float(inference.price["budget"]),
            where="inference",
        )
        service = inference.service()
        self._client = Client(service, replies=Replies(folder / REPLIES), ledger=ledger, seed=seed)
        self._concurrency, self._seed = inference.concurrency, seed
        self._lock = threading.Lock()
        self._answered = self._failed = 0
        self._enough = inference.concurrency  # failures without an answer that end the run
        self._stopped: BaseException | None = None

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[list[str]]:
        """Answer each request with ``decoding.candidates`` texts.

        Raises:
            ConfigError: The server refuses the key or the model.
            RunError: The first requests all failed: there is no such server, or it is overloaded.
        """
        jobs = [(request, number) for request in requests for number in range(decoding.candidates)]
        self._enough = min(self._concurrency, len(jobs))
        with ThreadPoolExecutor(self._concurrency) as threads:
            futures = [threads.submit(self._answer, request, number, decoding) for request, number in jobs]
            try:
                texts = [future.result() for future in futures]
            except BaseException as error:
                self._stopped = error
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        each = decoding.candidates
        return [texts[start : start + each] for start in range(0, len(texts), each)]

    def _answer(self, request: Request, number: int, decoding: Decoding) -> str:
        if self._stopped is not None:
            return NoAnswer.because("stopped")
        extra: dict[str, Json] = {"temperature": 0.0}
        if decoding.kind == "sample":
            # OpenAI's protocol takes a seed of 32 bits.
            seed = seed_of(self._seed, request.id, number) % 2**31
            extra = {"temperature": decoding.temperature, "top_p": decoding.top_p, "seed": seed}
        turns = [{"role": str(turn["role"]), "content": turn["content"]} for turn in request.messages]
        try:
            reply = self._client.ask(turns, stage="answer", response_format=None, extra=extra)
        except (RunError, Refused) as error:
            with self._lock:
                self._failed += 1
                if not self._answered and self._failed >= self._enough:
                    raise
            return NoAnswer.because(error.what)
        with self._lock:
            self._answered += 1
        return reply.text

    @property
    def counts(self) -> Mapping[str, int]:
        """What was asked: ``paid`` answers, ``cached`` ones, ``retries``, and requests that ``failed``."""
        return {**self._client.counts, "failed": self._failed}


def counting_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer that counts a prompt's tokens where only a server has the real one: rather too many.

    It tells how much of a schema fits. Nothing that it encodes can be read back.
    """
    words = {"<unk>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(COUNTED, behavior="isolated")
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    made = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<|im_end|>"
    )
    made.chat_template = CHATML  # so that a prompt of any template can be counted
    return made
