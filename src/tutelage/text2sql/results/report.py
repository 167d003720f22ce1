"""What a run ends with: a table in the terminal, and a page that needs nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tutelage.core import results
from tutelage.core.figures import draw_curves, svg
from tutelage.core.store import write_atomically
from tutelage.core.task import Metrics
from tutelage.core.templates import render_page
from tutelage.text2sql.results.benchmark_report import visible
from tutelage.text2sql.results.items import ITEMS, read_items

MODELS = {"base/": "base model, untrained", "sft/": "trained on seed questions alone", "": "this run"}
SCORES = {
    "ex": "people's questions",
    "ex_without_doubtful": "without doubtful databases",
    "ex_held_out": "held-out explored questions",
}
DIFFICULTIES = ("easy", "simple", "medium", "moderate", "hard", "challenging", "extra")  # Spider's and BIRD's, in order
PROTOCOL = (
    "EX: share of questions whose query gives the gold query's result on the databases at hand, in percent, with its "
    "95 % interval (Wilson). Held-out explored questions share no query template with what was trained on."
)


def summary(metrics: Metrics, *, trained: bool) -> tuple[list[str], list[list[str]]]:
    """Return the scores of each model: column names, and a row a model.

    Args:
        metrics: Of the run.
        trained: Whether there was a run, or a model answered as it is.
    """
    shown = [name for name in SCORES if f"test/{name}" in metrics]
    rows = []
    models = MODELS if trained else {"": "the model, untrained"}
    for prefix, model in models.items():
        cells = [_cell(metrics, f"{prefix}test/{name}") for name in shown]
        if any(cells):
            rows.append([model, *cells])
    return ["EX", *(f"{SCORES[name]} ({metrics[f'test/{name}_count']})" for name in shown)], rows


def _cell(metrics: Metrics, name: str) -> str:
    if name not in metrics:
        return ""
    return f"{metrics[name]:.1f} [{metrics[f'{name}_low']:.1f}, {metrics[f'{name}_high']:.1f}]"


def print_closing_table(folder: Path, *, cfg: DictConfig, metrics: Metrics, notes: Mapping[str, Any]) -> None:
    """Print what a person looks for first."""
    corpus, data = notes["corpus"], notes["data"]
    trained = _trained(notes)
    columns, rows = summary(metrics, trained=trained)
    lines = [
        f"Trained on {corpus['seeds']} seed questions and {corpus['explored_pairs']} explored pairs. "
        f"Explored: {corpus['explored_in']}."
        if trained
        else "Nothing was trained."
    ]
    if filtered := sum(int(metrics.get(f"test/{name}_schema_filtered", 0)) for name in SCORES):
        lines.append(f"{filtered} prompts show only a part of their schema (predictions.jsonl says what was dropped).")
    if missing := data.get("missing_databases"):
        lines.append(f"Databases that are missing, so no question about them was asked: {', '.join(missing)}.")
    caption = "\n".join([*lines, f"{folder}/report.html"])
    results.print_table(_title(cfg, trained=trained), columns, rows, caption=caption)


def write(folder: Path, *, cfg: DictConfig, metrics: Metrics, notes: Mapping[str, Any]) -> None:
    """Write the self-contained report.html."""
    trained = _trained(notes)
    columns, rows = summary(metrics, trained=trained)
    items = read_items(folder / ITEMS)
    page = render_page(
        "tutelage.text2sql.results",
        "report.html.jinja",
        title=_title(cfg, trained=trained),
        columns=columns,
        rows=rows,
        protocol=PROTOCOL,
        curves=svg(draw_curves(folder, losses=["train/loss"])) if trained else "",
        groups=groups(items),
        examples=examples(items),
        wrong=[item for item in items if item["right"] == "0"][:100],
        notes=notes,
        metrics=metrics,
        config=OmegaConf.to_yaml(cfg, resolve=True),
    )
    write_atomically(folder / "report.html", visible(page))


def examples(items: Sequence[Mapping[str, str]], *, of_each: int = 5) -> list[Mapping[str, str]]:
    """Choose questions that show what the model does: right ones and wrong ones, spread evenly over the test set."""
    chosen: list[Mapping[str, str]] = []
    for right in ("1", "0"):
        found = [item for item in items if item["right"] == right]
        count = min(of_each, len(found))
        chosen += [found[index * len(found) // count] for index in range(count)]
    return chosen


def groups(items: Sequence[Mapping[str, str]]) -> list[tuple[str, int, float]]:
    """Count right answers by difficulty (people's questions), then level (explored ones): name, count, percent."""
    found: dict[str, list[int]] = {}
    for item in items:
        if item["right"]:
            name = f"explored, level {item['level']}" if item["source"] == "explored" else item["difficulty"] or "all"
            found.setdefault(name, []).append(int(item["right"]))
    return [(name, len(rights), 100 * sum(rights) / len(rights)) for name, rights in sorted(found.items(), key=_place)]


def _place(group: tuple[str, Any]) -> tuple[int, str]:
    name = group[0]
    return (DIFFICULTIES.index(name) if name in DIFFICULTIES else len(DIFFICULTIES), name)


def _trained(notes: Mapping[str, Any]) -> bool:
    return bool(notes["corpus"]["seeds"] or notes["corpus"]["explored_pairs"])


def _title(cfg: DictConfig, *, trained: bool) -> str:
    method, data, adapter = (str(cfg[key]._target_).rsplit(".", 1)[1] for key in ("method", "data", "adapter"))
    path = cfg.inference.get("model") or cfg.model.get("path") or "tiny model"
    return f"{method} on {data}, {path} ({adapter})" if trained else f"{path} on {data}, untrained"
