"""Train a model: ``python train.py method=cam_kd data=coco data.root=…``; ``--help`` lists what can be chosen."""

from pathlib import Path

from omegaconf import DictConfig

from tutelage.core import cli, startup


def job(cfg: DictConfig, folder: Path) -> object:
    """Train one run; a sweeper that optimises reads the returned validation score."""
    startup.prepare()
    from tutelage.core.run import train  # here, so that --help need not import torch

    return train(cfg, folder=folder)["val/best"]


if __name__ == "__main__":
    cli.main("config", job, of_run=job)
