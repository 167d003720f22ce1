"""The ``key=value`` arguments of the small programs that need no Hydra: a dataclass says which keys there are."""

import dataclasses
import difflib
import typing
from collections.abc import Sequence
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from tutelage.core.errors import ConfigError

Settings = TypeVar("Settings")


def split_names(text: str) -> tuple[str, ...]:
    """Split names with commas between them, as in ``trust=mine,theirs``; brackets around them are left out."""
    return tuple(name for name in text.strip("[]").split(",") if name)


def parse_arguments(arguments: Sequence[str], settings: type[Settings], *, usage: str) -> Settings:
    """Read ``key=value`` arguments into a dataclass.

    Args:
        arguments: The command line without the program's name.
        settings: A dataclass; a field without a default has to be given. Text is converted to the field's type, and
            ``null`` is None.
        usage: A command that works, shown with every error.

    Raises:
        ConfigError: No ``key=value``, an unknown key, a missing one, or a value of another type.
    """
    hints = typing.get_type_hints(settings)
    fields = {field.name: field for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    values: dict[str, object] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise ConfigError(argument, "is not of the form key=value", usage)
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(key, "no such key", f"{hint}use {', '.join(fields)}: {usage}")
        try:
            values[key] = TypeAdapter(hints[key]).validate_python(None if text == "null" else text)
        except ValidationError as error:
            raise ConfigError(key, f"{text!r}: {error.errors()[0]['msg']}", usage) from None
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigError(name, "not given", usage)
    return settings(**values)
