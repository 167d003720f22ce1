"""results.csv: a row for each run of a study; comparisons.csv: each entry against the baselines."""

# S seeds, R subsamples, N pictures, K labels

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.core.results import write_csv
from tutelage.multilabel.metrics import half_sample_scores
from tutelage.multilabel.results.comparison import read_predictions
from tutelage.multilabel.results.statistics import Difference, holm, paired_difference, smallest_detectable
from tutelage.multilabel.study import plan
from tutelage.multilabel.study.plan import Job, Outcome, Study

RESULTS, COMPARISONS = "results.csv", "comparisons.csv"
HALVES = "half_samples.npy"
NUM_HALVES = 200
METRICS = (
    "val/best",
    "test/mAP",
    "test/mAP_low",
    "test/mAP_high",
    "test/CF1",
    "test/OF1",
    "test/mAP_rare",
    "test/mAP_middle",
    "test/mAP_frequent",
    "test/mAP_small",
    "test/mAP_medium",
    "test/mAP_large",
    "test/fidelity_kl",
    "test/rank_agreement",
    "test/ECE",
    "test/pointing_game",
    "test/cam_mass",
    "time/train_s",
    "time/train_cpu_s",
    "time/step_ms",
    "memory/peak_mb",
)
DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run, as results.csv has it.

    Attributes:
        part: Of the study.
        entry: What was run.
        family: Of the entry.
        kind: ``prepared``, ``trial`` or ``test``.
        trial: The trial's name; of a test, the name of the one that was chosen.
        seed: Of the run.
        status: ``done`` or ``failed``.
        error: Why it failed.
        edge: The chosen trial is the last one tried in a direction.
        weight: λ; nan without a method's loss.
        settings: What it was run with, beside what its part has in common.
        metrics: Those of `METRICS` that the run has.
    """

    part: str
    entry: str
    family: str
    kind: str
    trial: str
    seed: int
    status: str
    error: str
    edge: bool
    weight: float
    settings: str
    metrics: Mapping[str, float]


def rows(study: Study, outcomes: Mapping[str, Outcome]) -> list[Row]:
    """Return a row for each run that has ended, in the study's order."""
    found = [
        _row(outcomes[each.key], part=plan.PREPARED, entry=each.name, kind="prepared", seed=study.selection_seed)
        for each in study.preparations
        if each.key in outcomes
    ]
    for job in plan.jobs(study, outcomes):
        if job.key in outcomes:
            trial, edge = _trial(study, job, outcomes)
            found.append(
                _row(
                    outcomes[job.key],
                    part=job.part.name,
                    entry=job.entry.name,
                    family=job.entry.family,
                    kind=job.kind,
                    seed=job.seed,
                    trial=trial,
                    edge=edge,
                )
            )
    return found


def _row(
    outcome: Outcome,
    *,
    part: str,
    entry: str,
    kind: str,
    seed: int,
    family: str = "",
    trial: str = "",
    edge: bool = False,
) -> Row:
    return Row(
        part=part,
        entry=entry,
        family=family,
        kind=kind,
        trial=trial,
        seed=seed,
        status="done" if outcome.error is None else "failed",
        error=outcome.error or "",
        edge=edge,
        weight=math.nan if outcome.weight is None else float(f"{outcome.weight:.6g}"),
        settings=" ".join(outcome.overrides),
        metrics={name: round(outcome.metrics[name], DIGITS) for name in METRICS if name in outcome.metrics},
    )


def _trial(study: Study, job: Job, outcomes: Mapping[str, Outcome]) -> tuple[str, bool]:
    if job.trial is not None:
        return job.trial.name, False
    try:
        if job.entry.settings_of is not None:
            first = study.parts[0]
            lender = next(entry for entry in first.entries if entry.name == job.entry.settings_of)
            return plan.chosen_trial(study, first, lender, outcomes)[0].name, False
        if not job.entry.trials:
            return "", False
        trial, _ = plan.chosen_trial(study, job.part, job.entry, outcomes)
    except (plan.Unavailable, plan.NotYet):  # every trial failed, or its folder is gone
        return "", False
    return trial.name, plan.at_the_edge(job.entry, trial)


_FIELDS = ("part", "entry", "family", "kind", "trial", "seed", "status", "error", "edge", "weight", "settings")


def write_results(folder: Path, results: Iterable[Row]) -> None:
    """Write results.csv: whole or not at all."""
    lines = []
    for row in results:
        own = {name: value for name, value in asdict(row).items() if name != "metrics"}
        lines.append(
            {**own, "edge": int(row.edge), "weight": "" if math.isnan(row.weight) else row.weight, **row.metrics}
        )
    columns = (*_FIELDS, *METRICS)
    write_csv(folder / RESULTS, columns, [[line.get(name, "") for name in columns] for line in lines])


