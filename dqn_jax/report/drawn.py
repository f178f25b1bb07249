"""How it went: the sections with figures, and what is said beside them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dqn_jax import convergence
from dqn_jax.config import show
from dqn_jax.report import space_figures
from dqn_jax.report import sweep_figures as figures
from dqn_jax.report.page import Cell, Paragraph, Picture, Section, Table
from dqn_jax.report.values import number, percent
from dqn_jax.report.view import View
from dqn_jax.runs.figures import X_AXES

if TYPE_CHECKING:
    from dqn_jax.report.charts import Chart

_GRID = 10  # hyperparameters in a grid whose effective dimensionality is worked out, in 2^H steps


def pictures(name: str, draw: Callable[..., Chart | None], caption: str, alt: str) -> list[Picture]:
    """A figure, where there is something to draw; `draw` may be given a width, in inches."""
    chart = draw()
    return [] if chart is None else [Picture(name, chart, cast("Callable[[float], Chart]", draw), caption, alt)]


def survival(view: View) -> Section:
    """Kaplan-Meier curves of the best trials, where there is a criterion to survive."""
    if view.criterion is None:
        return Section("survival", "Time to convergence", [])
    caption = (
        f"Share of seeds that had not met {view.criterion} yet (Kaplan-Meier), with pointwise 95 % bands"
        + ("; the band of all trials resamples whole trials" if len(view.table) > 1 else "")
        + ". Ticks mark where pruned lanes were lost from sight. "
        + convergence.parse_criterion(view.criterion).dated
    )
    drawn = pictures("survival", partial(figures.survival, [view]), caption, "Survival curves of time to convergence")
    if (settling := view.settling) is not None and settling.criterion is not None:
        drawn += pictures(
            "settling",
            partial(figures.survival, [settling]),
            f"Share of the seeds of the same trials that had not settled yet, with pointwise 95 % bands. "
            f"{convergence.parse_criterion(settling.criterion).dated} Whoever has not settled is censored at the end.",
            "Survival curves of time to settle",
        )
    return Section("survival", "Time to settle" if view.settles else "Time to convergence", drawn)


def learning(view: View) -> Section:
    """Evaluation returns and mean Q-values over time."""
    caption = (
        "Mean evaluation return with its 95 % band over seeds, while all seeds are there; thin lines are seeds, to "
        "where each left."
    )
    drawn = pictures("learning", partial(figures.learning_curves, [view]), caption, "Learning curves")
    drawn += pictures(
        "values",
        partial(figures.values, view),
        "Mean Q-value of what was learnt from, thin for each seed, thick their mean"
        + ("; dashed: no policy is worth more, so above it values are errors." if view.bounded else "."),
        "Mean Q-values over time",
    )
    return Section("learning", "Learning curves", drawn)


def hyperparameters(view: View) -> Section:
    """Each hyperparameter against the time to convergence, and which of them matter."""
    if not view.space or view.criterion is None:
        return Section("hyperparameters", "Hyperparameters", [])
    items: list[Any] = [
        *pictures(
            "slices",
            partial(space_figures.slices, view),
            "Each point is a trial"
            + (
                "; the dotted line is the budget, where trials lie of which no seed converged. "
                if view.clock == "env_steps"
                else "."
                + (" Trials of which no seed converged are left out. " if view.measure == "per_solved" else " ")
            )
            + "Trials differ in the other hyperparameters too.",
            "Hyperparameters against time to convergence",
        ),
        *pictures(
            "parallel",
            partial(space_figures.parallel_coordinates, view),
            "Each line is a trial; dark is fast. The best few are in colour"
            + (" (by their held-out seeds; heights are of the search)." if not view.confirmed.empty else "."),
            "Parallel coordinates of the trials",
        ),
    ]
    if isinstance(view.importance, str):
        items.append(Paragraph(view.importance))
    else:
        items += pictures(
            "importance",
            partial(space_figures.importances, view.importance),
            f"PED-ANOVA: how much each hyperparameter alone sets the best {percent(view.importance.top)} of the "
            "trials apart. Whiskers: the middle 95 % over random halves of the trials.",
            "Importance of hyperparameters",
        )
    return Section("hyperparameters", "Hyperparameters", items)


def sensitivity(view: View) -> Section:
    """How much the settings matter, and how long convergence lasts."""
    items: list[Any] = []
    if len(view.table) > 1 and view.table["converged"].any():
        times = view.table["time"].to_numpy(np.float64)
        quantiles = (0.25, 0.5, 0.75)
        intervals = [convergence.quantile_interval(times, quantile) for quantile in quantiles]
        words = [
            f"{name} {number(value)} [{number(low)}, {number(high)}]"
            for name, value, (low, high) in zip(
                ("a quarter within", "half within", "three quarters within"),
                np.quantile(times, quantiles),
                intervals,
                strict=True,
            )
        ]
        always = (view.table["share"] == 1).to_numpy()
        low, high = convergence.share_interval(always)
        items.append(
            Paragraph(
                f"How much the settings matter: mean {X_AXES[view.clock]} to convergence was {number(times.min())} "
                f"in the leading trial; of all trials {', '.join(words)}. All seeds converged in "
                f"{percent(always.mean())} [{percent(low)}, {percent(high)}] of the trials. The intervals are "
                "over trials, so they are about points of this space drawn in this way."
            )
        )
        items += _dimensionality(view)
    items += pictures(
        "stability",
        partial(figures.stability, view),
        "Share of the evaluations after first passage that met the threshold, over the time it took; the four "
        "leading trials of the search with intervals.",
        "Stability after first passage",
    )
    return Section("sensitivity", "Sensitivity and stability", items)


def _dimensionality(view: View) -> list[Paragraph]:
    """Of a grid that has the preset in it."""
    settings = view.data.settings
    if settings.get("sampler") != "grid" or len(view.space) > _GRID:
        return []
    preset = {name: show({**settings["config"], **settings["hparams"]}.get(name)) for name in view.space}
    points = [[show(value) for value in row] for row in view.table[list(view.space)].itertuples(index=False, name=None)]
    if list(preset.values()) not in points:
        return []
    score = np.maximum(1.0 - view.table[["time"]].to_numpy(np.float64) / view.end, 0.0)
    found = convergence.effective_dimensionality(points, score, default=points.index(list(preset.values())))
    names = ", ".join(list(view.space)[i] for i in found.tuned[found.dimensionality]) or "none"
    return [
        Paragraph(
            f"Tuned from the preset, {found.dimensionality} of {len(view.space)} hyperparameters ({names}) reach 95 "
            "% of what tuning all of them does (effective dimensionality of Adkins et al. 2024, here in one "
            f"environment; score: share of the horizon saved, {found.scores[0]:.3f} untuned, {found.scores[-1]:.3f} "
            "tuned). The maxima over trials favour luck, so this is a lower bound on what more seeds would show."
        )
    ]


def final(view: View) -> Section:
    """Final returns of the best trials, where lanes spent their whole budget."""
    caption = (
        "Share of seeds whose final evaluation return lies above each level (performance profile), with 95 % bands."
    )
    picture = pictures("profile", partial(figures.profile, [view]), caption, "Performance profile of final returns")
    return Section("final", "Final return", picture)


def cost(view: View) -> Section:
    """Device-seconds spent, compilation, and what each program held."""
    lanes, plan = view.data.lanes, view.data.plan
    spent = lanes.groupby("phase")["device_seconds"].sum()
    parts = [
        f"{number(seconds)} device-seconds{f' of {phase}' if view.space else ''}"
        for phase, seconds in spent.sort_index(ascending=False).items()
    ]
    groups, sessions = plan.get("groups", []), plan.get("sessions", [])
    compiled = [program["seconds"] for program in plan.get("compiled", [])]
    device = f" on {plan['devices']} x {plan.get('device_kind', 'device')}" if plan.get("devices") else ""
    text = f"{' and '.join(parts)}{device}; compilation apart: {number(sum(compiled))} s (programs: {len(compiled)})."
    if sessions:
        text += f" From start to end it took {number(sum(session['seconds'] for session in sessions))} s."
    items: list[Any] = [Paragraph(text)]
    if view.space and view.criterion is not None:
        items += pictures(
            "cost",
            partial(figures.cost, view),
            "All seeds of a configuration together, as measured, over the time it took to converge; the four leading "
            "trials of the search with the interval of their time.",
            "Cost of each configuration",
        )
    if groups:
        columns = ("trials", "lanes", "waves", "capacity", "bytes_per_lane")
        rows = []
        for group in groups:
            point = ", ".join(f"{name} {show(value)}" for name, value in group.get("settings", {}).items())
            cells = [
                Cell.of("-" if group.get(name) is None else number(float(group[name])), group.get(name))
                for name in columns
            ]
            rows.append([Cell.of(point or "all settings"), *cells])
        titles = ("program", "trials", "lanes", "waves", "lanes at once", "bytes per lane")
        items.append(Table(titles, rows, numeric=[False, *(True for _ in columns)], sortable=len(rows) > 1))
    return Section("cost", "Cost", items)
