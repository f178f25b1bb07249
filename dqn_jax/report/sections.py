"""What a report on one sweep or run says, in plain words, tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dqn_jax import convergence
from dqn_jax.config import show
from dqn_jax.report import space_figures
from dqn_jax.report import sweep_figures as figures
from dqn_jax.report.caveats import caveats
from dqn_jax.report.page import Cell, Content, Paragraph, Picture, Points, Section, Table
from dqn_jax.report.settings import fixed_settings
from dqn_jax.report.short import in_short
from dqn_jax.report.values import converged_text, estimate, first_row, median_text, number, percent, time_text
from dqn_jax.report.view import View
from dqn_jax.runs.figures import X_AXES
from dqn_jax.runs.labels import ranges
from dqn_jax.sweep import results

if TYPE_CHECKING:
    from dqn_jax.report.charts import Chart

_ROWS = 50  # trials in the page's table; trials.csv has all
_FEW_SEEDS = 10  # below which a reader is told what an interval cannot know
_GRID = 10  # hyperparameters in a grid whose effective dimensionality is worked out, in 2^H steps


def report(view: View) -> Content:
    """Title, subtitle, sections and footer of the page on one sweep or run."""
    settings = view.data.settings
    trials, lanes = len(view.table), len(view.data.lanes)
    what = f"{trials:,} trials, {lanes:,} lanes" if view.space else f"{lanes:,} seeds"
    env = settings["config"].get("env", settings.get("preset"))
    subtitle = f"{env}: {what}" + (f", ranked by {view.clock_words}" if view.space else "")
    sections = [
        Section("short", "In short", [Points(in_short(view)), *_warnings(view)]),
        _asked(view),
        _confirmed(view),
        _ranking(view),
        _survival(view),
        _learning(view),
        _hyperparameters(view),
        _sensitivity(view),
        _final(view),
        _cost(view),
        Section("bear-in-mind", "How to read this", [Points(_reading(view), "short")]),
        provenance(view),
    ]
    return view.label, subtitle, [section for section in sections if section.items], _footer(view)


def _footer(view: View) -> str:
    version, started = (view.data.provenance.get(key) or "unknown" for key in ("dqn_jax", "started"))
    return f"dqn_jax version {version}; started: {started}. Every interval is a 95 % interval."


def _warnings(view: View) -> list[Points]:
    texts = caveats(view)
    return [Points(texts, "warn")] if texts else []


def _asked(view: View) -> Section:
    settings = view.data.settings
    config = settings["config"]
    rows = [
        ("environment", config.get("env", "-")),
        ("preset", settings.get("preset", "-")),
        ("converged means", view.criterion or "nothing: no criterion"),
        ("further criteria", ", ".join(settings["criteria"][1:]) or "none"),
        ("budget", f"{number(results.horizon(view.data))} environment steps per lane"),
        ("a lane ends", "when it converges" if settings["stop"] == "converged" else "with its budget"),
        ("seeds", ranges(settings["seeds"])),
    ]
    if view.space:
        samples = f", {settings['samples']} asked for" if settings.get("samples") else ""
        rows.append(("sampler", f"{settings.get('sampler', '-')}{samples}, seed {settings.get('sample_seed', 0)}"))
        confirm, prune = settings.get("confirm"), settings.get("prune")
        words = f"best {confirm['best']} again on seeds {ranges(confirm['seeds'])}" if confirm else "no"
        if confirm and confirm.get("choosing"):
            words += f"; the first {confirm['choosing']} of them choose among these, the others are reported"
        rows.append(("confirmation", words))
        rows.append(("pruning", f"{prune['rule']}, eta {prune['eta']}" if prune else "no"))
    items: list[Any] = [_pairs(rows)]
    if view.space:
        preset = {**config, **settings["hparams"]}
        varied = [(name, text, show(preset.get(name))) for name, text in settings["vary"].items()]
        items.append(
            Table(("varies", "over", "in the preset"), [[Cell.of(text) for text in row] for row in varied], numeric=())
        )
    return Section("asked", "What was asked", items)


def _pairs(rows: Sequence[tuple[str, Any]]) -> Table:
    return Table((), [[Cell.of(name), Cell.of(show(value))] for name, value in rows])


def _confirmed(view: View) -> Section:
    if view.confirmed.empty:
        return Section("confirmed", "Confirmed", [])
    choice = view.choice[: 0 if view.chosen_on_reported else None]
    tables = [("held-out", view.confirmed), ("chosen on", choice), ("search", view.table)]
    sources = [(where, {row["trial"]: row for row in t.to_dict("records")}) for where, t in tables if not t.empty]
    outcome: list[tuple[str, Callable[[Any], str], str]] = [
        ("converged", converged_text, "share"),
        (f"mean {X_AXES[view.clock]}", time_text, "time"),
    ]
    outcome += [("final IQM", lambda row: estimate(row, "final"), "final")] if view.with_budget else []
    rows = []
    for row in view.confirmed.to_dict("records"):
        cells = [Cell.of(str(row["rank"]), row["rank"]), Cell.of(str(row["trial"]), row["trial"])]
        for _, text, key in outcome:
            cells += [Cell.of(text(one), one[key]) for one in (of[row["trial"]] for _, of in sources)]
        rows.append([*cells, *(Cell.of(show(row[name]), row[name]) for name in view.space)])
    titles = [f"{what}, {where}" for what, _, _ in outcome for where, _ in sources]
    if not choice.empty:
        caption = (
            "Held-out: seeds that played no part in choosing anything, and the number to report. Chosen on: the other "
            "half of the held-out seeds, which gave this order."
        )
    else:
        caption = "Held-out: seeds that played no part in the search, and the number to report."
    table = Table(
        ("#", "trial", *titles, *view.space),
        rows,
        f"{caption} Search: the seeds on which finalists were chosen, so those numbers are too good.",
        [True, True, *(True for _ in titles), *(False for _ in view.space)],
        sortable=len(rows) > 1,
    )
    best = first_row(view.confirmed)
    if not choice.empty:
        how = f"by {show(int(choice['lanes'].max()))} held-out seeds"
    else:
        how = "by its held-out seeds" if len(rows) > 1 and view.chosen_on_reported else "by the search"
    words = f"Best: trial {best['trial']}, {how}; reported: {best['lanes']} held-out seeds."
    return Section("confirmed", "Confirmed", [Paragraph(words), table])


def _ranking(view: View) -> Section:
    table, unit = view.table, X_AXES[view.clock]
    columns: list[tuple[str, Callable[[Any], str], str]] = []
    if view.criterion is not None:
        columns += [("converged", converged_text, "share"), (f"mean {unit}", time_text, "time")]
        columns.append(("per solved seed", lambda row: estimate(row, "per_solved"), "per_solved"))
    columns += [(name, lambda row, name=name: show(row[name]), name) for name in view.space]  # type: ignore[misc]
    if view.criterion is not None:
        columns.append(("median", median_text, "median"))
    if table["stability"].notna().any():
        columns.append(("stability", lambda row: estimate(row, "stability", percent), "stability"))
    if view.with_budget:
        columns += [
            (title, lambda row, name=name: estimate(row, name), name)  # type: ignore[misc]
            for title, name in (("final IQM", "final"), ("worst 10 %", "worst"), ("area", "area"))
        ]
    columns += [
        (name, lambda row, name=name: str(row[name]), name)  # type: ignore[misc]
        for name in ("diverged", "pruned")
        if table[name].any()
    ]
    columns.append(("device-s per lane", lambda row: estimate(row, "lane_seconds"), "lane_seconds"))
    rows = []
    for row in table[:_ROWS].to_dict("records"):
        cells = [Cell.of(str(row["rank"]), row["rank"]), Cell.of(str(row["trial"]), row["trial"])]
        rows.append([*cells, *(Cell.of(text(row), row[key]) for _, text, key in columns)])
    caption = (
        f"The best {_ROWS} of {len(table):,} trials; trials.csv beside this page has all." if len(table) > _ROWS else ""
    )
    shown = Table(
        ("#", "trial", *(title for title, _, _ in columns)),
        rows,
        caption,
        [True, True, *(name not in view.space for _, _, name in columns)],
        sortable=len(rows) > 1,
    )
    words = "Estimates with 95 % intervals over seeds. "
    if view.criterion is not None:
        words += (
            f"The mean counts {number(view.end)} {unit} for a seed that never converged (restricted mean of the "
            "Kaplan-Meier curve)."
            if view.clock == "env_steps"
            else "The mean counts, for a seed that never converged, what its whole budget cost it."
        )
        words += (
            " Per solved seed: what all seeds took together for each that converged. "
            + convergence.parse_criterion(view.criterion).dated
        )
    words += " Click on a heading to sort." if len(rows) > 1 else ""
    return Section("ranking", "Ranking" if view.space else "Result", [Paragraph(words), shown])


def _survival(view: View) -> Section:
    if view.criterion is None:
        return Section("survival", "Time to convergence", [])
    caption = (
        f"Share of seeds that had not met {view.criterion} yet (Kaplan-Meier), with pointwise 95 % bands"
        + ("; the band of all trials resamples whole trials" if len(view.table) > 1 else "")
        + ". Ticks mark where pruned lanes were lost from sight."
    )
    drawn = pictures("survival", partial(figures.survival, [view]), caption, "Survival curves of time to convergence")
    return Section("survival", "Time to convergence", drawn)


def _learning(view: View) -> Section:
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


def _hyperparameters(view: View) -> Section:
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


def pictures(name: str, draw: Callable[..., Chart | None], caption: str, alt: str) -> list[Picture]:
    """A figure, where there is something to draw; `draw` may be given a width, in inches."""
    chart = draw()
    return [] if chart is None else [Picture(name, chart, cast("Callable[[float], Chart]", draw), caption, alt)]


def _sensitivity(view: View) -> Section:
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
        "Share of the evaluations after convergence that still met the threshold, over the time it took; the four "
        "leading trials of the search with intervals.",
        "Stability after convergence",
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


def _final(view: View) -> Section:
    caption = (
        "Share of seeds whose final evaluation return lies above each level (performance profile), with 95 % bands."
    )
    picture = pictures("profile", partial(figures.profile, [view]), caption, "Performance profile of final returns")
    return Section("final", "Final return", picture)


def _cost(view: View) -> Section:
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


def _reading(view: View) -> list[str]:
    fewest = int(view.table["lanes"].min())
    texts = [
        "A lane is one trial with one seed. 95 % intervals over seeds: of means Student's t, reaching further where "
        "seeds are skewed (Hall); of shares and medians exact; of times put together from the share that converged and "
        "the times of those. They are not corrected for the number of trials compared.",
    ]
    if fewest == 1:
        texts.append(
            "A trial with one seed has no interval of its own: nothing says how far another seed would be off."
        )
    elif fewest < _FEW_SEEDS:
        texts.append(
            f"With {fewest} seeds an interval is wide, and says nothing of a kind of failure that none of them met. "
            "Where all seeds agree, and for a median of fewer than 6 or a 10 % quantile of fewer than 36, none is "
            "shown."
        )
    if view.clock != "env_steps":
        texts.append(
            "On this clock a lane that never converged counts with its own cost of the whole budget; one that diverged "
            "or was pruned before, as if it had gone on at its own pace."
        )
    if view.clock == "seconds":
        texts.append(
            "Seconds are a lane's share of the time the devices worked; they depend on the machine and on the lanes "
            "beside it."
        )
    texts.append(
        "Stability is the mean, over the seeds that converged and went on, of the share of later evaluations that "
        "still met the threshold."
    )
    if view.with_budget:
        texts.append(
            "Final return is an interquartile mean over seeds, 'worst 10 %' their 10 % quantile, area the mean of the "
            "evaluation curve over the budget; a diverged seed counts with the lowest evaluation of the sweep, and a "
            "trial with pruned seeds has none of these."
        )
    return texts


def provenance(view: View) -> Section:
    """Where the numbers come from, and the settings that did not vary."""
    items = [_pairs(list(_flat(view.data.provenance))), *fixed_settings(view.data.settings)]
    return Section("provenance", "Provenance", items)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name} ")
        elif name == "seeds":
            rows.append((prefix + name, ranges(value)))
        else:
            rows.append((prefix + name, " ".join(map(str, value)) if isinstance(value, list) else value))
    return rows
