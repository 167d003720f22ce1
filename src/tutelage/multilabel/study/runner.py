"""Runs a study in this process, and continues it wherever it was stopped.

A run that has ended, well or not, is never trained again; a killed one goes on from its last checkpoint. Several
processes may work on one study: each takes the first job that nobody has. To repeat a failed run, delete its folder.
"""

import contextlib
import gc
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import tutelage
from tutelage.core import config
from tutelage.core.callbacks import CHECKPOINTS, LAST
from tutelage.core.config import CONF
from tutelage.core.curves import read_curves
from tutelage.core.errors import RunError
from tutelage.core.results import read_json, write_json
from tutelage.core.run import prepare, train
from tutelage.core.store import content_hash
from tutelage.multilabel.study import plan, table
from tutelage.multilabel.study.plan import Job, Outcome, Study

OUTCOME = "outcome.json"
LOG = "log.txt"
WAIT = 5.0  # seconds
AGAIN = "start it again; a worktree of its own keeps a study from changes of the code"


def run(study: Study, *, places: Mapping[str, str], runs: Path, out: Path) -> dict[str, Outcome]:
    """Train what is left, and write results.csv after each run.

    Args:
        study: What to run.
        places: What stands for the study's names in braces.
        runs: Where the run folders go.
        out: The study's folder, for results.csv.

    Returns:
        What became of each run, of other processes' too.

    Raises:
        RunError: A run that the others need failed, or the user interrupted one.
    """
    config.register()
    code = code_state()
    places = _prepare(study, dict(places), runs=runs)
    seconds: list[float] = []
    while True:
        outcomes = read_outcomes(study, runs=runs)
        table.write_results(out, table.rows(study, outcomes))
        with _free_job(study, outcomes, runs=runs) as taken:
            if taken is None and all(job.key in outcomes for job in plan.jobs(study, outcomes)):
                table.write_results(out, table.rows(study, outcomes))  # with those that had no settings
                return outcomes
            if taken is None:  # what is left waits for a run of another process
                time.sleep(WAIT)
                continue
            if code_state() != code:  # configs of one version would meet modules of another
                raise RunError("study", "the code has changed since this process began", AGAIN)
            job, own = taken
            split = ["scoring.split=val"] if job.kind == "trial" else []  # trials never see the test split
            whole = [*study.overrides, *job.part.overrides, *own, *split]
            outcome = run_one(plan.filled(whole, places), own=own, folder=runs / job.key)
        outcomes[job.key] = outcome
        seconds.append(outcome.seconds)
        left = max(plan.count(study) - len(outcomes), 0)
        line = _line(job.key, outcome, "val/best" if job.kind == "trial" else "test/mAP")
        hours, minutes = divmod(round(sum(seconds) / len(seconds) * left / 60), 60)
        print(f"{len(outcomes)}/{len(outcomes) + left}  {line}  left about {hours}:{minutes:02} h", flush=True)


def _prepare(study: Study, places: dict[str, str], *, runs: Path) -> dict[str, str]:
    """Train what the others need, or find it, so that no run's time holds it; return what stands for each name."""
    if not study.preparations:
        first = study.parts[0]
        entry = next(entry for entry in first.entries if "method=supervised" not in entry.overrides)
        whole = plan.filled([*study.overrides, *first.overrides, *entry.overrides], places)
        with FileLock(_made(runs / "teacher").with_name("teacher.lock")):  # a second process waits
            prepare(composed(whole, folder=runs / "teacher"), folder=runs / "teacher")
        return places
    for each in study.preparations:
        with FileLock(_made(runs / each.key).with_name(f"{each.name}.lock")):  # a second process waits
            known = read_outcomes(study, runs=runs)
            if each.key not in known:
                own = (*each.overrides, f"seed={study.selection_seed}")
                whole = plan.filled([*study.overrides, *own], places | _prepared(study, known, runs=runs))
                outcome = run_one(whole, own=own, folder=runs / each.key)
                print(_line(each.key, outcome, "val/best"), flush=True)
    return places | _prepared(study, read_outcomes(study, runs=runs), runs=runs)


