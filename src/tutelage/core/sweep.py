"""Ends a sweep with one table, since Hydra does not gather its jobs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepTable(Callback):
    """Hydra callback: when the last job is done, write sweep.csv and sweep.md and print the table."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # Hydra passes keywords of its own
        from tutelage.core.results import MANIFEST, read_json, write_sweep

        folder = Path(config.hydra.sweep.dir)
        jobs = sorted((path.parent.parent for path in folder.glob("*/.hydra/overrides.yaml")), key=_number)
        headline: list[str] = []
        texts: dict[str, str] = {}
        for job in jobs:
            if (job / MANIFEST).exists():
                manifest = read_json(job / MANIFEST)
                headline.extend(name for name in manifest["headline"] if name not in headline)
                texts |= manifest.get("totals", {})
        if jobs:
            write_sweep(folder, jobs=jobs, headline=headline)
        for line in totals(jobs, texts):
            print(line)


def totals(jobs: Iterable[Path], texts: Mapping[str, str]) -> list[str]:
    """Say what the jobs' metrics add up to, by the tasks' texts; what is 0 in all is left out."""
    from tutelage.core.results import read_metrics

    finished = [metrics for job in jobs if (metrics := read_metrics(job)) is not None]
    sums = {name: sum(float(metrics.get(name, 0)) for metrics in finished) for name in texts}
    return [text.format(total=sums[name]) for name, text in texts.items() if sums[name]]


def _number(folder: Path) -> tuple[int, str]:
    return (int(folder.name), "") if folder.name.isdigit() else (1 << 30, folder.name)
