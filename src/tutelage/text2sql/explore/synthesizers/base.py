"""What the pipeline asks of a synthesizer."""

from abc import ABC, abstractmethod

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

    @abstractmethod
    def begin(self, walk: Walk) -> list[Candidate]:
        """Propose plain projections of a walk's columns (level 1)."""

    @abstractmethod
    def extend(self, parent: Pair, walk: Walk) -> list[Candidate]:
        """Propose pairs of the parent's level + 1, each with exactly one operator more than the parent."""

    def summary(self) -> dict[str, Json]:
        """Say what the manifest should tell of how it went; nothing by default."""
        return {}
