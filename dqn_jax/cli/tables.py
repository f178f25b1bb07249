"""What a person sees at the end: tables on standard output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from dqn_jax import convergence
from dqn_jax.cli.words import STATUSES, point_text, return_text, seeds_text
from dqn_jax.runs import best
from dqn_jax.training import TrainResult

if TYPE_CHECKING:  # the other commands do without it
    from dqn_jax.sweep import SweepResult

_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


def sweep_tables(result: SweepResult) -> None:
    """Print the best trials, what became of the lanes, and where the files are."""
    from dqn_jax.sweep.results import halves, ranked

    console, data = Console(), result.data
    for phase, title in (("confirm", "on held-out seeds"), ("search", "in the search")):
        rows = ranked(data, phase=phase)
        if rows.empty:
            continue
        console.print(f"best {title}, by environment steps to {data.settings['criteria'][0]}", highlight=False)
        choosing, reported = halves(data.settings)
        if phase == "confirm" and choosing and choosing != reported:
            console.print(f"(in the order of {len(choosing)} other held-out seeds, which choose)", highlight=False)
        table = Table(box=None, show_edge=False, pad_edge=False)
        # Seen only where lanes went on to the end of their budget; where it is what trials are ranked by, it is there.
        settling = (
            rows["settled"].notna().any() and not convergence.parse_criterion(data.settings["criteria"][0]).settles
        )
        for column in ("trial", "converged", *(["settled"] if settling else []), "env steps (95%)"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("settings", overflow="fold")
        for row in rows.head(5).to_dict("records"):
            point = {name: row[name] for name in data.trials.columns}
            interval = "" if np.isnan(row["time_low"]) else f" ({row['time_low']:,.0f} to {row['time_high']:,.0f})"
            # The mean of seeds that spent their budget is the budget, which is no measurement of a time.
            steps = f"{row['time']:,.0f}{interval}" if row["converged"] else f"> {row['time']:,.0f} (none converged)"
            settled = "-" if np.isnan(row["settled"]) else f"{row['settled']:.0f}"
            table.add_row(
                str(row["trial"]),
                f"{row['converged']} of {row['lanes']}",
                *([settled] if settling else []),
                steps,
                point_text(point),
            )
        console.print(table)
        console.print()
    words = f"{_dated(data.settings['criteria'][:1])} A seed that never converged counts with its budget."
    console.print(f"{words.strip()}\n", highlight=False, markup=False)
    counts = data.lanes["status"].value_counts()
    console.print(
        "lanes   " + ", ".join(f"{count:,} {STATUSES[str(status)]}" for status, count in counts.items()),
        highlight=False,
    )
    if result.directory is not None:
        console.print(f"files   {result.directory}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"report  dqn-jax report {result.directory}", highlight=False, markup=False, soft_wrap=True)


def _dated(criteria: Sequence[str]) -> str:
    """When criteria of several readings count as met; nothing to say of others."""
    return " ".join(
        criterion.dated
        for criterion in map(convergence.parse_criterion, criteria)
        if criterion.settles or (criterion.window > 1 and criterion.kind != "train")
    )


def summary_tables(result: TrainResult) -> None:
    """Print how it went: convergence by criterion, the final evaluation, time, and where the files are."""
    console, summary = Console(), result.summary
    seeds = len(summary["seeds"])
    judged = bool(summary["criteria"])
    whose = f"{seeds_text(seeds)} (medians over all of them)" if judged else seeds_text(seeds)
    console.print(f"{summary['preset']} on {summary['env']}, {whose}", soft_wrap=True, markup=False)
    if judged:
        console.print(_criteria(summary))
    else:
        words = "none for this environment; --criteria gives one, such as 'eval>=475'"
        console.print(f"criteria          {words}", **_PLAIN)
    if words := _dated([criterion["name"] for criterion in summary["criteria"]]):
        console.print(words, highlight=False, markup=False)
    if any(share is not None for criterion in summary["criteria"] for share in criterion["stability"]):
        console.print("stays: the share of the evaluations after first passage that hold (95 %).", highlight=False)
    if any(criterion["converged"] is None for criterion in summary["criteria"]):
        console.print("not seen: the run ended before its budget, and only its end can tell.", highlight=False)
    final = summary["final_eval"]
    low, high = final["interval95"]
    interval = "" if low is None or np.isnan(low) else f" (95% {return_text(low)} to {return_text(high)})"
    console.print(
        f"\nfinal evaluation  mean {return_text(final['mean'])}{interval}, "
        f"worst {return_text(final['worst'])} (seed {final['worst_seed']})",
        highlight=False,
    )
    highest = [x for x in summary["best_eval_return"] if np.isfinite(x)]
    if highest:
        when = best.describe(summary["best_env_steps"])
        console.print(
            f"best evaluations  mean {return_text(float(np.mean(highest)))}, after {when}\n"
            "                  (the highest of each seed; 'evaluate --checkpoint best' plays it anew)",
            highlight=False,
            soft_wrap=True,
        )
    rates, spent = summary["throughput"], summary["seconds"]
    console.print(
        f"speed             {rates['env_steps_per_second'] or 0:,.0f} env steps/s, "
        f"{rates['updates_per_second'] or 0:,.0f} updates/s over all seeds; import {spent['import']:.1f} s, "
        f"compile {spent['compile']:.1f} s, run {spent['run']:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    for line in in_short(summary):
        console.print(f"in short          {line}", highlight=False, markup=False, soft_wrap=True)
    if summary["diverged"]:
        console.print(f"[red]diverged[/red]          seeds {', '.join(map(str, summary['diverged']))}", highlight=False)
    if result.run:
        console.print(f"files             {result.run}", highlight=False, markup=False, soft_wrap=True)


def _criteria(summary: dict[str, Any]) -> Table:
    """How many seeds met each criterion, and the medians of when."""
    seeds = len(summary["seeds"])
    table = Table(box=None, show_edge=False, pad_edge=False)
    table.add_column("criterion", no_wrap=True)
    for column in ("converged", "env steps", "updates", "episodes", "seconds", "stays"):
        table.add_column(column, justify="right", no_wrap=True)
    for criterion in summary["criteria"]:
        steps = convergence.median_with_censored(criterion["env_steps"])
        others = [convergence.median_with_censored(criterion[f]) for f in ("updates", "episodes", "seconds")]
        share = criterion["converged"]
        table.add_row(
            criterion["name"],
            "not seen" if share is None else f"{round(share * seeds) or 'none'} of {seeds}",
            "-" if share is None else f"> {summary['env_steps']:,}" if steps is None else f"{steps:,.0f}",
            *["-" if m is None else f"{m:,.0f}" for m in others],
            _stays([s for s in criterion["stability"] if s is not None]),
        )
    return table


def _stays(shares: Sequence[float]) -> str:
    """The mean of shares over seeds, with its interval: 85% (80-90)."""
    low, high = convergence.held_interval(shares)
    interval = "" if np.isnan(low) else f" ({100 * low:.0f}-{100 * high:.0f})"
    return f"{np.mean(shares):.0%}{interval}" if shares else "-"


def in_short(summary: dict[str, Any]) -> list[str]:
    """What a mean hides: agents that were good once, and Q-values that are no values."""
    lines = []
    seeds = len(summary["seeds"])
    if summary["criteria"] and summary["fell_back"]:
        criterion = convergence.parse_criterion(summary["criteria"][0]["name"])
        side = "below" if ">" in criterion.comparison else "above"
        lines.append(
            f"converged {round(summary['criteria'][0]['converged'] * seeds)} of {seeds}, "
            f"{len(summary['fell_back'])} of them ended {side} {criterion.threshold:g}"
        )
    if summary["above_bound"]:
        bounds = sorted({bound for bound in summary["value_bound"] if bound is not None})
        bound = f"{bounds[0]:,.4g}" + (f" to {bounds[-1]:,.4g}" if len(bounds) > 1 else "")
        furthest = max(abs(q) for q in summary["q_mean"] if q is not None)
        lines.append(
            f"mean Q above its bound in {len(summary['above_bound'])} of {seeds} seeds: up to {furthest:,.4g}, where "
            f"no policy is worth more than {bound} (largest reward / (1 - discount))"
        )
    return lines
