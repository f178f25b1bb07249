"""What a report says first, in a few sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqn_jax import convergence
from dqn_jax.config import show
from dqn_jax.report.values import (
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
from dqn_jax.sweep.rejudged import settling_of

if TYPE_CHECKING:
    import pandas as pd


def in_short(view: View) -> list[str]:
    """The result in a few sentences."""
    texts, criterion, table = [], view.criterion, view.table
    unit = X_AXES[view.clock]
    if criterion is None:
        texts += _without_criterion(view)
    elif view.space:
        texts.append(
            f"{len(table):,} trials of {show(int(table['lanes'].max()))} seeds each; {_share_of_lanes(table)} of the "
            f"lanes met {criterion} within {number(view.end)} {unit}."
        )
    else:
        row = first_row(table)
        texts.append(
            f"{row['converged']} of {row['lanes']} seeds ({estimate(row, 'share', percent)}) met {criterion} within "
            f"{number(view.end)} {unit}; mean time to it {time_text(row)}, median {median_text(row)}."
            f" {convergence.parse_criterion(criterion).dated}"
        )
    if view.space and criterion is not None:
        held_out = not view.confirmed.empty
        row = first_row(view.confirmed if held_out else table)
        result = (
            f"{row['converged']} of {row['lanes']} seeds {view.converged_word}, mean {unit} {time_text(row)}"
            if row["converged"]
            else "though none of its seeds converged"
        )
        if not table["converged"].any():
            texts.append("No seed of any trial converged, so there is no leading trial.")
            return texts
        if held_out and len(view.confirmed) > 1 and view.chosen_on_reported:
            start = f"Best of {len(view.confirmed)} on {row['lanes']} held-out seeds, which also chose it:"
        elif held_out:
            start = f"Best, confirmed on {row['lanes']} seeds that played no part in choosing it:"
        else:
            start = "Leading in the search, not confirmed on other seeds:"
        texts.append(f"{start} trial {row['trial']} ({view.point_text(row)}); {result}.")
    texts += _hidden_by_means(view)
    if not isinstance(view.importance, str):
        found = view.importance
        texts.append(
            f"What set the best {percent(found.top)} of the trials apart was above all {found.names[0]} (importance "
            f"{found.shares[0]:.2f}, {found.low[0]:.2f} to {found.high[0]:.2f} in random halves of the trials)."
        )
    return texts


def _hidden_by_means(view: View) -> list[str]:
    """Agents that were good once, and Q-values that are no values, of the best trial."""
    texts, lanes = [], view.lanes(view.best[0])
    whose = f" of trial {view.best[0]}" if view.space else ""
    if view.criterion is not None and (first := convergence.parse_criterion(view.criterion)).kind in (
        "eval",
        "settled",
    ):
        below = ~first.holds(lanes["final_return"].to_numpy(np.float64))
        fell = int((below & lanes["converged"].to_numpy(bool)).sum())
        if below.any():
            then = f"; converged, then fell: {fell} of {int(lanes['converged'].sum())}" if not view.settles else ""
            texts.append(
                f"At the last evaluation {int(below.sum())} of {len(lanes)} seeds{whose} were below "
                f"{first.threshold:g}{then}."
            )
        texts += _settled(view, whose)
    if count := int(view.above_bound.sum()):
        bounds, furthest = np.unique(view.bounds[view.above_bound]), view.data.curves["q_mean"].abs().max()
        bound = number(bounds[0]) + (f" to {number(bounds[-1])}" if len(bounds) > 1 else "")
        texts.append(
            f"Mean Q passed its bound in {count:,} of {len(view.above_bound):,} {'lanes' if view.space else 'seeds'}, "
            f"up to {number(furthest)}: no policy is worth more than {bound} here (largest reward / (1 - discount))."
        )
    return texts


def _settled(view: View, whose: str) -> list[str]:
    """Who of the best trial's seeds stayed where they got, where first passage is what is ranked."""
    table = view.table if view.confirmed.empty else view.confirmed
    row = first_row(table[table["trial"] == view.best[0]])
    settling = settling_of(view.data)
    if view.settles or settling is None or not np.isfinite(row["settled"]):
        return []
    return [
        f"Seeds{whose} that settled ({settling.name}: from there on every evaluation holds, to the end of the budget): "
        f"{settled_text(row)}, mean environment steps {settled_time_text(row)}. After first passage "
        f"{estimate(row, 'stability', percent)} of evaluations hold; final mean {estimate(row, 'final_mean')}, worst "
        f"seed {number(row['lowest'])}."
    ]


def _without_criterion(view: View) -> list[str]:
    """What can be said where nothing says what converged means."""
    texts = [
        f"Nothing says what converged means on {view.env}: it has no criteria of its own, and none was given. "
        "--criteria gives one, such as 'eval>=475' or 'train100>=195'."
    ]
    lanes = view.lanes()
    final = lanes["final_return"].to_numpy(np.float64)
    if view.space or not np.isfinite(final).any():
        return texts
    row = first_row(view.table)
    known = f"mean {number(np.nanmean(final))}, worst seed {number(np.nanmin(final))}, best {number(np.nanmax(final))}"
    middle = f"; interquartile mean {estimate(row, 'final')}" if np.isfinite(row["final"]) else ""
    return [*texts, f"Last evaluation of {len(lanes)} seeds: {known}{middle}."]


def _share_of_lanes(table: pd.DataFrame) -> str:
    """Share of lanes converged. Its interval counts trials, not lanes: the seeds of a trial are alike."""
    if len(table) == 1:
        return estimate(first_row(table), "share", percent)
    low, high = convergence.share_interval(table["share"])
    return f"{percent(table['share'].mean())} [{percent(low)}, {percent(high)}]"
