"""A study's README: its tables and figures, made of results.csv and comparisons.csv alone."""

import functools
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tutelage.core.errors import DataError
from tutelage.core.results import markdown_table, mean_and_std
from tutelage.core.store import write_atomically
from tutelage.multilabel.results.statistics import Difference, paired_difference
from tutelage.multilabel.study import plan
from tutelage.multilabel.study.plan import Part, Study
from tutelage.multilabel.study.table import Comparison, Row, read_comparisons, read_results

MAP = "test/mAP"
SUPERVISED = "supervised"
COLOURS = {
    "baseline": "#444444",
    "logits": "#1b6ca8",
    "maps": "#c8553d",
    "features": "#3c8d5a",
    "relations": "#8a5fa8",
}


def write(study: Study, *, folder: Path) -> None:
    """Fill README.md's marked blocks, and draw the figures.

    A block is what stands between ``<!-- name -->`` and ``<!-- end -->``.

    Raises:
        DataError: results.csv or comparisons.csv is not there.
    """
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8")
    try:
        rows, comparisons = read_results(folder), read_comparisons(folder)
    except FileNotFoundError as error:
        raise DataError(str(error.filename), "is not there", f"run python {folder}/run.py first") from None
    blocks = {
        "progress": progress(study, rows),
        "time table": time_table(rows, first=study.parts[0].name),
        "failures": failures(rows),
    }
    for part in study.parts:
        mine = [row for row in rows if row.part == part.name]
        theirs = [each for each in comparisons if each.part == part.name]
        figures: dict[str, Figure | None] = {
            "forest": draw_forest(mine, theirs) if theirs else None,
            "trials": draw_trials(part, mine) if any(row.kind == "trial" for row in mine) else None,
            "figure": draw_axis(mine) if any(row.kind == "test" for row in mine) else None,
        }
        blocks[f"{part.name} table"] = main_table(mine, theirs)
        for name, figure in figures.items():
            blocks[f"{part.name} {name}"] = "Not run yet.\n"
            if figure is not None and f"<!-- {part.name} {name} -->" in text:
                _save(figure, folder / f"{part.name}_{name}.svg")
                blocks[f"{part.name} {name}"] = f"![{part.title}: {name}]({part.name}_{name}.svg)\n"
    for name, block in blocks.items():
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(functools.partial(_filled, block=block), text)
    write_atomically(readme, text)


def _filled(found: re.Match[str], *, block: str) -> str:
    return f"{found[1]}\n{block}\n{found[2]}"


def progress(study: Study, rows: Sequence[Row]) -> str:
    """Say how much of each part has run."""
    lines = []
    for part in study.parts:
        mine = [row for row in rows if row.part == part.name]
        size = len(part.entries) if part.best_and_worst is None else 2 * part.best_and_worst + len(part.always)
        trials = sum(len(entry.trials) for entry in part.entries[:size])
        done = {kind: sum(row.kind == kind for row in mine) for kind in ("trial", "test")}
        failed = sum(row.status == "failed" for row in mine)
        lines.append(
            [
                part.title,
                f"{done['trial']} of {trials}",
                f"{done['test']} of {size * len(part.seeds)}",
                str(failed),
            ]
        )
    return markdown_table(["part", "trials", "test runs", "of them failed"], lines)


def main_table(rows: Sequence[Row], comparisons: Sequence[Comparison]) -> str:
    """Return a row for each entry, the best mean test mAP first."""
    if not any(row.kind == "test" for row in rows):
        return "No test run has ended yet.\n"
    lines = []
    for name, tests in _by_mean(rows):
        of = {each.against: each for each in comparisons if each.entry == name}
        base = of.get(SUPERVISED)
        lines.append(
            [
                name,
                tests[0].family,
                _settings(tests[0]),
                _mean(tests, MAP),
                _interval(base),
                "" if base is None or math.isnan(base.holm) else f"{base.holm:.3g}",
                "" if base is None or math.isnan(base.detectable) else f"{base.detectable:.1f}",
                _interval(of.get("mse")),
                *(_mean(tests, key, digits=digits) for key, digits in _BESIDE.values()),
            ]
        )
    header = [
        "entry", "family", "settings", "mAP", "over supervised [95 %]", "p (Holm)", "could see", "over mse [95 %]",
        *_BESIDE,
    ]  # fmt: skip
    return markdown_table(header, lines)


