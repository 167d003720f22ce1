"""Whether what was recorded is what the teacher shows: recorded rows beside live ones."""

# U units, B batch

from pathlib import Path

import torch
from torch import Tensor

from tutelage.core.errors import DataError
from tutelage.multilabel.replay.codec import Codec


def rounding(*, device: str, precision: str) -> float:
    """Return how far two passes of one network may be apart, as a share of the largest value.

    Of another batch, another card or another thread count: kernels sum in another order. A change of the picture, the
    augmentation or the weights moves what a network shows by far more.
    """
    if precision != "32-true":
        return 5e-2  # 8 or 11 bits in each layer
    return 5e-3 if device == "cuda" else 1e-4  # TF32 has 11 bits


def refuse_if_apart(
    name: str, recorded: Tensor, live: Tensor, *, codec: Codec, noise: float, views: str, folder: Path
) -> None:
    """Compare the rows of a field.

    Args:
        name: The field.
        recorded: Units [U, …], decoded.
        live: The same of the live teacher.
        codec: How they were kept.
        noise: See :func:`rounding`.
        views: Which views these are, for the error.
        folder: The record's.

    Raises:
        DataError: They differ by more than the format and rounding explain.
    """
    if not live.numel():  # the logits of a tower without a classifier
        return
    live = live.float()
    difference = (recorded - live).abs()
    bound = codec.bound(live) + noise * live.abs().max()
    if bool((difference <= bound).all()):
        return
    worst = int(torch.nan_to_num(difference - bound, nan=torch.inf).argmax())
    raise DataError(
        "teacher.replay",
        f"{name} of {views} in {folder} is not what the teacher shows: {difference.flatten()[worst]:.3g} apart, where "
        f"{codec.dtype} and rounding explain {bound.flatten()[worst]:.3g}",
        f"delete {folder} to record it again, or set teacher.replay=off",
    )
