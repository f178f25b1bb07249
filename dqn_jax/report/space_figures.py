"""Figures of a sweep's space: slices, parallel coordinates, importances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dqn_jax.config import show
from dqn_jax.report.axes import DENSE, axes_of, dark_is_good, legend
from dqn_jax.report.charts import WIDE, Chart
from dqn_jax.report.importance import Importance
from dqn_jax.report.values import number
from dqn_jax.report.view import View
from dqn_jax.runs.figures import COLOURS
from dqn_jax.sweep.space import Dimension, Range


def slices(view: View, width: float = WIDE) -> Chart | None:
    """Each hyperparameter against what trials are ranked by."""
    if not view.space:
        return None
    columns = max(1, min(int(width / 2.1), 3, len(view.space)))
    rows = -(-len(view.space) // columns)
    figure, axes = axes_of(len(view.space), width, (3.0 if columns == 3 else 2.6) * rows, columns)
    shares = view.table["share"].to_numpy(np.float64)
    outcome = view.table[view.measure].replace(np.inf, np.nan).to_numpy(np.float64)
    dense = len(outcome) > DENSE
    texts = [view.row_text(row) for row in view.table.to_dict("records")]
    size = 26 if len(outcome) <= 100 else 12 if len(outcome) <= 500 else 6
    for i, (axis, (name, dimension)) in enumerate(zip(axes, view.space.items(), strict=True)):
        positions = _positions(dimension, view.table[name], jitter=0.18)
        points = axis.scatter(
            positions, outcome, c=shares, cmap=dark_is_good(reverse=True), vmin=0, vmax=1, s=size,
            lw=0 if dense else 0.4, edgecolors="white", rasterized=dense,
        )  # fmt: skip
        for text, x, y in zip(texts, positions, outcome, strict=True):
            figure.tell(text, axis, x, y)
        _finish_dimension(axis, name, dimension)
        if view.measure == "time":
            axis.set_ylim(0, view.end * 1.04)
            axis.axhline(view.end, color="0.5", lw=0.8, ls=":")
            axis.yaxis.set_major_formatter("{x:,.0f}" if view.end >= 10 else "{x:g}")
        if i % columns == 0:
            axis.set_ylabel(view.measure_words, fontsize=8)
    figure.colorbar(points, ax=axes, label="share of seeds converged", fraction=0.03, pad=0.02)
    return figure


def parallel_coordinates(view: View, width: float = WIDE) -> Chart | None:
    """Every trial as a line through its hyperparameters and its result; the best few in colour."""
    from matplotlib.collections import LineCollection

    if len(view.space) < 2:
        return None
    known = view.table[np.isfinite(view.table[view.measure])]
    outcome = known[view.measure].to_numpy(np.float64)
    if len(outcome) < 2:
        return None
    names = [*view.space, view.measure_words]
    figure, (axis,) = axes_of(1, width, 4.4)
    small = 6 if figure.narrow else 8
    heights = [_unit(dimension, known[name]) for name, dimension in view.space.items()]
    low, high = (0.0, view.end) if view.measure == "time" else (outcome.min(), max(outcome.max(), outcome.min() + 1e-9))
    lines = np.stack([*heights, (outcome - low) / (high - low)], axis=1)  # [trials, axes]
    places = np.arange(len(names))
    segments = [np.stack([places, line], axis=1) for line in lines[::-1]]  # the best on top
    collection = LineCollection(
        segments,
        cmap=dark_is_good(reverse=view.measure == "final"),
        lw=0.9,
        alpha=float(np.clip(60 / len(segments), 0.15, 0.6)),
        rasterized=len(segments) > DENSE // 2,
    )
    collection.set_array(outcome[::-1])
    axis.add_collection(collection)
    for row, line in list(zip(known.to_dict("records"), lines, strict=True))[::-1]:
        figure.tell(view.row_text(row), axis, places, line, line=True)
    for colour, trial in zip(COLOURS, view.best, strict=False):
        line = lines[(known["trial"] == trial).to_numpy()]
        if not len(line):
            continue
        axis.plot(places, line[0], color=colour, lw=2.2, marker="o", ms=4, label=f"trial {trial}")
    for place, dimension in enumerate(view.space.values()):
        marks = _marks(dimension)
        for text, height in marks:
            axis.annotate(
                text, (place, height), (4, 0), textcoords="offset points", fontsize=small, va="center", **_HALO
            )
        axis.axvline(place, color="0.3", lw=0.8, zorder=3)
    for height in (0.0, 0.5, 1.0):
        text = number(low + height * (high - low))
        axis.annotate(
            text, (places[-1], height), (4, 0), textcoords="offset points", fontsize=small, va="center", **_HALO
        )
    axis.axvline(places[-1], color="0.3", lw=0.8, zorder=3)
    axis.set_xlim(-0.15, places[-1] + 0.55)
    axis.set_ylim(-0.06, 1.06)
    axis.set_yticks([])
    axis.set_xticks(places, names, fontsize=1.1 * small)
    if len(names) > (3 if figure.narrow else 7):
        axis.set_xticks(places, names, fontsize=1.1 * small, rotation=30, ha="right")
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.grid(visible=False)
    legend(figure)
    return figure


def importances(found: Importance, width: float = WIDE) -> Chart:
    """Importance of each hyperparameter, with how much it varies between halves of the trials."""
    figure, (axis,) = axes_of(1, width, 0.7 + 0.38 * len(found.names))
    places = np.arange(len(found.names))[::-1]
    axis.barh(places, found.shares, color=COLOURS[0], height=0.6)
    middle, half = (found.low + found.high) / 2, (found.high - found.low) / 2
    axis.errorbar(middle, places, xerr=half, fmt="none", ecolor="0.25", lw=1.2, capsize=3)
    for name, share, low, high, place in zip(*found[:4], places, strict=True):
        figure.tell(f"{name}: {share:.2f} [{low:.2f}, {high:.2f}]", axis, [0, share], place, line=True)
    axis.set_yticks(places, found.names)
    axis.set_xlim(0, 1)
    axis.set_xlabel("importance")
    return figure


_HALO: dict[str, Any] = {"bbox": {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8}, "zorder": 6}


def _positions(dimension: Dimension, values: Any, jitter: float) -> np.ndarray:
    """Where values go on a slice's axis; those of a list as strips, spread a little."""
    if isinstance(dimension, Range):
        return np.asarray(values, np.float64)
    places = {show(value): i for i, value in enumerate(dimension.values)}
    strip = np.array([places[show(value)] for value in values], np.float64)
    return strip + np.random.default_rng(0).uniform(-jitter, jitter, len(strip))


