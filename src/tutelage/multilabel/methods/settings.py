"""Checks of what a user sets."""

import math
from typing import TypeVar

from tutelage.core.errors import ConfigError

Number = TypeVar("Number", int, float)


def positive(key: str, value: Number) -> Number:
    """Return a number that must be above 0.

    Raises:
        ConfigError: It is not.
    """
    if not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"method.{key}", f"{value} is not above 0", "give a positive number")
    return value


def not_negative(key: str, value: float) -> float:
    """Return a number that must be 0 or more.

    Raises:
        ConfigError: It is not.
    """
    if not (value >= 0 and math.isfinite(value)):
        raise ConfigError(f"method.{key}", f"{value} is negative", "give 0 or more")
    return value
