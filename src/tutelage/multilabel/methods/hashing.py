"""Choices by chance on the device, as a function of a name and of nothing else."""

from torch import Tensor


def hashed(name: Tensor, *, key: Tensor) -> Tensor:
    """Mix whole numbers so that each bit of the result looks like chance (splitmix64), the same on any device.

    A generator's state would differ between one process and two, and between a run and its continuation.

    Args:
        name: int64, of any shape: what a choice is about.
        key: int64 scalar, such as the training step.

    Returns:
        int64 of the shape of ``name``; negative numbers, too.
    """
    # int64 wraps around, as the unsigned numbers of splitmix64 do; its constants are written as signed ones.
    mixed = name.long() * -7046029254386353131 + key.long() * -4417276706812531889
    mixed = (mixed ^ _shifted(mixed, 30)) * -4658895280553007687
    mixed = (mixed ^ _shifted(mixed, 27)) * -7723592293110705685
    return mixed ^ _shifted(mixed, 31)


def _shifted(value: Tensor, bits: int) -> Tensor:
    # >> keeps the sign: the bits that it shifts in are masked away.
    return (value >> bits) & ((1 << (64 - bits)) - 1)