def _unit(dimension: Dimension, values: Any) -> np.ndarray:
    """Values between 0 and 1 along their own axis."""
    if isinstance(dimension, Range):
        scale = np.log if dimension.log else np.asarray
        low, high = scale(dimension.low), scale(dimension.high)
        return (scale(np.asarray(values, np.float64)) - low) / (high - low)
    last = len(dimension.values) - 1
    return _positions(dimension, values, jitter=0.0) / last if last else np.full(len(values), 0.5)


def _marks(dimension: Dimension) -> list[tuple[str, float]]:
    """Labels of an axis between 0 and 1."""
    if isinstance(dimension, Range):
        return [(number(dimension.low), 0.0), (number(dimension.high), 1.0)]
    return list(zip(map(show, dimension.values), _unit(dimension, dimension.values).tolist(), strict=True))


def _finish_dimension(axis: Any, name: str, dimension: Dimension) -> None:
    axis.set_xlabel(name, fontsize=9)
    if isinstance(dimension, Range):
        if dimension.log:
            axis.set_xscale("log")
            margin = (dimension.high / dimension.low) ** 0.04
            axis.set_xlim(dimension.low / margin, dimension.high * margin)
            # The ends and the middle: over little more than a decade, matplotlib's own labels run into one another.
            ticks = [dimension.low, math.sqrt(dimension.low * dimension.high), dimension.high]
            axis.set_xticks(ticks, [f"{tick:.2g}" if tick < 100 else f"{tick:,.0f}" for tick in ticks])
            axis.set_xticks([], minor=True)
        else:
            margin = 0.04 * (dimension.high - dimension.low)
            axis.set_xlim(dimension.low - margin, dimension.high + margin)
        return
    axis.set_xticks(range(len(dimension.values)), [show(value) for value in dimension.values])
    axis.set_xlim(-0.5, len(dimension.values) - 0.5)
    axis.grid(visible=False, axis="x")
