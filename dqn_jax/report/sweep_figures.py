"""Figures of a sweep, in any width. Each is drawn from a `View`; None where there is nothing to draw.

Whatever stands for a trial or a seed tells which one, with its settings and numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dqn_jax import convergence
from dqn_jax.convergence import parse_criterion
from dqn_jax.report.axes import DENSE, GREY, axes_of, legend
from dqn_jax.report.charts import WIDE, Chart
from dqn_jax.report.values import estimate, number
from dqn_jax.report.view import View
from dqn_jax.runs.figures import COLOURS, X_AXES
from dqn_jax.runs.labels import literal
from dqn_jax.sweep import results

if TYPE_CHECKING:
    import pandas as pd


_OVERVIEW = 300  # trials drawn faintly at most; more would be a solid area
_MOMENTS = 200  # steps of the pooled survival curve at most


def survival(views: Sequence[View], width: float = WIDE) -> Chart:
    """Share of lanes not yet converged, with 95 % bands: the best few trials and all pooled, or the best of each."""
    figure, (axis,) = axes_of(1, width, 4.0)
    for label, colour, view, trial in _drawn(views):
        times, converged = view.outcomes(trial)
        curve = _draw_survival(axis, times, converged, end=view.end, label=label, colour=colour)
        figure.tell(view.trial_text(trial), axis, *curve, line=True)
    for i, view in enumerate(views):
        if len(view.table) > 1:
            times, converged = view.outcomes(phase="search")
            grid = np.linspace(0.0, view.end, _MOMENTS + 1)
            rounded = np.where(converged, grid[np.minimum(np.searchsorted(grid, times), _MOMENTS)], times)
            name = "all trials of the search" if len(views) == 1 else f"{view.label}, all trials of the search"
            style = {} if len(views) == 1 else {"ls": ("--", ":")[i % 2]}
            groups = view.lanes(phase="search")["trial"]
            curve = _draw_survival(
                axis, rounded, converged, end=view.end, groups=groups, label=name, colour=GREY, **style
            )
            figure.tell(f"{name}: {len(times):,} lanes", axis, *curve, line=True)
    axis.set_ylim(-0.03, 1.03)
    axis.set_ylabel(f"share not yet {views[0].converged_word}")
    _finish_x(axis, max(views, key=lambda view: view.end))
    legend(figure)
    return figure


def _draw_survival(
    axis: Any, times: Any, converged: Any, *, end: float, groups: Any = None, label: str, colour: str, **style: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one curve; gives its corners."""
    curve = convergence.kaplan_meier(times, converged)
    low, high = convergence.survival_interval(times, converged, groups=groups)
    x = np.r_[0.0, curve.times, end]
    steps = [np.r_[values, values[-1]] for values in (np.r_[1.0, curve.surviving], low, high)]
    axis.fill_between(x, steps[1], steps[2], step="post", color=colour, alpha=0.1, lw=0)
    axis.step(x, steps[0], where="post", color=colour, lw=1.8, label=literal(label), **style)
    lost = np.unique(np.asarray(times)[~np.asarray(converged) & (np.asarray(times) < end)])
    axis.plot(lost, [curve.at(time) for time in lost], "|", color=colour, ms=7, mew=1.2)  # censored, as is customary
    return np.repeat(x, 2)[1:], np.repeat(steps[0], 2)[:-1]


def learning_curves(views: Sequence[View], width: float = WIDE) -> Chart:
    """Evaluations over time: the best few with bands, every seed thin, and the other trials' means faint behind."""
    figure, (axis,) = axes_of(1, width, 4.2)
    for view in views if len(views) == 1 else ():
        _draw_overview(figure, axis, view)
    for label, colour, view, trial in _drawn(views):
        curves = results.in_phase(view.data.settings, view.data.curves, view.phase)
        own = curves[curves["trial"] == trial]
        lanes = view.lanes(trial).set_index("seed")
        for seed, curve in own.groupby("seed"):
            style = {"lw": 0.5, "alpha": 0.35, "marker": ".", "ms": 4, "markevery": [-1]}  # the dot: where it left
            axis.plot(curve[view.clock], curve["eval_return"], color=colour, zorder=2, **style)
            who = f"trial {trial}, seed {seed}" if view.space else f"seed {seed}"
            text = f"{who}: {view.lane_text(lanes.loc[seed])}"
            figure.tell(text, axis, curve[view.clock], curve["eval_return"], line=len(curve) > 1)
        xs, ys = (
            own.pivot(index="seed", columns="env_steps", values=v).to_numpy() for v in (view.clock, "eval_return")
        )
        whole = ~np.isnan(ys).any(axis=0)  # while all seeds are there; a mean over the slow ones would mislead
        if not whole.any():
            continue
        middle = xs[:, whole].mean(axis=0)
        style = {"lw": 2, "marker": "o", "ms": 4, "markevery": [-1]}
        axis.plot(middle, ys[:, whole].mean(axis=0), color=colour, zorder=4, label=literal(label), **style)
        figure.tell(f"mean of {view.trial_text(trial)}", axis, middle, ys[:, whole].mean(axis=0), line=len(middle) > 1)
        if len(ys) > 1:
            band = convergence.mean_interval(ys[:, whole])
            axis.fill_between(middle, *band, color=colour, alpha=0.2, lw=0, zorder=3)
            if len(middle) == 1:
                axis.vlines(middle, *band, color=colour, lw=2, zorder=3)
    _draw_thresholds(axis, views)
    axis.set_ylabel("evaluation return")
    _finish_x(axis, max(views, key=lambda view: view.end))
    legend(figure)
    return figure


