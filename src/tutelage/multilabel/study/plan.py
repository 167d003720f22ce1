"""What a study runs, in which order and with which settings: a function of what has finished.

Each entry (a method with its settings) first gets its trials, all with one seed that is no test seed, scored on the
selection split. The best trial's settings are then frozen for the test seeds.
"""

import functools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

WEIGHT = "method.weight.value"  # λ
PREPARED = "prepared"  # the name of the part before the others


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One try of an entry's settings.

    Attributes:
        name: In folders and tables, such as ``x0.3``.
        factor: λ as a multiple of the one that is calibrated with the same overrides; 1 is the run that calibrates it.
            None: the overrides say all.
        overrides: Of the command line, beside the entry's.
    """

    name: str
    factor: float | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is compared.

    Attributes:
        name: A slug; the folder's name.
        family: What its table groups it by.
        overrides: Of the command line.
        trials: Its budget.
        settings_of: The entry of the study's first part whose chosen settings it takes. Where it has a trial of its
            own, that one calibrates λ, and the chosen factor multiplies it.
    """

    name: str
    family: str
    overrides: tuple[str, ...]
    trials: tuple[Trial, ...] = ()
    settings_of: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Entries that are compared with each other.

    Attributes:
        name: A slug.
        title: For people.
        entries: In the order in which they run: the cheapest first.
        seeds: Test seeds.
        overrides: Common to all.
        best_and_worst: Take only this many of the best entries of the first part, as many of its worst, and those
            that ``always`` names.
        always: See ``best_and_worst``.
    """

    name: str
    title: str
    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]
    overrides: tuple[str, ...] = ()
    best_and_worst: int | None = None
    always: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """A run that comes before all others, such as a teacher. It is trained with the selection seed.

    Attributes:
        name: A slug.
        overrides: Of the command line.
        stands_for: Its folder takes the place of this name in braces in later overrides; of several that stand for one,
            the folder of the best on the selection split.
    """

    name: str
    overrides: tuple[str, ...]
    stands_for: str

    @property
    def key(self) -> str:
        """Its folder, below the study's runs."""
        return f"{PREPARED}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study; ``experiments/<name>/run.py`` defines one.

    Attributes:
        name: Of its folder.
        overrides: Common to all runs.
        selection_seed: Of the trials; no test seed.
        parts: In the order in which they run. Later ones may take settings of the first.
        baselines: Entries of the first part that all others are compared with.
        places: Paths that its command is given, in this order; each takes the place of ``{name}`` in overrides.
        preparations: Run first, in this order. Without any, the teacher is trained as train.py does it.
    """

    name: str
    overrides: tuple[str, ...]
    selection_seed: int
    parts: tuple[Part, ...]
    baselines: tuple[str, ...]
    places: tuple[str, ...] = ()
    preparations: tuple[Preparation, ...] = ()

    def __post_init__(self) -> None:
        for part in self.parts:
            assert self.selection_seed not in part.seeds, f"{part.name} is tested with the seed of the trials"
            names = [entry.name for entry in part.entries]
            assert len(set(names)) == len(names), f"{part.name} has an entry twice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run: a trial, or a test seed."""

    part: Part
    entry: Entry
    kind: Literal["trial", "test"]
    trial: Trial | None = None
    seed: int

    @property
    def key(self) -> str:
        """Its folder, below the study's runs."""
        last = self.trial.name if self.trial is not None else f"seed_{self.seed}"
        return f"{self.part.name}/{self.entry.name}/{last}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a job.

    Attributes:
        overrides: What it was run with, beside the study's and the part's.
        metrics: Empty where it failed.
        weight: λ at its end; None without a method's loss.
        error: Why it failed.
        seconds: From its start, or its last one, to its end.
    """

    overrides: tuple[str, ...]
    metrics: Mapping[str, float]
    weight: float | None
    error: str | None
    seconds: float

    @property
    def selection_score(self) -> float:
        """The best mAP on the selection split; −inf where it failed."""
        return -math.inf if self.error is not None else self.metrics["val/best"]


Outcomes = Mapping[str, Outcome]


class NotYet(Exception):
    """A job's settings depend on jobs that have not finished."""


class Unavailable(Exception):
    """A job has no settings, since all that could have given them failed."""


def jobs(study: Study, outcomes: Outcomes) -> list[Job]:
    """Return all jobs in their order: in each part the trials, round by round, then the test seeds, one by one.

    A part that depends on the first one's results has jobs only when these are there.
    """
    found: list[Job] = []
    for part in study.parts:
        entries = entries_of(study, part, outcomes)
        for place in range(max((len(entry.trials) for entry in entries), default=0)):
            found += [
                Job(part=part, entry=entry, kind="trial", trial=entry.trials[place], seed=study.selection_seed)
                for entry in entries
                if place < len(entry.trials)
            ]
        found += [Job(part=part, entry=entry, kind="test", seed=seed) for seed in part.seeds for entry in entries]
    return found


def count(study: Study) -> int:
    """Return how many runs the whole study has."""
    return len(study.preparations) + sum(
        len(entry.trials) + len(part.seeds)
        for part in study.parts
        for entry in (part.entries if part.best_and_worst is None else part.entries[: _size(part)])
    )


def _size(part: Part) -> int:
    assert part.best_and_worst is not None
    return 2 * part.best_and_worst + len(part.always)


def entries_of(study: Study, part: Part, outcomes: Outcomes) -> tuple[Entry, ...]:
    """Return a part's entries; none of them where the results that choose them are not all there."""
    if part.best_and_worst is None:
        return part.entries
    ranked = ranking(study, outcomes)
    if ranked is None:
        return ()
    candidates = [name for name in ranked if name not in part.always]
    chosen = {*part.always, *candidates[: part.best_and_worst], *candidates[-part.best_and_worst :]}
    return tuple(entry for entry in part.entries if entry.name in chosen)