def read_results(folder: Path) -> list[Row]:
    """Read what `write_results` wrote."""
    with (folder / RESULTS).open(newline="", encoding="utf-8") as file:
        return [
            Row(
                part=line["part"],
                entry=line["entry"],
                family=line["family"],
                kind=line["kind"],
                trial=line["trial"],
                seed=int(line["seed"]),
                status=line["status"],
                error=line["error"],
                edge=line["edge"] == "1",
                weight=float(line["weight"] or "nan"),
                settings=line["settings"],
                metrics={name: float(line[name]) for name in METRICS if line[name]},
            )
            for line in csv.DictReader(file)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One entry against a baseline of the same part, over the seeds that both have, in points of mAP.

    Attributes:
        part: Of the study.
        entry: What is compared.
        against: With what.
        seeds: How many both have.
        difference: In the test mAP.
        holm: The p-value, adjusted for all entries of the part that are compared with the same baseline.
        detectable: The true difference that this comparison finds in four of five studies, Holm's first step included.
    """

    part: str
    entry: str
    against: str
    seeds: int
    difference: Difference
    holm: float
    detectable: float


def compare(study: Study, results: Sequence[Row], *, runs: Path) -> list[Comparison]:
    """Compare the test runs of each part with the baselines, from the predictions in the runs' folders.

    A part without a baseline of its own is compared with the first part's, where it has the same networks.
    """
    found = []
    for part in study.parts:
        places = {part.name, study.parts[0].name if part.overrides == study.parts[0].overrides else part.name}
        done = [row for row in results if row.part in places and row.kind == "test" and row.status == "done"]
        tests = {(row.entry, row.seed): row for row in done}
        names = dict.fromkeys(row.entry for row in done if row.part == part.name)
        for against in study.baselines:
            pairs = {
                name: seeds
                for name in names
                if name != against and (seeds := [s for n, s in tests if n == name and (against, s) in tests])
            }
            differences = {name: _difference(tests, name, against, seeds, runs) for name, seeds in pairs.items()}
            adjusted = holm([difference.p for difference in differences.values()])
            for (name, difference), p in zip(differences.items(), adjusted, strict=True):
                found.append(
                    Comparison(
                        part=part.name,
                        entry=name,
                        against=against,
                        seeds=len(pairs[name]),
                        difference=difference,
                        holm=p,
                        detectable=smallest_detectable(
                            difference.error, difference.freedom, comparisons=len(differences)
                        ),
                    )
                )
    return found


def _difference(
    tests: Mapping[tuple[str, int], Row], name: str, against: str, seeds: Sequence[int], runs: Path
) -> Difference:
    def both(entry: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        mine = [tests[entry, seed] for seed in seeds]
        halves_SR = np.stack([_half_samples(runs / row.part / row.entry / f"seed_{row.seed}") for row in mine])
        return np.array([row.metrics["test/mAP"] for row in mine]), 100 * halves_SR

    (score_S, halves_SR), (other_S, other_SR) = both(name), both(against)
    return paired_difference(score_S, other_S, subsampled_SR=halves_SR, other_subsampled_SR=other_SR)


def _half_samples(folder: Path) -> NDArray[np.float64]:
    """Return a run's mAP on the half-samples of the test set, computed once."""
    path = folder / HALVES
    if path.is_file():
        kept: NDArray[np.float64] = np.load(path)
        return kept
    predictions = read_predictions(folder)
    halves_R = half_sample_scores(predictions.logits_NK, predictions.targets_NK, replicates=NUM_HALVES)
    buffer = io.BytesIO()
    np.save(buffer, halves_R)
    path.write_bytes(buffer.getvalue())
    return halves_R


_DIFFERENCE = ("mean", "low", "high", "p", "error", "freedom")


def write_comparisons(folder: Path, comparisons: Iterable[Comparison]) -> None:
    """Write comparisons.csv."""
    lines = [
        {
            "part": each.part,
            "entry": each.entry,
            "against": each.against,
            "seeds": each.seeds,
            **{name: f"{value:.5g}" for name, value in asdict(each.difference).items()},
            "holm": f"{each.holm:.5g}",
            "detectable": f"{each.detectable:.5g}",
        }
        for each in comparisons
    ]
    columns = ("part", "entry", "against", "seeds", *_DIFFERENCE, "holm", "detectable")
    write_csv(folder / COMPARISONS, columns, [[line[name] for name in columns] for line in lines])


def read_comparisons(folder: Path) -> list[Comparison]:
    """Read what `write_comparisons` wrote."""
    with (folder / COMPARISONS).open(newline="", encoding="utf-8") as file:
        return [
            Comparison(
                part=line["part"],
                entry=line["entry"],
                against=line["against"],
                seeds=int(line["seeds"]),
                difference=Difference(**{name: float(line[name]) for name in _DIFFERENCE}),
                holm=float(line["holm"]),
                detectable=float(line["detectable"]),
            )
            for line in csv.DictReader(file)
        ]