_BESIDE = {
    "CF1": ("test/CF1", 1),
    "rare": ("test/mAP_rare", 1),
    "small": ("test/mAP_small", 1),
    "pointing": ("test/pointing_game", 1),
    "ECE": ("test/ECE", 1),
    "KL to teacher": ("test/fidelity_kl", 3),
    "ms a step": ("time/step_ms", 0),
    "MB": ("memory/peak_mb", 0),
}


def time_table(rows: Sequence[Row], *, first: str) -> str:
    """Compare each entry with supervision that trained as long by the clock, interpolated between its lengths."""
    tests = {
        (row.entry, row.seed): row for row in rows if row.kind == "test" and row.status == "done" and _cost(row) > 0
    }
    lengths = [name for name in (SUPERVISED, "supervised_2x", "supervised_4x") if any(e == name for e, _ in tests)]
    lines = []
    for name, mine in _by_mean([row for row in rows if row.part == first and row.family != "baseline"]):
        seeds = [row.seed for row in mine if all((length, row.seed) in tests for length in lengths)]
        if len(lengths) < 2 or not seeds or any((name, seed) not in tests for seed in seeds):
            continue
        matched = []
        for seed in seeds:
            curve = sorted((math.log(_cost(row)), row.metrics[MAP]) for row in (tests[n, seed] for n in lengths))
            place = math.log(_cost(tests[name, seed]))
            matched.append(float(np.interp(place, [x for x, _ in curve], [y for _, y in curve])))
        scores = np.array([tests[name, seed].metrics[MAP] for seed in seeds])
        ratio = statistics.fmean(_cost(tests[name, s]) / _cost(tests[SUPERVISED, s]) for s in seeds)
        difference = paired_difference(scores, np.array(matched))
        lines.append([name, f"{ratio:.2f}", f"{np.mean(matched):.2f}", f"{scores.mean():.2f}", _text(difference)])
    if not lines:
        return "Needs test runs of longer supervision.\n"
    header = ["entry", "time over supervised", "supervised, as long", "mAP", "difference [95 %, seeds]"]
    return markdown_table(header, lines)


def _cost(row: Row) -> float:
    """Processor seconds of the training, which other processes disturb less than the clock."""
    return row.metrics.get("time/train_cpu_s", 0.0)


def failures(rows: Sequence[Row]) -> str:
    """List the runs that failed."""
    found = [row for row in rows if row.status == "failed"]
    if not found:
        return "None.\n"
    lines = [[row.part, row.entry, row.trial or f"seed {row.seed}", row.error.replace("|", "/")] for row in found]
    return markdown_table(["part", "entry", "run", "why"], lines)


