"""Ends a sweep with one table, since Hydra does not gather its jobs."""

import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepTable(Callback):
    """Hydra callback: when the last job is done, write sweep.csv and sweep.md and print the table."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # Hydra passes keywords of its own
        from tutelage.core.results import MANIFEST, write_sweep

        folder = Path(config.hydra.sweep.dir)
        jobs = sorted((path.parent.parent for path in folder.glob("*/.hydra/overrides.yaml")), key=_number)
        headline: list[str] = []
        for job in jobs:
            if (job / MANIFEST).exists():
                names = json.loads((job / MANIFEST).read_text())["headline"]
                headline.extend(name for name in names if name not in headline)
        if jobs:
            write_sweep(folder, jobs=jobs, headline=headline)


def _number(folder: Path) -> tuple[int, str]:
    return (int(folder.name), "") if folder.name.isdigit() else (1 << 30, folder.name)
