"""What outlives a kill: replies that were paid for, and what was spent. Append-only JSON lines, never rewritten."""

import json
import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from tutelage.core.errors import ConfigError, RunError
from tutelage.core.store import content_hash

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


class Journal:
    """A file of JSON objects, one a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            self._write("\n")  # what a kill left of a line must not swallow the next one

    def records(self) -> Iterator[dict[str, Json]]:
        """Read what is whole: a kill may have left half a line."""
        if not self._path.exists():
            return
        with self._path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    continue
                if isinstance(record, dict):
                    yield record

    def append(self, record: Mapping[str, Json]) -> None:
        """Write a line that is on the disk when this returns, whole even if other processes write too."""
        self._write(json.dumps(record, ensure_ascii=False) + "\n")

    def _write(self, text: str) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, text.encode())
            os.fsync(file)
        finally:
            os.close(file)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered.

    ``finish_reason`` is ``length`` where the answer was cut; tokens are None where the server does not count them.
    """

    text: str
    finish_reason: str
    input_tokens: int | None
    output_tokens: int | None


class Replies:
    """Every reply that ever came, by the hash of (model, messages, parameters)."""

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        self._known = {
            str(record.pop("key")): Reply(**record)  # type: ignore[arg-type]
            for record in self._journal.records()
        }

    @staticmethod
    def key(model: str, messages: list[dict[str, str]], parameters: Mapping[str, Json]) -> str:
        """Name a request."""
        return content_hash({"model": model, "messages": messages, "parameters": dict(parameters)})

    def find(self, key: str) -> Reply | None:
        """Return the reply to a request that was made before."""
        return self._known.get(key)

    def keep(self, key: str, reply: Reply) -> None:
        """Remember a reply, on the disk first."""
        self._journal.append({"key": key, **asdict(reply)})
        self._known[key] = reply


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens; both 0 for a server of one's own."""

    input: float
    output: float

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """Say what a call costs, in US dollars."""
        return (self.input * input_tokens + self.output * output_tokens) / 1e6


class Ledger:
    """What was spent, and the budget that no call may exceed.

    A call is written down at the most that it can cost before it starts, and at its price when its reply is there.
    So a call that a kill cut off counts in full: the server may have charged for it.
    """

    def __init__(
        self, path: Path, *, account: str, price: Price, budget_usd: float, where: str = "synthesizer"
    ) -> None:
        """Add up what the account has spent.

        Args:
            path: The file, which several accounts may share.
            account: What the budget is for; a run that goes on uses the account of the run that was killed.
            price: Of every call.
            budget_usd: What the account may spend, in all its runs.
            where: The config key that price and budget stand under, for errors.
        """
        if min(price.input, price.output, budget_usd) < 0:
            raise ConfigError(where, "a price or a budget below 0", "give 0 for what costs nothing")
        self._journal = Journal(path)
        self._account, self._price, self._budget, self._where = account, price, budget_usd, where
        self._open: dict[str, float] = {}
        self._settled = 0.0
        self._changed = threading.Condition()
        for record in self._journal.records():
            if record["account"] != account:
                continue
            call = str(record["call"])
            if "most_usd" in record:
                self._open[call] = float(record["most_usd"])  # type: ignore[arg-type]
            else:
                self._open.pop(call, None)
                self._settled += float(record["usd"])  # type: ignore[arg-type]
        self._lost = sum(self._open.values())  # of calls that a kill cut off
        self._open.clear()

    @property
    def spent_usd(self) -> float:
        """All that was spent, counting in full what was under way when a run was killed."""
        return self._settled + self._lost

    def reserve(self, stage: str, *, input_tokens: int, output_tokens: int) -> str:
        """Write down a call before it starts.

        Args:
            stage: What it is for.
            input_tokens: The most that it can send.
            output_tokens: The most that can come back.

        Returns:
            The call's id, for `settle`.

        Raises:
            RunError: It could exceed the budget.
        """
        most = self._price.of(input_tokens, output_tokens)
        with self._changed:
            # Calls under way count at their most; when they are through there may be room again.
            while self._exceeds(most) and self._open:
                self._changed.wait()
            if self._exceeds(most):
                raise RunError(
                    f"{self._where}.budget_usd",
                    f"${self.spent_usd:.4f} of ${self._budget:g} is spent and the next call can cost ${most:.4f}",
                    "what was done is kept: raise the budget and run it again, or take the pairs that are there",
                )
            call = uuid.uuid4().hex
            self._journal.append({"account": self._account, "call": call, "stage": stage, "most_usd": most})
            self._open[call] = most
            return call

    def settle(self, call: str, outcome: str, *, input_tokens: int, output_tokens: int) -> None:
        """Write down what a call came to; ``outcome`` is ``reply``, or why there is none."""
        usd = self._price.of(input_tokens, output_tokens)
        self._close(call, outcome, usd, {"input_tokens": input_tokens, "output_tokens": output_tokens})

    def settle_unknown(self, call: str, outcome: str) -> None:
        """Write down a call of which nobody knows what it came to: at its most."""
        self._close(call, outcome, self._open[call], {})

    def _close(self, call: str, outcome: str, usd: float, tokens: dict[str, Json]) -> None:
        with self._changed:
            self._journal.append({"account": self._account, "call": call, "outcome": outcome, **tokens, "usd": usd})
            del self._open[call]
            self._settled += usd
            self._changed.notify_all()

    def _exceeds(self, most: float) -> bool:
        # Prices are sums of floats: a budget that is met exactly is not exceeded.
        return self._settled + self._lost + sum(self._open.values()) + most > self._budget * (1 + 1e-9)
