"""Asking a language model behind an OpenAI-compatible server: cached, paced, retried, and within a budget."""

import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import openai
from pydantic import BaseModel, Field, ValidationError

from tutelage.core.errors import ConfigError, RunError, UserError
from tutelage.core.randomness import generator
from tutelage.text2sql.api.journal import Json, Ledger, Replies, Reply

# What the client sets itself, or what would make a call cost more than its limit on tokens says.
_NOT_PARAMETERS = ("model", "messages", "stream", "n", "best_of", "response_format")
_LIMITS = ("max_completion_tokens", "max_tokens")
_LONGEST_WAIT = 60.0  # seconds between two tries
# Chat templates wrap a message into a few tokens of their own.
_TOKENS_A_MESSAGE = 16


@dataclass(frozen=True, slots=True)
class Service:
    """A server, and how to treat it.

    Attributes:
        where: The config key that it stands under, for errors.
        model: Its name for the model.
        base_url: Such as ``http://localhost:8000/v1``.
        key_variable: The environment variable that holds the key. A server of one's own needs none.
        parameters: Sent with every request as they are; one of them must limit the answer's tokens.
        seconds: How long to wait for an answer.
        tries: How often to ask before giving up.
        concurrency: Calls under way at once.
        requests_per_minute: None for as fast as answers come.
        first_wait: Seconds before the second try; the wait doubles from try to try.
    """

    where: str
    model: str
    base_url: str
    key_variable: str
    parameters: Mapping[str, Json]
    seconds: float
    tries: int
    concurrency: int
    requests_per_minute: float | None
    first_wait: float = 1.0


class Refused(ConfigError):
    """The server refuses this request, such as a prompt that is too long, and may take others."""


