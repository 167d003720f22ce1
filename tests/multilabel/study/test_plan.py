"""What a study runs next, and with which settings, from what has finished."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tutelage.multilabel.methods.catalog import method_names
from tutelage.multilabel.study import plan
from tutelage.multilabel.study.plan import Entry, Job, NotYet, Outcome, Part, Study, Trial, Unavailable

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = tuple(Trial(name=f"x{factor:g}", factor=factor) for factor in (1, 0.1, 10))


def study(*names: str, seeds: tuple[int, ...] = (1, 2), second: int | None = None) -> Study:
    entries = tuple(Entry(name=n, family="logits", overrides=(f"method={n}",), trials=WEIGHTS) for n in names)
    parts = [Part(name="first", title="First", entries=entries, seeds=seeds)]
    if second is not None:
        borrowed = tuple(
            Entry(name=n, family="logits", overrides=(f"method={n}",), trials=WEIGHTS[:1], settings_of=n) for n in names
        )
        parts.append(Part(name="second", title="Second", entries=borrowed, seeds=(1,), best_and_worst=second))
    return Study(name="tiny", overrides=(), selection_seed=0, parts=tuple(parts), baselines=(names[0],))


def outcome(score: float, *, weight: float | None = 1.0, error: str | None = None) -> Outcome:
    metrics = {} if error else {"val/best": score, "test/mAP": score}
    return Outcome(overrides=(), metrics=metrics, weight=weight, error=error, seconds=1.0)


def job(of: Study, key: str, outcomes: dict[str, Outcome]) -> Job:
    return next(each for each in plan.jobs(of, outcomes) if each.key == key)


def test_trials_come_first_round_by_round_then_seeds() -> None:
    keys = [each.key for each in plan.jobs(study("a", "b"), {})]
    assert keys == [
        "first/a/x1", "first/b/x1", "first/a/x0.1", "first/b/x0.1", "first/a/x10", "first/b/x10",
        "first/a/seed_1", "first/b/seed_1", "first/a/seed_2", "first/b/seed_2",
    ]  # fmt: skip
    assert plan.count(study("a", "b")) == len(keys)


def test_a_factor_multiplies_the_weight_that_was_calibrated() -> None:
    of = study("a")
    with pytest.raises(NotYet):
        plan.settings(of, job(of, "first/a/x10", {}), {})
    done = {"first/a/x1": outcome(50, weight=0.25)}
    assert plan.settings(of, job(of, "first/a/x1", {}), {}) == ("method=a", "seed=0")
    assert plan.settings(of, job(of, "first/a/x10", done), done) == ("method=a", "method.weight.value=2.5", "seed=0")


def test_the_best_trial_is_frozen_for_the_test() -> None:
    of = study("a")
    done = {"first/a/x1": outcome(50, weight=2.0), "first/a/x0.1": outcome(60, weight=0.2)}
    with pytest.raises(NotYet):
        plan.settings(of, job(of, "first/a/seed_1", done), done)
    done["first/a/x10"] = outcome(0, weight=20.0, error="not finite")
    assert plan.settings(of, job(of, "first/a/seed_2", done), done) == ("method=a", "method.weight.value=0.2", "seed=2")


def test_an_entry_of_which_every_trial_failed_has_no_settings() -> None:
    of = study("a")
    done = {f"first/a/{trial.name}": outcome(0, error="does not fit", weight=None) for trial in WEIGHTS}
    with pytest.raises(Unavailable, match="does not fit"):
        plan.settings(of, job(of, "first/a/seed_1", done), done)
    with pytest.raises(Unavailable, match="not calibrated"):
        plan.settings(of, job(of, "first/a/x10", done), done)


def test_a_temperature_has_a_weight_of_its_own() -> None:
    trials = (*WEIGHTS, Trial(name="T2", factor=1, overrides=("method.temperature=2",)))
    entry = Entry(name="a", family="logits", overrides=("method=a",), trials=trials)
    part = Part(name="first", title="", entries=(entry,), seeds=(1,))
    of = Study(name="tiny", overrides=(), selection_seed=0, parts=(part,), baselines=("a",))
    done = {f"first/a/{trial.name}": outcome(50 + place, weight=7.0) for place, trial in enumerate(trials)}
    test = job(of, "first/a/seed_1", done)
    assert plan.settings(of, test, done) == (
        "method=a", "method.temperature=2", "method.weight.value=7", "seed=1"
    )  # fmt: skip


def test_the_second_part_takes_the_best_and_the_worst_with_a_weight_of_its_own() -> None:
    of = study("a", "b", "c", seeds=(1,), second=1)
    done = {}
    for name, score in (("a", 60.0), ("b", 70.0), ("c", 50.0)):
        done |= {f"first/{name}/x{factor}": outcome(score + 1, weight=1.0) for factor in ("1", "0.1")}
        done[f"first/{name}/x10"] = outcome(score + 2, weight=10.0)
        assert not any(each.part.name == "second" for each in plan.jobs(of, done))
        done[f"first/{name}/seed_1"] = outcome(score)
    second = [each.key for each in plan.jobs(of, done) if each.part.name == "second"]
    assert second == ["second/b/x1", "second/c/x1", "second/b/seed_1", "second/c/seed_1"]
    done["second/b/x1"] = outcome(40, weight=0.5)
    assert plan.settings(of, job(of, "second/b/seed_1", done), done) == (
        "method=b", "method.weight.value=5", "seed=1"
    )  # fmt: skip


def test_the_edge_is_where_a_better_setting_may_lie_beyond() -> None:
    entry = study("a").parts[0].entries[0]
    assert [plan.at_the_edge(entry, trial) for trial in WEIGHTS] == [False, True, True]
    rates = tuple(Trial(name=f"lr{rate}", overrides=(f"optim.lr={rate}",)) for rate in (3, 1, 9))
    supervised = Entry(name="s", family="", overrides=(), trials=rates)
    assert [plan.at_the_edge(supervised, trial) for trial in rates] == [False, True, True]


def spec(name: str) -> ModuleType:
    location = importlib.util.spec_from_file_location(name, ROOT / "experiments" / name / "run.py")
    assert location is not None and location.loader is not None
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


def test_the_study_on_digits_has_every_method_with_one_budget() -> None:
    of: Study = spec("methods_digits").STUDY
    first = of.parts[0]
    methods = {next(o for o in entry.overrides if o.startswith("method=")).split("=")[1] for entry in first.entries}
    assert methods == set(method_names())
    assert {len(entry.trials) for entry in first.entries} == {5}
    assert {len(entry.trials) for entry in of.parts[2].entries} == {3}
    assert plan.count(of) == 35 * 10 + 4 * 3 + 16 * 6 + 13 * 4 + 3
