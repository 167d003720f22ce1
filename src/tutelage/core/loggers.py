"""Loggers that a run may have beside its curves.csv."""

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from tutelage.core.store import content_hash


def wandb_logger(*, folder: Path, project: str, offline: bool) -> WandbLogger:
    """Log to Weights & Biases; a resumed run goes on in the same page."""
    return WandbLogger(
        project=project,
        offline=offline,
        save_dir=folder,
        name=f"{folder.parent.name}/{folder.name}",
        group=folder.parent.name,  # the jobs of a sweep, the runs of one method
        id=content_hash({"folder": str(folder.absolute())}),
        resume="allow",
    )


def tensorboard_logger(*, folder: Path) -> TensorBoardLogger:
    """Log to ``<folder>/tensorboard``."""
    return TensorBoardLogger(save_dir=folder, name="tensorboard", version="")
