"""What the pipeline asks of a synthesizer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from tutelage.text2sql.explore.facts.fact import Fact
from tutelage.text2sql.explore.pair import Candidate, Json, Pair, Walk


class Synthesizer(ABC):
    """Turns walks into questions and SQL, from simple to complex.

    Beside the values of its YAML, a synthesizer is built with ``catalog`` (the database's structure), ``facts`` (what
    it means), ``knowledge`` (how it is joined and asked), ``execute`` (SQL → result, in the sandbox) and ``seed``.
    What it proposes is a function of these and of the walk or parent alone, never of what it proposed before: so a
    killed exploration resumes to the same pairs.
    """

    concurrency: int = 1  # calls of begin and extend that may run at once, in threads
    walks_at_once: int = 1  # walks that begin together; unlike concurrency, this decides which pairs come
    verifies: bool = False  # whether `answers` gives some, so that questions are verified by them

    @abstractmethod
    def begin(self, walk: Walk) -> list[Candidate]:
        """Propose plain projections of a walk's columns (level 1)."""

    @abstractmethod
    def extend(self, parent: Pair, walk: Walk) -> list[Candidate]:
        """Propose pairs of the parent's level + 1, each with exactly one operator more than the parent."""

    def learn(self, walks: Sequence[Walk]) -> list[Fact]:
        """Find out what the database means before the first walk; what is returned, the synthesizer knows already."""
        return []

    def prepare(self, walks: Sequence[Walk]) -> None:  # noqa: B027
        """Take note of the walks that begin together, if it asks about all of them at once; most have no need."""

    def spoken(self, candidates: Sequence[Candidate]) -> list[str | None]:
        """Write questions as people ask them, once their SQL was found good; None where that failed."""
        return [candidate.question for candidate in candidates]

    def answers(self, candidates: Sequence[Candidate]) -> list[list[str]]:
        """Give independent SQL answers to each candidate's question, by somebody who sees the question alone."""
        return [[] for _ in candidates]

    def close(self) -> None:  # noqa: B027
        """Give back what it holds, such as a model's memory; most hold nothing."""

    def summary(self) -> dict[str, Json]:
        """Say what the manifest should tell of how it went; nothing by default."""
        return {}
