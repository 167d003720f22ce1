"""What a model is trained on: questions that people wrote, or these and explored pairs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from tutelage.core.errors import ConfigError
from tutelage.core.randomness import generator
from tutelage.text2sql.data.examples import Example

NO_SEEDS = "use method=db_explore, which needs none, or data with training questions"


class Method(ABC):
    """Chooses the training examples."""

    explores: ClassVar[bool]  # whether it needs explored pairs
    val_share: float  # of what is trained on, by template: picks the checkpoint where the data has no val questions

    @abstractmethod
    def stages(self, seeds: Sequence[Example], explored: Sequence[Example], *, seed: int) -> list[list[Example]]:
        """Return the examples of an epoch, in stages that are gone through in order.

        Raises:
            ConfigError: There is nothing to train on.
        """


class Sft(Method):
    """Trains on the seed questions alone: what DB-Explore is compared with."""

    explores = False

    def __init__(self, *, max_seeds: int | None = None, val_share: float = 0.1) -> None:
        """Choose how many.

        Args:
            max_seeds: The most seed questions, drawn evenly; None for all.
            val_share: The part of the seeds' query templates that picks the checkpoint where the data has no
                validation questions.
        """
        _check_share("val_share", val_share)
        self.max_seeds, self.val_share = max_seeds, val_share

    def stages(self, seeds: Sequence[Example], explored: Sequence[Example], *, seed: int) -> list[list[Example]]:
        if not seeds:
            raise ConfigError("method", "sft trains on seed questions, and this data has none", NO_SEEDS)
        return [thin(seeds, self.max_seeds, "seeds", seed=seed)]


class DbExplore(Method):
    """Trains on seeds and on pairs explored in databases (DB-Explore, arXiv 2503.04959; the mixture is ours)."""

    explores = True

    def __init__(
        self,
        *,
        seed_share: float | None = None,
        max_seeds: int | None = None,
        max_pairs: int | None = None,
        max_level: int | None = None,
        easy_share: float | None = None,
        curriculum: bool = False,
        held_out: float = 0.1,
        held_out_size: int = 200,
        val_share: float = 0.05,
    ) -> None:
        """Choose the mixture.

        Args:
            seed_share: The part of the examples that are seeds, in [0, 1]; no example is used twice, so the side of
                which there is too much is thinned out. None uses all of both.
            max_seeds: The most seed questions, drawn evenly; None for all.
            max_pairs: The most explored pairs, drawn evenly; None for all.
            max_level: The highest level of explored pairs, which have one operator a level from 2 on; None for all.
            easy_share: The part of explored pairs, in [0, 1), that a model answered right each time before training;
                they are kept against forgetting, and of the others those come first that it answered right least
                often. None draws evenly. Pairs that no model answered are drawn evenly in any case.
            curriculum: Go through each epoch level by level; seeds are spread evenly over the levels.
            held_out: The part of explored query templates that is never trained on, to score on.
            held_out_size: The most held-out pairs that are scored.
            val_share: The part of explored templates that picks the checkpoint where the data has no validation
                questions.
        """
        if seed_share is not None and not 0 <= seed_share <= 1:
            raise ConfigError("method.seed_share", f"{seed_share} is not a share", "give a number in [0, 1], or null")
        if easy_share is not None and not 0 <= easy_share < 1:
            raise ConfigError("method.easy_share", f"{easy_share} is not a share", "give a number in [0, 1), or null")
        _check_share("held_out", held_out)
        _check_share("val_share", val_share)
        self.seed_share, self.max_seeds, self.max_pairs, self.max_level = seed_share, max_seeds, max_pairs, max_level
        self.easy_share, self.curriculum = easy_share, curriculum
        self.held_out, self.held_out_size, self.val_share = held_out, held_out_size, val_share

    def stages(self, seeds: Sequence[Example], explored: Sequence[Example], *, seed: int) -> list[list[Example]]:
        pairs = [pair for pair in explored if self.max_level is None or pair.level <= self.max_level]
        if self.easy_share is not None:
            pairs = prefer_missed(pairs, self.max_pairs, easy_share=self.easy_share, seed=seed)
        pairs = thin(pairs, self.max_pairs, "explored", seed=seed)
        kept = thin(seeds, self.max_seeds, "seeds", seed=seed)
        if self.seed_share is not None:
            share = self.seed_share
            if share and not seeds:
                raise ConfigError(
                    "method.seed_share",
                    f"{share} of the seed questions, and there are none",
                    "give 0 or null: this data has none",
                )
            limits = [len(side) / part for side, part in ((kept, share), (pairs, 1 - share)) if part]
            total = min(limits)
            kept = thin(kept, round(total * share), "seeds", seed=seed)
            pairs = thin(pairs, round(total * (1 - share)), "explored", seed=seed)
        if not kept and not pairs:
            raise ConfigError(
                "method", "neither seeds nor explored pairs are left to train on", "raise the limits under method"
            )
        if not self.curriculum:
            return [kept + pairs]
        levels = sorted({pair.level for pair in pairs})
        spread = [list(part) for part in np.array_split(np.array(kept, dtype=object), max(1, len(levels)))]
        return [
            part + [pair for pair in pairs if pair.level == level]
            for level, part in zip(levels or [0], spread, strict=True)
        ]


class Rejection(DbExplore):
    """Trains on what DB-Explore would, and on the model's own answers to it that are right and differ from the gold.

    The answers are sampled and judged in `training/rejection.py`, whose module text names the papers.
    """

    def __init__(
        self,
        *,
        rounds: int = 1,
        samples: int = 8,
        temperature: float = 0.8,
        top_p: float = 0.95,
        keep: int = 4,
        keep_gold: bool = True,
        seed_share: float | None = None,
        max_seeds: int | None = None,
        max_pairs: int | None = None,
        max_level: int | None = None,
        curriculum: bool = False,
        held_out: float = 0.1,
        held_out_size: int = 200,
        val_share: float = 0.05,
    ) -> None:
        """Choose how answers are sampled; see `DbExplore` for the mixture of questions.

        Args:
            rounds: How often the model is sampled and trained; each round after the first asks the model that the
                round before it trained.
            samples: Answers to each question.
            temperature: Sampling temperature.
            top_p: Probability that the tokens sampled from have together.
            keep: The most different right answers of a question that are trained on.
            keep_gold: Whether the gold is trained on as well.
        """
        super().__init__(
            seed_share=seed_share,
            max_seeds=max_seeds,
            max_pairs=max_pairs,
            max_level=max_level,
            curriculum=curriculum,
            held_out=held_out,
            held_out_size=held_out_size,
            val_share=val_share,
        )
        for key, value in (("rounds", rounds), ("samples", samples), ("keep", keep)):
            if value < 1:
                raise ConfigError(f"method.{key}", f"{value} is none", "give 1 or more")
        if temperature <= 0 or not 0 < top_p <= 1:
            what = f"temperature {temperature} and top_p {top_p}"
            raise ConfigError("method.temperature", what, "give a temperature above 0 and top_p in (0, 1]")
        self.rounds, self.samples, self.temperature, self.top_p = rounds, samples, temperature, top_p
        self.keep, self.keep_gold = keep, keep_gold


def _check_share(key: str, share: float) -> None:
    if not 0 <= share < 0.5:
        raise ConfigError(f"method.{key}", f"{share} leaves too little to train on", "give a number in [0, 0.5)")


def prefer_missed(pairs: Sequence[Example], most: int | None, *, easy_share: float, seed: int) -> list[Example]:
    """Choose pairs by how often a model answered them right before training, in their order.

    Args:
        pairs: Explored; those that no model answered stay as they are.
        most: How many are wanted; easy ones fill up what is missing. None takes all that are not easy, and as many easy
            ones as make up their share.
        easy_share: The part that it answered right each time.
        seed: Draws among equals.
    """
    judged = [pair for pair in pairs if pair.solved is not None]
    missed = [pair for pair in judged if pair.solved != 1.0]
    easy = [pair for pair in judged if pair.solved == 1.0]
    if most is None:
        num_missed, num_easy = len(missed), round(len(missed) * easy_share / (1 - easy_share))
    else:
        num_missed = min(len(missed), most - min(len(easy), round(most * easy_share)))
        num_easy = most - num_missed
    draws = {pair.id: generator(seed, "missed", pair.id).random() for pair in missed}
    hardest = sorted(missed, key=lambda pair: (pair.solved or 0.0, draws[pair.id]))[:num_missed]
    chosen = {pair.id for pair in [*hardest, *thin(easy, num_easy, "easy", seed=seed)]}
    return [pair for pair in pairs if pair.solved is None or pair.id in chosen]


def thin(examples: Sequence[Example], most: int | None, *key: str, seed: int) -> list[Example]:
    """Draw at most so many examples, in their order: a function of the seed."""
    if most is None or len(examples) <= most:
        return list(examples)
    chosen = np.sort(generator(seed, "thin", *key).permutation(len(examples))[:most])
    return [examples[index] for index in chosen]
