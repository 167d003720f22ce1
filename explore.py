"""Explore a database: ``python explore.py database=my.sqlite`` writes checked question–SQL pairs and a report."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from tutelage.core import cli
from tutelage.core.errors import ConfigError
from tutelage.text2sql.explore import config


def job(cfg: DictConfig, folder: Path) -> None:
    """Explore, and link the result from the run's folder."""
    from tutelage.core.store import Store
    from tutelage.text2sql.explore.pipeline import explore  # here, so that --help answers at once

    out = Path(cfg.out) if cfg.out else None
    result = explore(config.explore_settings(cfg, where=""), store=Store(Path(cfg.store)), out=out)
    link = folder / "explored"
    link.unlink(missing_ok=True)  # the same run, done again
    link.symlink_to(result.absolute())
    print(f"{link / 'pairs.jsonl'}\n{link / 'report.html'}")


if __name__ == "__main__":
    try:
        sys.argv[1:] = config.register(sys.argv[1:])
    except ConfigError as error:
        sys.exit(f"error: {error}")
    cli.main("explore", job, groups={"sampler": None, "synthesizer": None})
