"""A finished run, opened to be asked."""

from dataclasses import dataclass
from pathlib import Path

from tutelage.core import run
from tutelage.core.errors import ConfigError
from tutelage.text2sql.model.language_model import LanguageModel
from tutelage.text2sql.task import MODEL, Text2SqlTask, load_trained


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """A run's model in eval mode, and its task, which has source, prompt, inference and store."""

    model: LanguageModel
    task: Text2SqlTask


def load_run(folder: Path, *, device: str) -> LoadedRun:
    """Open a run's folder.

    Raises:
        ConfigError: No run, one that is not finished, or one of another task.
    """
    cfg = run.load_config(folder)
    if not (folder / MODEL).is_dir():
        raise ConfigError("run", f"{folder} holds no model yet", f"finish it with: python train.py run={folder}")
    task = run.open_task(cfg, folder=folder)
    if not isinstance(task, Text2SqlTask):
        raise ConfigError("run", f"{folder} is a run of another task", "give a run of task=text2sql")
    model = load_trained(task.base(folder / MODEL), folder / MODEL)
    return LoadedRun(model.eval().to(device), task)
