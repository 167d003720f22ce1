"""Overrides of a saved config: what ``evaluate.py run=…`` may change of a run that was trained."""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tutelage.core import config
from tutelage.core.config import CONF
from tutelage.core.errors import ConfigError
from tutelage.core.store import content_hash

# They decide how scoring runs and what it may use, and not what comes out.
NEUTRAL = frozenset(
    {"trainer.accelerator", "trainer.progress_bar", "trainer.threads", "trainer.compile", "store", "data.workers"}
    | {"data.cache", "data.batch_size", "inference.batch_size"}
)


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parse ``key=value`` arguments.

    Raises:
        ConfigError: Not of that form.
    """
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise ConfigError(
            error.override, str(error).splitlines()[0], "write key=value; quote values with commas or spaces"
        ) from None


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose ``conf/config.yaml`` outside a run of Hydra.

    Raises:
        ConfigError: It does not compose.
    """
    parse(overrides)
    config.register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return compose("config", overrides=list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError("config", str(error).splitlines()[0], "correct it") from None


def apply(
    cfg: DictConfig, overrides: Sequence[str], *, changeable: Collection[str], kept: Mapping[str, Collection[str]]
) -> DictConfig:
    """Return a saved config with overrides of keys and of whole groups (``inference=beam``, ``data=voc2007``).

    Args:
        cfg: The run's.
        overrides: As on the command line.
        changeable: Keys, or nodes with all that is in them, that may be changed.
        kept: For a group, the keys that stay as they are when another choice of it is taken: how pictures are loaded
            is the run's own, whatever data they come from.

    Raises:
        ConfigError: A key that training fixed, an unknown one, or a value that does not fit.
    """
    changed = cfg.copy()
    parsed = parse(overrides)
    for override in parsed:
        key = override.key_or_group
        if override.is_delete() or override.is_sweep_override():
            raise ConfigError(key, f"{override.input_line} cannot be used on a finished run", "give key=value, once")
        if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in changeable):
            raise ConfigError(
                key, "was fixed when the run was trained", f"scoring can change: {', '.join(sorted(changeable))}"
            )
    groups = [override for override in parsed if (CONF / override.key_or_group).is_dir()]
    for group in groups:
        _choose(changed, group, parsed, kept=kept.get(group.key_or_group, ()))
    for override in parsed:
        if override not in groups:
            _set(changed, override)
    return changed


def _choose(cfg: DictConfig, choice: Override, parsed: Sequence[Override], *, kept: Collection[str]) -> None:
    name = choice.key_or_group
    below = [str(o.input_line) for o in parsed if o.key_or_group.startswith(f"{name}.")]
    config.register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            composed = compose("config", overrides=[f"task={_task(cfg)}", str(choice.input_line), *below])
        except (HydraException, OmegaConfBaseException) as error:
            choices = sorted(path.stem for path in (CONF / name).glob("*.yaml"))
            chosen = str(choice.input_line).partition("=")[2]
            what = f"no choice {chosen!r}" if chosen not in choices else str(error).splitlines()[0]
            raise ConfigError(name, what, f"choose from: {', '.join(choices)}") from None
    node = composed[name]
    for key in kept:
        if key in cfg[name]:
            OmegaConf.update(node, key, cfg[name][key], force_add=True)
    OmegaConf.update(cfg, name, node, merge=False)


def _task(cfg: DictConfig) -> str:
    """Name the choice of conf/task/ that the config was composed with."""
    for path in sorted((CONF / "task").glob("*.yaml")):
        if OmegaConf.select(OmegaConf.load(path), "task._target_") == cfg.task._target_:
            return path.stem
    raise ConfigError("run", f"{cfg.task._target_} is not a task of conf/task", "give single keys instead of a group")


def _set(cfg: DictConfig, override: Override) -> None:
    key = override.key_or_group
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if not isinstance(node, DictConfig) or (last not in node and not override.is_add()):
        beside = [str(name) for name in node] if isinstance(node, DictConfig) else []
        names = [f"{parent}.{name}" if parent else name for name in beside]
        near = difflib.get_close_matches(key, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"keys there: {', '.join(names) or 'none'}"
        raise ConfigError(key, "the run has no such key", hint)
    try:
        OmegaConf.update(cfg, key, override.value(), force_add=True)
    except OmegaConfBaseException as error:
        raise ConfigError(
            key, f"{override.value()!r} does not fit ({str(error).splitlines()[0]})", "give a value of that type"
        ) from None


def folder_name(overrides: Sequence[str]) -> str | None:
    """Name the scores that overrides lead to, readable and the same each time; None where they change none."""
    told = sorted(text for text in overrides if text.split("=")[0].lstrip("+") not in NEUTRAL)
    if not told:
        return None
    text = ",".join(told)
    name = re.sub(r"[^\w.,=+-]+", "-", text)
    return name if name == text and len(name) <= 80 else f"{name[:80]}-{content_hash({'overrides': told})[:8]}"
