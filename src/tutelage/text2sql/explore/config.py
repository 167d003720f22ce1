"""The typed settings of an exploration; ``conf/explore.yaml`` fills them. Imports nothing heavy."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tutelage.core.errors import ConfigError
from tutelage.core.overrides import compose_config


@dataclass
class CatalogSettings:
    """How the database is read."""

    infer_keys: bool = False  # take undeclared foreign keys that names, types and values speak for
    max_rows: int = 100_000  # copied of each table of a server or a DuckDB file, which are explored as SQLite
    descriptions: str | None = None  # folder of CSVs, as BIRD's database_description, which is found by itself


@dataclass
class LimitSettings:
    """What one query may take in the sandbox."""

    seconds: float = 5.0
    rows: int = 10_000  # a question that wants more is not one that a person asks
    memory_mb: int = 1024
    workers: int = 2  # processes; how many changes nothing but the time


@dataclass
class VerifySettings:
    """How a pair's meaning is verified."""

    mutants: bool = True  # a pair stays if queries that mean something else give other results
    copies: int = 5  # perturbed copies of the database that they may differ on
    agree: int = 2  # independent answers to the question that must give what its SQL gives, where a model explores


@dataclass
class ExploreSettings:
    """What an exploration is a function of."""

    database: str | None = None  # a file or a URL; null: the embedded flights
    db_id: str | None = None  # null: the file's stem
    seeds: str | None = None  # Spider or BIRD JSON, or JSON lines of question and sql
    facts: str | None = None  # a facts.jsonl of an earlier exploration that a person has edited
    documents: list[str] = field(default_factory=list)  # texts about the database: Markdown, text, CSV
    guard: list[str] = field(default_factory=list)  # files as seeds: no pair may equal or resemble these
    walks: int = MISSING
    max_level: int = MISSING
    breadth: int = 4  # pairs that a walk extends at each level
    patience: int | None = None  # walks in a row without an accepted pair that end it; null: all are taken
    per_level: int | None = None  # a level with so many accepted pairs takes no more
    smoothing: float = 1.0  # added to how often two columns stand together in seeds
    catalog: CatalogSettings = field(default_factory=CatalogSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    verify: VerifySettings = field(default_factory=VerifySettings)
    sampler: Any = MISSING
    synthesizer: Any = MISSING
    seed: int = 1


@dataclass
class ExploreConfig(ExploreSettings):
    """What ``explore.py`` composes: the settings, and where things go."""

    out: str | None = None  # null: the store, linked from the run's folder
    run: str = MISSING  # the run's folder: config and link
    store: str = MISSING
    learner: Any = None  # model and prompt of a training run, as ``model=…`` and ``prompt=…`` name them


def register(arguments: Sequence[str] = ()) -> list[str]:
    """Make the schema known to Hydra under the name ``explore_schema``.

    Args:
        arguments: Of the command line. ``model=…`` and ``prompt=…`` mean what they mean to ``train.py``, whose config
            is composed with them.

    Returns:
        The other arguments.
    """
    of_training = [text for text in arguments if re.match(r"(model|prompt)[.=]", text)]
    learner: dict[str, Any] | None = None
    if any(text.startswith("model") for text in of_training):
        composed = compose_config(["task=text2sql", "run=learner", *of_training])
        learner = {key: OmegaConf.to_container(composed[key], resolve=True) for key in ("model", "prompt")}
    ConfigStore.instance().store("explore_schema", ExploreConfig(learner=learner))
    return [text for text in arguments if text not in of_training]


def explore_settings(node: DictConfig | Mapping[str, Any], *, where: str = "explore.") -> ExploreSettings:
    """Check a config node against the schema, and fill in what it leaves out.

    Args:
        node: A composed ``explore.yaml``, or the ``explore`` node of a training config.
        where: What stands before a key on the command line.

    Raises:
        ConfigError: An unknown key, a value of the wrong type, or one that is missing.
    """
    known = {item.name for item in fields(ExploreSettings)}
    beside = {item.name for item in fields(ExploreConfig)} - known
    try:
        # Resolved while its surroundings are there: a synthesizer keeps replies under ${store}.
        values = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
        assert isinstance(values, Mapping)
        own = {str(key): value for key, value in values.items() if key not in beside}
        merged = OmegaConf.merge(OmegaConf.structured(ExploreSettings), own)
        for key in sorted(OmegaConf.missing_keys(merged)):
            raise ConfigError(f"{where}{key}", "no value given", f"give it on the command line: {where}{key}=…")
        settings = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"{where}{error.full_key or ''}", str(error).splitlines()[0], f"known keys: {', '.join(sorted(known))}"
        ) from None
    assert isinstance(settings, ExploreSettings)
    for name, value, least in (
        ("walks", settings.walks, 1),
        ("max_level", settings.max_level, 1),
        ("breadth", settings.breadth, 1),
        ("patience", settings.patience, 1),
        ("per_level", settings.per_level, 1),
        ("verify.copies", settings.verify.copies, 1),
        ("verify.agree", settings.verify.agree, 0),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{where}{name}", f"{value} is too few", f"give {least} or more")
    if settings.smoothing <= 0:
        raise ConfigError(f"{where}smoothing", f"{settings.smoothing} leaves columns out", "give a number above 0")
    return settings