def ranking(study: Study, outcomes: Outcomes) -> list[str] | None:
    """Return the first part's entries from the best mean test mAP down; None before all have run.

    One of which a run failed has no place.
    """
    first = study.parts[0]
    scores = {}
    for entry in first.entries:
        tests = [outcomes.get(Job(part=first, entry=entry, kind="test", seed=seed).key) for seed in first.seeds]
        if None in tests:
            return None
        if all(test is not None and test.error is None for test in tests):
            scores[entry.name] = statistics.fmean(test.metrics["test/mAP"] for test in tests if test is not None)
    return sorted(scores, key=lambda name: -scores[name])


def standing_for(study: Study, outcomes: Outcomes) -> dict[str, str]:
    """Return the folders, below the study's runs, that take the place of ``{stands_for}``.

    Raises:
        Unavailable: Every preparation of one failed.
    """
    best: dict[str, tuple[float, str]] = {}
    for each in study.preparations:
        if (outcome := outcomes.get(each.key)) is not None:
            found = (outcome.selection_score, each.key)
            if each.stands_for not in best or found[0] > best[each.stands_for][0]:
                best[each.stands_for] = found
    for name, (score, key) in best.items():
        if score == -math.inf:
            raise Unavailable(f"{name}: {outcomes[key].error}")
    return {name: key for name, (_, key) in best.items()}


def filled(overrides: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """Put paths in the place of their names in braces."""
    return [
        functools.reduce(lambda text, place: text.replace(f"{{{place[0]}}}", place[1]), places.items(), override)
        for override in overrides
    ]


def chosen_trial(study: Study, part: Part, entry: Entry, outcomes: Outcomes) -> tuple[Trial, Outcome]:
    """Return the trial with the best score on the selection split.

    Raises:
        NotYet: A trial has not finished.
        Unavailable: All failed.
    """
    tried = []
    for trial in entry.trials:
        outcome = outcomes.get(Job(part=part, entry=entry, kind="trial", trial=trial, seed=study.selection_seed).key)
        if outcome is None:
            raise NotYet(trial.name)
        tried.append((trial, outcome))
    best = max(tried, key=lambda each: each[1].selection_score)  # of equal ones the first
    if best[1].error is not None:
        raise Unavailable(f"every trial of {entry.name} failed: {best[1].error}")
    return best


def settings(study: Study, job: Job, outcomes: Outcomes) -> tuple[str, ...]:
    """Return what a job is run with, beside the overrides of its study and part.

    Raises:
        NotYet: It depends on jobs that have not finished.
        Unavailable: These failed.
    """
    return (*job.entry.overrides, *_own_settings(study, job, outcomes), f"seed={job.seed}")


def _own_settings(study: Study, job: Job, outcomes: Outcomes) -> Iterator[str]:
    borrowed = None if job.entry.settings_of is None else _chosen_of_first(study, job.entry.settings_of, outcomes)
    if borrowed is not None:
        yield from borrowed[0].overrides
    if job.trial is not None:
        yield from job.trial.overrides
        if job.trial.factor is not None and job.trial.factor != 1:
            yield _weight(job.trial.factor * _calibrated(study, job, job.trial, outcomes))
        return
    if borrowed is not None:
        trial, outcome = borrowed
        if trial.factor is not None:
            own = _calibrated(study, job, job.entry.trials[0], outcomes) if job.entry.trials else None
            yield _weight(trial.factor * own if own is not None else _known(outcome.weight))
        return
    if job.entry.trials:
        trial, outcome = chosen_trial(study, job.part, job.entry, outcomes)
        yield from trial.overrides
        if trial.factor is not None:
            yield _weight(_known(outcome.weight))


def _chosen_of_first(study: Study, name: str, outcomes: Outcomes) -> tuple[Trial, Outcome]:
    first = study.parts[0]
    entry = next(entry for entry in first.entries if entry.name == name)
    return chosen_trial(study, first, entry, outcomes)


def _calibrated(study: Study, job: Job, trial: Trial, outcomes: Outcomes) -> float:
    """Return the λ that was calibrated with the same overrides."""
    calibrating = next(each for each in job.entry.trials if each.factor == 1 and each.overrides == trial.overrides)
    outcome = outcomes.get(replace(job, kind="trial", trial=calibrating, seed=study.selection_seed).key)
    if outcome is None:
        raise NotYet(calibrating.name)
    if outcome.error is not None:
        raise Unavailable(f"λ of {job.entry.name} was not calibrated: {outcome.error}")
    return _known(outcome.weight)


def _weight(value: float) -> str:
    return f"{WEIGHT}={value:.6g}"


def _known(weight: float | None) -> float:
    if weight is None:
        raise Unavailable("the run has no train/weight in its curves: give trainer.log_every_n_steps fewer steps")
    return weight


def at_the_edge(entry: Entry, trial: Trial) -> bool:
    """Tell whether a trial is the last one tried in a direction: the optimum may lie beyond it.

    Trials with overrides of their own (a temperature, a learning rate) are compared by the value of the first, the
    others by the factor of λ.
    """
    tried = [value_of(each) for each in entry.trials if bool(each.overrides) == bool(trial.overrides)]
    return len(tried) > 1 and value_of(trial) in (min(tried), max(tried))


def value_of(trial: Trial) -> float:
    """Return what a trial tries: the value of its first override, or else its factor of λ."""
    if trial.overrides:
        return float(trial.overrides[0].split("=", 1)[1])
    assert trial.factor is not None, f"{trial.name} tries nothing"
    return trial.factor