class Client:
    """Asks, and never pays for the same answer twice. For any number of threads."""

    def __init__(self, service: Service, *, replies: Replies, ledger: Ledger, seed: int) -> None:
        self._service, self._replies, self._ledger, self._seed = service, replies, ledger, seed
        self._max_output_tokens = _max_output_tokens(service.parameters, where=service.where)
        self._key = os.environ.get(service.key_variable, "")
        if not service.base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"{service.where}.base_url", f"{service.base_url!r} is no address", "give http(s)://host/v1"
            )
        self._openai = openai.OpenAI(
            base_url=service.base_url,
            api_key=self._key or "none",
            timeout=service.seconds,
            max_retries=0,  # every try stands in the ledger, so they are made here
        )
        self._slots = threading.BoundedSemaphore(service.concurrency)
        self._pace = _Pace(service.requests_per_minute)
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def ask(
        self,
        messages: list[dict[str, str]],
        *,
        stage: str,
        response_format: Json,
        extra: Mapping[str, Json] | None = None,
    ) -> Reply:
        """Return the model's answer: the one that it gave before, or a new one.

        Args:
            messages: The conversation.
            stage: What the call is for, in the ledger.
            response_format: As OpenAI's parameter of this name; None for plain text.
            extra: Parameters of this request alone, such as its seed.

        Raises:
            Refused: The server refuses the request.
            ConfigError: The server refuses the key or the model.
            RunError: No answer after all tries, or the budget is spent.
        """
        parameters = {**self._service.parameters, **(extra or {})}
        if response_format is not None:
            parameters["response_format"] = response_format
        key = self._replies.key(self._service.model, messages, parameters)
        with self._lock:
            of_this_request = self._locks.setdefault(key, threading.Lock())
        with of_this_request:  # a second thread with the same question waits for the first one's answer
            if (reply := self._replies.find(key)) is not None:
                self._count("cached")
                return reply
            with self._slots:
                return self._ask(key, messages, parameters, stage)

    def _ask(self, key: str, messages: list[dict[str, str]], parameters: dict[str, Json], stage: str) -> Reply:
        said = ""
        for attempt in range(self._service.tries):
            if attempt:
                self._count("retries")
            outcome = self._try(key, messages, parameters, stage)
            if isinstance(outcome, Reply):
                self._count("paid")
                return outcome
            said = outcome.said
            if attempt + 1 < self._service.tries:
                # Some jitter, lest all threads come back at once.
                jitter = generator(self._seed, key, attempt).uniform(0.75, 1.25)
                time.sleep(max(outcome.wait, min(self._service.first_wait * 2.0**attempt, _LONGEST_WAIT) * jitter))
        raise RunError(
            f"{self._service.where}.base_url",
            f"{self._service.base_url} gave no answer in {self._service.tries} tries; the last time: {said}",
            "what was done is kept: see to the server and run it again",
        )

    def _try(
        self, key: str, messages: list[dict[str, str]], parameters: dict[str, Json], stage: str
    ) -> "Reply | _NoReply":
        call = self._ledger.reserve(
            stage,
            # A token is at least a byte of text; servers put the answer's schema into the prompt.
            input_tokens=len(repr((messages, parameters)).encode()) + _TOKENS_A_MESSAGE * (len(messages) + 1),
            output_tokens=self._max_output_tokens,
        )
        self._pace.wait()
        try:
            raw = self._openai.chat.completions.with_raw_response.create(
                model=self._service.model,
                messages=messages,  # type: ignore[arg-type]
                extra_body=parameters,
            )
        except openai.APIStatusError as error:
            self._ledger.settle(call, f"status {error.status_code}", input_tokens=0, output_tokens=0)
            return self._refusal(error)
        except openai.APIConnectionError as error:  # a timeout is one, too
            self._ledger.settle_unknown(call, type(error).__name__)
            return _NoReply(f"{error} ({error.__cause__ or 'no reason given'})")
        except BaseException:
            self._ledger.settle_unknown(call, "broken off")
            raise
        return self._read(call, key, raw.text)

    def _read(self, call: str, key: str, text: str) -> "Reply | _NoReply":
        try:
            completion = _Completion.model_validate_json(text)
        except ValidationError:
            self._ledger.settle_unknown(call, "not a chat completion")
            return _NoReply(f"not a chat completion: {self._safe(text[:200])!r}")
        usage, choice = completion.usage, completion.choices[0]
        reply = Reply(
            text=choice.message.content or "",
            finish_reason=choice.finish_reason or "stop",
            input_tokens=usage.prompt_tokens if usage else None,
            output_tokens=usage.completion_tokens if usage else None,
        )
        # Before anything else: a kill between the two costs an entry in the ledger, not an answer.
        self._replies.keep(key, reply)
        if usage is None:
            self._ledger.settle_unknown(call, "reply without usage")
        else:
            self._ledger.settle(call, "reply", input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)
        return reply

    def _refusal(self, error: openai.APIStatusError) -> "_NoReply":
        """Return for another try, or raise where no other try can help."""
        said = self._safe(f"status {error.status_code}: {error.message}")
        status = error.status_code
        if status in (408, 409, 429) or status >= 500:
            if error.code == "insufficient_quota":
                raise RunError(
                    f"{self._service.where}.base_url", said, "fill up the account and run it again: all is kept"
                )
            return _NoReply(said, wait=_retry_after(error))
        raise self._explain(status, said) from None

    def _explain(self, status: int, said: str) -> UserError:
        service = self._service
        match status:
            case 401 | 403:
                state = "is refused" if self._key else "is not set"
                return ConfigError(
                    f"{service.where}.key_variable",
                    f"${service.key_variable} {state} by {service.base_url} ({said})",
                    f"put the key into the environment: export {service.key_variable}=…",
                )
            case 404:
                return ConfigError(
                    f"{service.where}.model",
                    f"{service.base_url} knows no model {service.model} ({said})",
                    "check model and base_url, which usually ends in /v1",
                )
            case _:
                return Refused(
                    f"{service.where}.parameters",
                    f"{service.base_url} refuses the request ({said})",
                    "change the parameters, or response_format, to what this server and model know",
                )

    def _safe(self, text: str) -> str:
        """Servers like to quote the key that they refuse."""
        return text.replace(self._key, "***") if self._key else text

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


@dataclass(frozen=True, slots=True)
class _NoReply:
    said: str
    wait: float = 0.0  # seconds that the server asks for


@dataclass(slots=True)
class _Pace:
    """Lets a call start every so often."""

    requests_per_minute: float | None
    _next: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self) -> None:
        if self.requests_per_minute is None:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + 60.0 / self.requests_per_minute
        time.sleep(start - now)


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _Completion(BaseModel):
    """The part of a chat completion that is read, checked here: servers differ in what they leave out."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def _max_output_tokens(parameters: Mapping[str, Json], *, where: str) -> int:
    for name in _NOT_PARAMETERS:
        if name in parameters:
            raise ConfigError(f"{where}.parameters", f"{name} cannot be set here", f"remove {name}")
    for name in _LIMITS:
        match parameters.get(name):
            case int(limit) if limit > 0:
                return limit
    raise ConfigError(
        f"{where}.parameters",
        "nothing limits the length of an answer, so nothing limits what it costs",
        f"set {_LIMITS[1]}, or {_LIMITS[0]} where the model wants that",
    )


def _retry_after(error: openai.APIStatusError) -> float:
    try:
        return min(max(0.0, float(error.response.headers.get("retry-after", ""))), _LONGEST_WAIT)
    except ValueError:
        return 0.0  # not there, or a date
