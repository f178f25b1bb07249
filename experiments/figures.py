"""Figures of experiments, in one style."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from dqn_jax import files

COLOURS = ("#1f6fb4", "#d1601f", "#2a8f57", "#8a4fb0", "#b03060", "#6b6b2f", "#4a4a4a", "#c9a227")


def save_figure(path: Path, width: float, height: float, draw: Callable[[Figure], None]) -> None:
    """Draw and write a figure in the house style, atomically; width and height in inches."""
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    draw(figure)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(path) as temporary:
        figure.savefig(temporary)