def values(view: View, width: float = WIDE) -> Chart | None:
    """Mean Q-values of the best few trials over time, and what no policy is worth more than."""
    lanes = view.data.lanes.assign(bound=view.bounds)
    drawn = []
    for label, colour, _, trial in _drawn([view]):
        curves = results.in_phase(view.data.settings, view.data.curves, view.phase)
        own = curves[(curves["trial"] == trial) & curves["q_mean"].notna()]
        drawn += [(label, colour, trial, own)] if len(own) else []
    if not drawn:
        return None
    figure, (axis,) = axes_of(1, width, 3.6)
    for label, colour, trial, own in drawn:
        for seed, curve in own.groupby("seed"):
            point = "." if len(curve) == 1 else ""  # one evaluation is no line
            axis.plot(curve[view.clock], curve["q_mean"], color=colour, lw=0.6, alpha=0.4, zorder=2, marker=point)
            who = f"trial {trial}, seed {seed}" if view.space else f"seed {seed}"
            text = (
                f"{who}: mean Q {number(curve['q_mean'].iloc[-1])} at the end, {number(curve['q_mean'].max())} at most"
            )
            figure.tell(text, axis, curve[view.clock], curve["q_mean"], line=len(curve) > 1)
        mean = own.groupby("env_steps").agg(x=(view.clock, "mean"), y=("q_mean", "mean"), seeds=("seed", "size"))
        mean = mean[mean["seeds"] == own["seed"].nunique()]  # while all are there
        point = "o" if len(mean) == 1 else ""
        axis.plot(mean["x"], mean["y"], color=colour, lw=2, zorder=4, marker=point, ms=5, label=literal(label))
        figure.tell(f"mean Q of {view.trial_text(trial)}", axis, mean["x"], mean["y"], line=len(mean) > 1)
        bounds = lanes["bound"][lanes["trial"] == trial]
        for bound in np.unique(bounds[np.isfinite(bounds)]):
            axis.axhline(bound, color=colour, lw=1.2, ls="--", zorder=3)
            whose = f" of trial {trial}" if view.space else ""
            figure.tell(f"no policy{whose} is worth more than {number(bound)}", axis, [0, view.end], bound, line=True)
    if view.bounded:
        axis.plot([], [], color="0.2", lw=1.2, ls="--", label="bound: largest reward / (1 - discount)")
    axis.set_ylabel("mean Q-value")
    _finish_x(axis, view)
    legend(figure)
    return figure


