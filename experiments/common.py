"""What all experiments share: figures in one style, tables as Markdown, and the words for where they were measured."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dqn_jax import files, runs

COLOURS = ("#1f6fb4", "#d1601f", "#2a8f57", "#8a4fb0", "#b03060", "#6b6b2f", "#4a4a4a", "#c9a227")


def save_figure(path: Path, width: float, height: float, draw: Callable[[Figure], None]) -> None:
    """Draw and write a figure in the house style, atomically."""
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    draw(figure)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(path) as temporary:
        figure.savefig(temporary)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])


def machine() -> str:
    """Date, machine kind and versions of a measurement."""
    where = runs.provenance_of(())
    return (
        f"{datetime.date.today().isoformat()}, {where['machine']['cores']} CPU cores ({where['devices']['platform']}), "
        f"jax {where['versions']['jax']}, Python {where['versions']['python']}"
    )