def _prepared(study: Study, outcomes: Mapping[str, Outcome], *, runs: Path) -> dict[str, str]:
    try:
        return {name: str(runs / key) for name, key in plan.standing_for(study, outcomes).items()}
    except plan.Unavailable as reason:
        raise RunError("study", str(reason), f"see the logs below {runs / plan.PREPARED}") from None


def composed(overrides: list[str], *, folder: Path) -> DictConfig:
    """Compose a run's config as train.py does."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=[*overrides, f"run={folder}"])


def read_outcomes(study: Study, *, runs: Path) -> dict[str, Outcome]:
    """Read what has ended, here or in another process."""
    keys = [each.key for each in study.preparations]
    outcomes = {key: _read(runs / key) for key in keys if (runs / key / OUTCOME).is_file()}
    known = -1
    while known != len(outcomes):  # a part may come into being when the one before it is complete
        known = len(outcomes)
        for job in plan.jobs(study, outcomes):
            if job.key not in outcomes and (runs / job.key / OUTCOME).is_file():
                outcomes[job.key] = _read(runs / job.key)
    return outcomes


def _read(folder: Path) -> Outcome:
    content = read_json(folder / OUTCOME)
    return Outcome(**{**content, "overrides": tuple(content["overrides"])})


def _made(folder: Path) -> Path:
    """Make the folder above, for a lock beside it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def _free_job(
    study: Study, outcomes: dict[str, Outcome], *, runs: Path
) -> Iterator[tuple[Job, tuple[str, ...]] | None]:
    """Find the first job that can run and that no other process has, and keep it to this process meanwhile."""
    for job in plan.jobs(study, outcomes):
        folder = runs / job.key
        if job.key in outcomes:
            continue
        try:
            overrides = plan.settings(study, job, outcomes)
        except plan.NotYet:
            continue
        except plan.Unavailable as reason:
            outcomes[job.key] = keep(
                folder, Outcome(overrides=(), metrics={}, weight=None, error=str(reason), seconds=0.0)
            )
            continue
        lock = FileLock(_made(folder).with_name(f"{folder.name}.lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        try:
            if not (folder / OUTCOME).is_file():  # else another process has ended it since
                yield job, overrides
                return
        finally:
            lock.release()
    yield None


def run_one(overrides: list[str], *, own: tuple[str, ...], folder: Path) -> Outcome:
    """Train one run, or continue it; what stops it is kept as its outcome.

    What it prints goes to ``log.txt`` in its folder.

    Args:
        overrides: All of them.
        own: Those that the results show.
        folder: The run's.

    Raises:
        RunError: The user interrupted it, or the code was changed under it.
    """
    started, code = time.monotonic(), code_state()
    error, metrics = None, {}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            found = train(composed(overrides, folder=folder), folder=folder)
            metrics = {name: value for name, value in found.items() if not isinstance(value, str)}
        except Exception as failure:  # whatever it is, it is a row of the results
            if isinstance(failure, RunError) and failure.what == "interrupted":
                raise
            error = f"{type(failure).__name__}: {failure}".splitlines()[0]
            error = error.replace(f"{folder}/", "")  # the results name no place of this machine
    if error is not None and code_state() != code:
        raise RunError("study", f"the code changed while {folder} ran, which failed: {error}", AGAIN)
    (folder / CHECKPOINTS / LAST).unlink(missing_ok=True)  # nobody continues it
    gc.collect()
    weights = read_curves(folder).get("train/weight")
    return keep(
        folder,
        Outcome(
            overrides=own,
            metrics=metrics,
            weight=weights[-1][1] if weights else None,
            error=error,
            seconds=round(time.monotonic() - started, 2),
        ),
    )


def keep(folder: Path, outcome: Outcome) -> Outcome:
    """Write what became of a job into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / OUTCOME, asdict(outcome))
    return outcome


def code_state() -> str:
    """Return a hash that changes when a source or config file does."""
    files = sorted([*CONF.rglob("*.yaml"), *Path(tutelage.__file__).parent.rglob("*.py")])
    return content_hash({str(path): path.stat().st_mtime_ns for path in files})


def _line(key: str, outcome: Outcome, metric: str) -> str:
    result = f"failed: {outcome.error}" if outcome.error is not None else f"{metric} {outcome.metrics[metric]:.2f}"
    return f"{key}  {result}  {outcome.seconds:.0f} s"
