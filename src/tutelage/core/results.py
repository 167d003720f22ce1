"""What a run leaves behind: metrics.json, and tables over many runs."""

import csv
import io
import json
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from tutelage.core.store import write_atomically

METRICS = "metrics.json"
FAILURE = "failure.json"
MANIFEST = "manifest.json"
Value = float | int | str
PACKAGES = ("torch", "lightning", "hydra-core", "timm", "torchvision", "transformers", "peft", "numpy")


def write_json(path: Path, content: Any) -> None:
    """Write JSON that is seen whole or not at all."""
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write CSV that is seen whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_atomically(path, text.getvalue())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def read_metrics(folder: Path) -> dict[str, Value] | None:
    """Return a finished run's metrics, or None."""
    path = folder / METRICS
    if not path.is_file():
        return None
    metrics: dict[str, Value] = json.loads(path.read_text())
    return metrics


def environment(root: Path) -> dict[str, Any]:
    """Say what a result was made with: git commit, versions, device."""
    import torch

    git = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    dirty = subprocess.run(
        ["git", "-C", str(root), "status", "--porcelain"], capture_output=True, text=True, check=False
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "git": (git.stdout.strip() or "unknown") + ("+changes" if dirty.stdout.strip() else ""),
        "python": platform.python_version(),
        "device": device,
        "versions": {name: version(name) for name in PACKAGES},
    }


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "") -> None:
    """Print a table a person can read: folded where a terminal is narrow, as wide as it is in a log file."""
    table = Table()
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        whole = console.measure(table, options=console.options.update(width=10_000)).maximum
        console.width = max(console.width, whole)
    # Beside the table and not of it: within, a path would be broken to the table's width.
    for part in (title, table, caption):
        if part:
            console.print(part, soft_wrap=isinstance(part, str), markup=False, highlight=False)


def print_warning(text: str) -> None:
    """Print what must not be overlooked: in red, where there are colours."""
    Console().print(text, style="bold red", soft_wrap=True, markup=False, highlight=False)


def format_value(value: Value) -> str:
    """Write a number with the digits a table needs."""
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4f}"
    return str(value)


@dataclass(frozen=True, slots=True)
class SweepRow:
    """Runs that differ in nothing but the seed."""

    choices: dict[str, str]
    metrics: dict[str, list[float]]
    seeds: int
    failures: tuple[str, ...]


def sweep_rows(folders: Iterable[Path]) -> list[SweepRow]:
    """Gather the jobs of a sweep by their overrides, seeds together, in the order of their first job."""
    groups: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    for folder in folders:
        overrides: list[str] = list(OmegaConf.load(folder / ".hydra" / "overrides.yaml"))
        choices = tuple(tuple(text.lstrip("+~").split("=", 1)) for text in overrides if "=" in text)
        groups.setdefault(tuple((k, v) for k, v in choices if k != "seed"), []).append(folder)
    rows = []
    for choices, members in groups.items():
        metrics: dict[str, list[float]] = {}
        failures = []
        for folder in members:
            found = read_metrics(folder)
            if found is None:
                failure = folder / FAILURE
                why = json.loads(failure.read_text())["error"] if failure.exists() else "stopped before its end"
                failures.append(f"{folder.name}: {why}")
                continue
            for name, value in found.items():
                if not isinstance(value, str):
                    metrics.setdefault(name, []).append(float(value))
        rows.append(SweepRow(dict(choices), metrics, len(members) - len(failures), tuple(failures)))
    return rows


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation (None for a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def write_sweep(folder: Path, *, jobs: Sequence[Path], headline: Sequence[str]) -> str:
    """Write ``sweep.csv`` (every metric) and ``sweep.md`` (the headline), print the table, return the Markdown."""
    rows = sweep_rows(jobs)
    # An override that is the same in every row says nothing in a table; the folder's config has it.
    keys = [
        key
        for key in dict.fromkeys(key for row in rows for key in row.choices)
        if len({row.choices.get(key) for row in rows}) > 1
    ]
    names = sorted({name for row in rows for name in row.metrics})
    kept = []
    for row in rows:
        cells: list[Value | None] = []
        for name in names:
            cells.extend(mean_and_std(row.metrics[name]) if name in row.metrics else ("", ""))
        kept.append([*(row.choices.get(key, "") for key in keys), row.seeds, *cells, " | ".join(row.failures)])
    both = [f"{name} {what}" for name in names for what in ("mean", "std")]
    write_csv(folder / "sweep.csv", [*keys, "seeds", *both, "failures"], kept)
    shown = [name for name in headline if name in names]
    columns = [*(keys or ["run"]), "seeds", *shown]
    lines = [
        [
            *([row.choices.get(key, "") for key in keys] or ["all"]),
            str(row.seeds),
            *(_mean_std_text(row.metrics, name) for name in shown),
        ]
        for row in rows
    ]
    failed = [f"{', '.join(f'{k}={v}' for k, v in row.choices.items())}: {why}" for row in rows for why in row.failures]
    markdown = markdown_table(columns, lines) + "".join(f"\nfailed: {line}\n" for line in failed)
    write_atomically(folder / "sweep.md", markdown)
    print_table(f"sweep {folder}", columns, lines, caption="mean ± standard deviation over seeds")
    for line in failed:
        Console().print(f"[red]failed[/] {line}")
    return markdown


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _mean_std_text(metrics: Mapping[str, Sequence[float]], name: str) -> str:
    if name not in metrics:
        return "—"
    mean, std = mean_and_std(metrics[name])
    digits = 2 if abs(mean) >= 1 else 4  # both with the mean's
    return f"{mean:.{digits}f}" + (f" ± {std:.{digits}f}" if std is not None else "")