def _by_mean(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return the finished test runs of each entry, the best mean first."""
    tests: dict[str, list[Row]] = {}
    for row in rows:
        if row.kind == "test" and row.status == "done":
            tests.setdefault(row.entry, []).append(row)
    return sorted(tests.items(), key=lambda item: -statistics.fmean(row.metrics[MAP] for row in item[1]))


def _settings(row: Row) -> str:
    return f"{row.trial}{' (edge)' if row.edge else ''}"


def _mean(tests: Sequence[Row], key: str, *, digits: int = 2) -> str:
    values = [row.metrics[key] for row in tests if key in row.metrics]
    if not values:
        return ""
    mean, std = mean_and_std(values)
    spread = f" ± {std:.{digits}f} ({len(values)})" if std is not None and key == MAP else ""
    return f"{mean:.{digits}f}{spread}"


def _interval(comparison: Comparison | None) -> str:
    return "" if comparison is None else _text(comparison.difference)


def _text(difference: Difference) -> str:
    if math.isnan(difference.low):
        return f"{difference.mean:+.2f} (one seed: no interval)"
    return f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"


def draw_forest(rows: Sequence[Row], comparisons: Sequence[Comparison]) -> Figure:
    """Draw each entry's difference to supervision with its interval, best first; filled where Holm's p is below .05.

    Behind each name stands how many seeds it has.
    """
    family = {row.entry: row.family for row in rows}
    shown = sorted((each for each in comparisons if each.against == SUPERVISED), key=lambda each: each.difference.mean)
    figure = Figure(figsize=(7, max(2.0, 0.24 * len(shown) + 1)), layout="constrained")
    axes = figure.subplots()
    for place, each in enumerate(shown):
        colour = COLOURS.get(family[each.entry], "#1b6ca8")
        if not math.isnan(each.difference.low):
            axes.hlines(place, each.difference.low, each.difference.high, color=colour, linewidth=1.4)
        filled = colour if each.holm < 0.05 else "white"
        axes.plot(each.difference.mean, place, "o", color=colour, markerfacecolor=filled, markersize=5)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [f"{each.entry} ({each.seeds})" for each in shown], fontsize=8)
    axes.set_xlabel("test mAP over supervised, points, with its 95 % interval")
    for name in dict.fromkeys(family[each.entry] for each in shown):
        axes.plot([], [], "o", color=COLOURS.get(name, "#1b6ca8"), label=name)
    axes.legend(fontsize=8, loc="lower right")
    return figure


def draw_trials(part: Part, rows: Sequence[Row]) -> Figure:
    """Draw each entry's λ curve: the selection split's mAP over the multiple of the calibrated λ."""
    entries = [entry for entry in part.entries if any(row.entry == entry.name and row.kind == "trial" for row in rows)]
    columns = 6
    lines = math.ceil(len(entries) / columns)
    figure = Figure(figsize=(11, 1.7 * lines + 0.4), layout="constrained")
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(entries) :]:
        axes.axis("off")
    for axes, entry in zip(grid.flat, entries, strict=False):
        scores = {
            row.trial: row.metrics["val/best"]
            for row in rows
            if row.entry == entry.name and row.kind == "trial" and row.status == "done"
        }
        done = [trial for trial in entry.trials if trial.name in scores]
        by_weight = any(trial.factor is not None for trial in entry.trials)
        curve = [trial for trial in done if bool(trial.overrides) != by_weight]
        ticks = sorted({plan.value_of(trial) for trial in curve})
        places = [math.log10(value) for value in ticks]
        axes.plot(
            [math.log10(plan.value_of(trial)) for trial in sorted(curve, key=plan.value_of)],
            [scores[trial.name] for trial in sorted(curve, key=plan.value_of)],
            "o-",
            markersize=3,
            linewidth=1,
        )
        for trial in done:
            if trial not in curve:  # another temperature, at the λ that was calibrated for it
                axes.plot(0, scores[trial.name], "x", color="#c8553d", markersize=4)
                axes.annotate(trial.name, (0.08, scores[trial.name]), fontsize=6, va="center")
        axes.set_xticks(places, [f"{value:g}" for value in ticks])
        axes.set_title(entry.name, fontsize=8)
        axes.tick_params(labelsize=5, length=0)
        axes.locator_params(axis="y", nbins=4)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supylabel("mAP on the selection split", fontsize=8)
    figure.supxlabel("λ, as a multiple of the calibrated one (supervised: learning rate)", fontsize=8)
    return figure


def draw_axis(rows: Sequence[Row]) -> Figure:
    """Draw mAP and the pointing game along the axis from logits to maps, a point a seed."""
    order = list(dict.fromkeys(row.entry for row in rows))
    tests: Mapping[str, list[Row]] = dict(_by_mean(rows))
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    grid = figure.subplots(2, 1, sharex=True)
    for axes, key in zip(grid, (MAP, "test/pointing_game"), strict=True):
        for place, name in enumerate(order):
            values = [row.metrics[key] for row in tests.get(name, ()) if key in row.metrics]
            axes.plot([place] * len(values), values, "o", alpha=0.6, color="#1b6ca8", markersize=4)
            if values:
                axes.hlines(statistics.fmean(values), place - 0.25, place + 0.25, color="black")
        axes.set_ylabel(f"{key.removeprefix('test/')}, percent", fontsize=8)
    grid[-1].set_xticks(range(len(order)), order, rotation=60, ha="right", fontsize=8)
    return figure


def _save(figure: Figure, path: Path) -> None:
    """Write an SVG; the same numbers give the same file."""
    with matplotlib.rc_context({"svg.hashsalt": "tutelage", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
