"""Figures for reports: the curves of a run, and any figure as text to put into a page."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from tutelage.core.curves import read_curves


def draw_curves(folder: Path, *, losses: Sequence[str] | None = None) -> Figure:
    """Draw the losses of training and the scores of validation side by side, from the run's curves.

    Args:
        folder: The run's.
        losses: Which logged names are losses; None for all that begin with ``train/``.
    """
    curves = read_curves(folder)
    train = {name: points for name, points in curves.items() if name.startswith("train/")}
    if losses is not None:
        train = {name: points for name, points in train.items() if name in losses}
    val = {name: points for name, points in curves.items() if name.startswith("val/")}
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, group, what in zip(
        figure.subplots(1, 2), (train, val), ("training losses", "validation, percent"), strict=True
    ):
        for name, points in sorted(group.items()):
            # A single validation is a point, which a line would not show.
            axes.plot(
                *zip(*points, strict=True),
                label=name.split("/", 1)[1],
                linewidth=1.4,
                marker="o" if len(points) < 10 else "",
            )
        axes.set(title=what, xlabel="step")
        if group:
            axes.legend(fontsize=8)
        if what.startswith("training"):
            axes.set_yscale("log")
    return figure


def svg(figure: Figure) -> str:
    """Write a figure as an SVG element; the same numbers give the same text."""
    buffer = io.StringIO()
    # Without a date and with a fixed salt.
    with matplotlib.rc_context({"svg.hashsalt": "tutelage"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """Draw a figure as uint8 [H, W, 3]."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return np.asarray(Image.open(buffer).convert("RGB"))
