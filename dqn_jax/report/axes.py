"""Axes in the house style, as all figures of a report have them."""

from __future__ import annotations

from typing import Any

import numpy as np

from dqn_jax.report.charts import Chart

GREY = "#7d838a"
DENSE = 200  # marks from which on a layer becomes pixels inside the SVG
_DARK_IS_GOOD = (0.0, 0.62)  # of plasma; the rest, to yellow, is too light to be seen on white


def axes_of(count: int, width: float, height: float, columns: int = 1) -> tuple[Chart, list[Any]]:
    """A chart of so many panels, `width` and `height` in inches, and their axes."""
    figure = Chart(figsize=(width, height), dpi=120, layout="constrained")  # no pyplot, so no global state
    rows = -(-count // columns)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.set_axis_off()
    for axis in axes[:count]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, lw=0.6)
        axis.tick_params(labelsize=8)
    return figure, axes[:count]


def legend(figure: Any) -> None:
    """The names of what is drawn, above the axes, where they cover no data."""
    axis = figure.axes[0]
    if axis.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper left", fontsize=8, frameon=False, ncols=1 if figure.narrow else 3)


def dark_is_good(*, reverse: bool) -> Any:
    """Colours of which each stands out from white; low values are dark, or high ones."""
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap

    colours = matplotlib.colormaps["plasma"](np.linspace(*_DARK_IS_GOOD, 64))
    return LinearSegmentedColormap.from_list("dark_is_good", colours[::-1] if reverse else colours)
