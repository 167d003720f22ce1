"""The only place that makes objects from config nodes.

A node with ``_target_`` names a class or function; its other keys are arguments. Every key is bound to the
signature and every value checked against its annotation before anything is made, so that a typo costs seconds.
"""

import difflib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from tutelage.core.config import check_given
from tutelage.core.errors import ConfigError

Node = DictConfig | Mapping[str, Any]


def build(node: Node, /, *, where: str = "config", **runtime: Any) -> Any:
    """Make what a node names.

    Args:
        node: A config node with ``_target_``.
        where: The node's place in the config, for errors.
        **runtime: Arguments that only the running program knows. They win over the node's.

    Raises:
        ConfigError: No such target, an unknown or missing key, or a value of the wrong type.
    """
    values = _plain(node)
    target = _locate(values.pop("_target_", None), where)
    arguments = {key: value for key, value in values.items() if key not in runtime}
    bound = _bind(target, arguments, where=where)
    made = {
        key: build(value, where=f"{where}.{key}") if isinstance(value, dict) and "_target_" in value else value
        for key, value in bound.items()
    }
    signature = inspect.signature(target)
    try:
        signature.bind(**made, **runtime)
    except TypeError as error:
        raise ConfigError(where, f"{target.__qualname__}: {error}", f"give it in the config, under {where}") from None
    return target(**made, **runtime)


def split(node: Node, part: Callable[..., Any], /, *, where: str) -> tuple[Any, dict[str, Any]]:
    """Take the keys out of a node that belong to a second object, and make that one.

    ``data`` holds the data set's own keys and those of its loading, side by side, so that a user types
    ``data.root`` and ``data.batch_size`` alike.

    Returns:
        The made part, and the node without its keys.
    """
    values = _plain(node)
    names = inspect.signature(part).parameters
    mine = {key: value for key, value in values.items() if key in names}
    made = part(**_bind(part, mine, where=where))
    return made, {key: value for key, value in values.items() if key not in names}


def parameters_of(part: Callable[..., Any]) -> list[str]:
    """Return the keys that `split` takes out of a node for a second object."""
    return list(inspect.signature(part).parameters)


def locate(node: Node, /, *, where: str) -> Callable[..., Any]:
    """Return what a node's ``_target_`` names, without making it."""
    return _locate(_plain(node).get("_target_"), where)


def check(config: Node, *, shared: Mapping[str, Callable[..., Any]] | None = None) -> None:
    """Bind every ``_target_`` node of a config, without making anything.

    Args:
        config: The whole config.
        shared: For some nodes a second object whose keys lie among the node's; see :func:`split`. ``method.*`` stands
            for every child of ``method``.

    Raises:
        ConfigError: As :func:`build` does, and for a value that the user must still give.
    """
    if isinstance(config, DictConfig):
        check_given(config)
    for where, node in _targets(_plain(config), ""):
        values = {key: value for key, value in node.items() if key != "_target_"}
        target = _locate(node["_target_"], where)
        part = (shared or {}).get(where) or (shared or {}).get(f"{where.rpartition('.')[0]}.*")
        if part is not None:
            names = inspect.signature(part).parameters
            _bind(part, {key: value for key, value in values.items() if key in names}, where=where)
            values = {key: value for key, value in values.items() if key not in names}
            _bind(target, values, where=where, also=names)
        else:
            _bind(target, values, where=where)


def _plain(node: Node) -> dict[str, Any]:
    container = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    assert isinstance(container, Mapping)
    return {str(key): value for key, value in container.items()}


def _targets(value: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield where, value
        for key, child in value.items():
            yield from _targets(child, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _targets(child, f"{where}.{index}")


def _locate(name: str | None, where: str) -> Callable[..., Any]:
    if name is None:
        raise ConfigError(where, "no _target_", "choose one of the group's files, or name a class under _target_")
    try:
        target: Callable[..., Any] = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        if isinstance(error, ImportError) and not (
            isinstance(error, ModuleNotFoundError) and _is_part(error.name, name)
        ):
            raise  # the module is there and fails: its own traceback tells more than we could
        raise ConfigError(f"{where}._target_", f"there is no class {name} ({error})", "correct the name") from None
    return target


def _is_part(module: str | None, name: str) -> bool:
    return module is not None and f"{name}.".startswith(f"{module}.")


def _bind(
    target: Callable[..., Any], arguments: dict[str, Any], *, where: str, also: Collection[str] = ()
) -> dict[str, Any]:
    """Check keys and types; return the values as their annotations have them (a Path, a tuple)."""
    parameters = inspect.signature(target).parameters
    for key in arguments:
        if key not in parameters:
            near = difflib.get_close_matches(key, [*parameters, *also], n=1)
            known = ", ".join([*parameters, *also])
            raise ConfigError(
                f"{where}.{key}",
                f"{target.__qualname__} has no such key",
                f"did you mean {near[0]}?" if near else f"it has: {known}",
            )
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    return {
        key: _convert(value, hints[key], f"{where}.{key}") if key in hints else value
        for key, value in arguments.items()
    }


def _convert(value: Any, annotation: Any, where: str) -> Any:
    if isinstance(value, dict) and "_target_" in value:
        return value  # checked as a node of its own
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # the annotation is a dataclass or model, with a config of its own
        adapter = TypeAdapter(annotation)
    except PydanticSchemaGenerationError:
        return value
    try:
        converted = adapter.validate_python(value)
    except ValidationError as error:
        details = error.errors()[0]
        place = ".".join([where, *(str(part) for part in details["loc"])])
        raise ConfigError(place, f"{value!r}: {details['msg']}", "give a value of that type") from None
    # pydantic takes "3" for 3 and true for 1; in a config both are slips.
    if (isinstance(value, str) and isinstance(converted, int | float)) or (
        isinstance(value, bool) and not isinstance(converted, bool)
    ):
        raise ConfigError(where, f"{value!r} is not a {type(converted).__name__}", "give a value of that type")
    return converted
