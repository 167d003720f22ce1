"""Every YAML under conf/ composes, binds to what it names, and says when to choose it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from tutelage.core import build, cli
from tutelage.core.errors import ConfigError
from tutelage.text2sql.explore import config as explore_config

CONF = Path(__file__).resolve().parents[1] / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
CHOICES = [path for path in FILES if len(path.relative_to(CONF).parts) == 2]


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(CONF)) for path in paths]


def test_every_part_is_used() -> None:
    """A group's files can be chosen; of the others each is a primary config or in a list of defaults."""
    texts = "\n".join(path.read_text() for path in FILES)
    assert {path.stem for path in FILES if path.parent == CONF} == {"config", "evaluate", "explore"}
    parts = [path.relative_to(CONF) for path in FILES if len(path.relative_to(CONF).parts) > 2]
    assert len(CHOICES) > 80 and len(parts) >= 3
    for part in parts:
        assert part.parts[1] == "parts" and re.search(rf"\bparts/{part.stem}\b", texts), f"nothing uses conf/{part}"


@pytest.mark.parametrize("path", FILES, ids=ids(FILES))
def test_it_is_short_and_says_when_to_choose_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 20 or path.parent == CONF
    comments = [line for line in lines if line.startswith("#") and "@package" not in line]
    assert comments and lines.index(comments[0]) <= 1 and len(comments[0].split()) > 3


@pytest.mark.parametrize("path", CHOICES, ids=ids(CHOICES))
def test_it_composes_and_binds(path: Path, compose_config: Callable[..., DictConfig]) -> None:
    group, choice = path.parent.name, path.stem
    if group in ("sampler", "synthesizer"):
        explore_config.register()
        build.check(with_values(compose_config(f"{group}={choice}", primary="explore")))
        return
    # Choices that any task can use (an optimiser, a trainer) are composed with the default one.
    task = next(iter(cli.tasks_of(path)), TASK_OF.get(group, "multilabel"))
    given = [] if group in ("task", "experiment") else [f"task={task}"]
    cfg = with_values(compose_config(*given, f"{group}={choice}"))
    kind = build.locate(cfg.task, where="task")
    build.check(cfg, shared=kind.shared)  # type: ignore[attr-defined]


TASK_OF = {"adapter": "text2sql", "prompt": "text2sql", "inference": "text2sql"}


def with_values(cfg: DictConfig) -> DictConfig:
    """Fill in what a user must give."""
    for key in OmegaConf.missing_keys(cfg):
        OmegaConf.update(cfg, key, "given")
    return cfg


@pytest.mark.parametrize("path", CHOICES, ids=ids(CHOICES))
def test_its_name_is_that_of_what_it_names(path: Path) -> None:
    target = (yaml.safe_load(path.read_text()) or {}).get("_target_", "")
    if path.parent.name in ("method", "sampler", "synthesizer"):
        assert (
            target.split(".")[-2] == path.stem
            or re.sub(r"(?<!^)(?=[A-Z])", "_", target.split(".")[-1]).lower() == path.stem
        )


def test_the_recipe_of_a_data_set_yields_to_the_command_line(compose_config: Callable[..., DictConfig]) -> None:
    recipe = compose_config("data=coco")
    assert recipe.model.teacher.name == "resnet101" and recipe.trainer.max_epochs == 80
    mine = compose_config("data=coco", "model=resnet50_to_resnet18", "trainer.max_epochs=3", "optim=sgd_cosine")
    assert (mine.model.teacher.name, mine.trainer.max_epochs, mine.optim.name) == ("resnet50", 3, "sgd")


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_slurm", "submitit_local"])
def test_launchers_compose(launcher: str, compose_config: Callable[..., DictConfig]) -> None:
    assert compose_config(f"hydra/launcher={launcher}").seed == 1


def test_a_value_of_the_wrong_type_is_refused_before_anything_is_built(
    compose_config: Callable[..., DictConfig],
) -> None:
    cfg = compose_config("method.logit_weight=much")
    with pytest.raises(ConfigError, match=r"method\.logit_weight: 'much'"):
        build.check(cfg, shared=build.locate(cfg.task, where="task").shared)  # type: ignore[attr-defined]
