"""Train a model: ``python train.py method=cam_kd data=coco data.root=…``; ``--help`` lists what can be chosen.

``run=<folder of a run>`` continues that run, or prints its scores where it is finished.
"""

from pathlib import Path

from omegaconf import DictConfig

from tutelage.core import cli, startup


def job(cfg: DictConfig, folder: Path) -> object:
    """Train one run; a sweeper that optimises reads the returned validation score."""
    startup.prepare()
    from tutelage.core.run import prepare, train  # here, so that --help need not import torch

    if cfg.prepare_only:
        prepare(cfg, folder=folder)
        return None
    return train(cfg, folder=folder)["val/best"]


def resume(run: cli.FinishedRun) -> None:
    """Continue a run with its own config."""
    cli.refuse_other_settings(run)
    startup.prepare()
    from tutelage.core.run_folder import load_config

    job(load_config(run.folder, trusted=run.trusted), run.folder)


if __name__ == "__main__":
    cli.main("config", job, of_run=resume)