def _draw_overview(figure: Chart, axis: Any, view: View) -> None:
    from matplotlib.collections import LineCollection

    others = [int(trial) for trial in view.table["trial"] if trial not in view.best]
    if not others:
        return
    shown = [others[i] for i in np.unique(np.linspace(0, len(others) - 1, _OVERVIEW).astype(int))]
    curves = view.data.curves[(view.data.curves["phase"] == "search") & view.data.curves["trial"].isin(shown)]
    seeds = curves.groupby("trial")["seed"].nunique()
    means = curves.groupby(["trial", "env_steps"]).agg(
        x=(view.clock, "mean"), y=("eval_return", "mean"), seeds=("eval_return", "count")
    )
    means = means[means["seeds"] == seeds.reindex(means.index.get_level_values("trial")).to_numpy()]
    lines = []
    for trial, group in means.groupby("trial"):
        lines.append(group[["x", "y"]].to_numpy())
        figure.tell(f"mean of {view.trial_text(trial)}", axis, group["x"], group["y"], line=len(group) > 1)
    alpha = float(np.clip(12 / len(shown), 0.12, 0.6))
    axis.add_collection(
        LineCollection(lines, colors=GREY, lw=0.7, alpha=alpha, zorder=1, rasterized=len(lines) > DENSE // 4)
    )
    axis.plot(
        [], [], color=GREY, lw=1, label=f"{'other trials' if len(shown) == len(others) else 'some others'}, means"
    )
    axis.autoscale_view()


def stability(view: View, width: float = WIDE) -> Chart | None:
    """How many of the evaluations after convergence still met the threshold, against how fast it came."""
    table = view.table[view.table["stability"].notna()]
    if table.empty:
        return None
    figure, (axis,) = axes_of(1, width, 3.6)
    _scatter_estimates(axis, table, view, "stability", "stability")
    axis.set_ylim(-0.03, 1.03)
    axis.set_ylabel("later evaluations\nstill there (share)")
    _time_axis(axis, view)
    return figure


def cost(view: View, width: float = WIDE) -> Chart:
    """What each configuration cost, against how fast it converged."""
    figure, (axis,) = axes_of(1, width, 3.6)
    _scatter_estimates(axis, view.table, view, "device_seconds", "device-seconds")
    axis.set_ylim(0, 1.05 * float(view.table["device_seconds"].max()) or 1.0)
    axis.set_ylabel("device-seconds\nper configuration")
    _time_axis(axis, view)
    return figure


def _scatter_estimates(axis: Any, table: pd.DataFrame, view: View, name: str, words: str) -> None:
    """`name` of all trials over their time; the best few of the search with both intervals."""
    axis.scatter(table["time"], table[name], s=16, color=GREY, lw=0, alpha=0.7, rasterized=len(table) > DENSE)
    for row in table.to_dict("records")[::-1]:
        number_of = estimate(row, name) if f"{name}_low" in row else number(row[name])
        axis.figure.tell(f"{view.row_text(row)}; {words} {number_of}", axis, row["time"], row[name])
    for colour, row in zip(COLOURS[:4], table[:4].to_dict("records"), strict=False):
        spread = {
            f"{axis_name}err": [[row[key] - row[f"{key}_low"]], [row[f"{key}_high"] - row[key]]]
            for axis_name, key in (("x", "time"), ("y", name))
            if np.isfinite(row.get(f"{key}_low", np.nan))
        }
        label = f"trial {row['trial']} (search)" if view.space else literal(view.label)
        axis.errorbar(row["time"], row[name], **spread, fmt="o", ms=5, color=colour, lw=1.2, capsize=2, label=label)
    legend(axis.figure)


def _time_axis(axis: Any, view: View) -> None:
    _finish_x(axis, view)
    axis.set_xlabel(f"restricted mean {X_AXES[view.clock]} to convergence")


def profile(views: Sequence[View], width: float = WIDE) -> Chart | None:
    """Share of lanes whose final return is above each level."""
    scored = {id(view): results.with_scores(view.data) for view in views if view.with_budget}
    drawn = []
    for label, colour, view, trial in _drawn(views):
        if (lanes := scored.get(id(view))) is not None:
            shown = results.in_phase(view.data.settings, lanes, view.phase)
            own = shown[shown["trial"] == trial]["score"].to_numpy(np.float64)
            if not np.isnan(own).any():
                drawn.append((label, colour, own, view.trial_text(trial)))
    if not drawn:
        return None
    figure, (axis,) = axes_of(1, width, 3.6)
    values = np.concatenate([own for _, _, own, _ in drawn])
    margin = 0.05 * (np.ptp(values) or max(1.0, abs(values[0])))
    levels = np.linspace(values.min() - margin, values.max() + margin, 300)
    for label, colour, own, text in drawn:
        above = own[:, None] > levels  # [S, levels]
        bands = {tuple(column): convergence.share_interval(column) for column in np.unique(above, axis=1).T}
        low, high = np.array([bands[tuple(column)] for column in above.T]).T
        axis.fill_between(levels, low, high, color=colour, alpha=0.15, lw=0)
        shares = convergence.performance_profile(own[:, None], levels)
        axis.plot(levels, shares, color=colour, lw=1.8, label=literal(label))
        figure.tell(text, axis, levels, shares, line=True)
    axis.set_ylim(-0.03, 1.03)
    axis.ticklabel_format(axis="x", useOffset=False)
    axis.set_xlabel("final evaluation return")
    axis.set_ylabel("share of seeds above")
    legend(figure)
    return figure


# -- shared pieces -----------------------------------------------------------------------------------------


def _drawn(views: Sequence[View]) -> list[tuple[str, str, View, int]]:
    """What is drawn in colour: the best few of one view, or the best of each."""
    if len(views) == 1:
        return [(views[0].name(t), c, views[0], t) for c, t in zip(COLOURS, views[0].best, strict=False)]
    return [
        (view.label if not view.space else f"{view.label}: {view.name(view.best[0])}", colour, view, view.best[0])
        for colour, view in zip(COLOURS, views, strict=False)
    ]


def _finish_x(axis: Any, view: View) -> None:
    axis.set_xlim(0, view.end * 1.01)
    axis.xaxis.set_major_formatter("{x:,.0f}" if view.end >= 10 else "{x:g}")
    axis.set_xlabel(X_AXES[view.clock] if view.clock != "seconds" else "device-seconds")


def _draw_thresholds(axis: Any, views: Sequence[View]) -> None:
    first = {parse_criterion(text) for view in views for text in view.data.settings["criteria"][:1]}
    for level in sorted({criterion.threshold for criterion in first if criterion.kind in ("eval", "settled")}):
        axis.axhline(level, color="0.35", lw=0.9, ls="--", zorder=1, label=f"threshold {level:g}")
