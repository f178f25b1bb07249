"""Which trial is best: the sections with tables of ranked trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dqn_jax import convergence
from dqn_jax.config import show
from dqn_jax.report.page import Cell, Paragraph, Section, Table
from dqn_jax.report.values import (
    converged_text,
    estimate,
    first_row,
    median_text,
    number,
    percent,
    settled_text,
    settled_time_text,
    time_text,
)
from dqn_jax.report.view import View
from dqn_jax.runs.figures import X_AXES

_ROWS = 50  # trials in the page's table; trials.csv has all


def confirmed(view: View) -> Section:
    """The finalists on held-out seeds; a section without items where nothing was confirmed."""
    if view.confirmed.empty:
        return Section("confirmed", "Confirmed", [])
    choice = view.choice[: 0 if view.chosen_on_reported else None]
    tables = [("held-out", view.confirmed), ("chosen on", choice), ("search", view.table)]
    sources = [(where, {row["trial"]: row for row in t.to_dict("records")}) for where, t in tables if not t.empty]
    outcome: list[tuple[str, Callable[[Any], str], str]] = [
        (view.converged_word, converged_text, "share"),
        (f"mean {X_AXES[view.clock]}", time_text, "time"),
    ]
    if not view.settles and view.confirmed["settled"].notna().any():
        outcome.append(("settled", settled_text, "settled_share"))
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


def ranking(view: View) -> Section:
    """The best trials with their estimates; of a run, its one row."""
    table, unit = view.table, X_AXES[view.clock]
    columns: list[tuple[str, Callable[[Any], str], str]] = []
    if view.criterion is not None:
        columns += [(view.converged_word, converged_text, "share"), (f"mean {unit}", time_text, "time")]
        columns.append(("per solved seed", lambda row: estimate(row, "per_solved"), "per_solved"))
    columns += [(name, lambda row, name=name: show(row[name]), name) for name in view.space]  # type: ignore[misc]
    if view.criterion is not None:
        columns.append(("median", median_text, "median"))
    if table["stability"].notna().any():
        columns.append(("later ones that hold", lambda row: estimate(row, "stability", percent), "stability"))
    if not view.settles and table["settled"].notna().any():
        columns += [
            ("settled", settled_text, "settled_share"),
            (f"mean {X_AXES['env_steps']} to settle", settled_time_text, "settled_time"),
        ]
    if view.with_budget:
        columns += [
            ("final mean", lambda row: estimate(row, "final_mean"), "final_mean"),
            ("worst seed", lambda row: number(row["lowest"]), "lowest"),
        ]
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
