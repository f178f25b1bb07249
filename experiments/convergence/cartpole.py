"""Which setting solves CartPole-v1 in the fewest environment steps, and which in the fewest seconds?

    .venv/bin/python -m experiments.convergence.cartpole                  # all of it: 80 CPU minutes and more
    .venv/bin/python -m experiments.convergence.cartpole --from-records   # the search as it is in trials.csv

Solved: a greedy mean of 475 over 100 episodes in three evaluations in a row. 1,024 points of nine settings around the
`cartpole` preset, 5 seeds each; the best by either clock again on 100 held-out seeds, evaluated from other starts. Of
those seeds 50 choose among the finalists, and the numbers are of the other 50.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dqn_jax import convergence, files
from dqn_jax.presets import resolve_preset, with_overrides
from dqn_jax.report import space_figures, sweep_figures
from dqn_jax.report.values import estimate, number, percent
from dqn_jax.report.view import View
from dqn_jax.sweep.results import ranked
from experiments import pages
from experiments.convergence import common

VARY = {
    "learning_rate": "log(3e-4,5e-3)",
    "learning_rate_decay_updates": "logint(4000,40000)",
    "discount": "0.98,0.99,0.995,0.998",
    "epsilon_decay_steps": "logint(1000,30000)",
    "epsilon_end": "uniform(0.01,0.15)",
    "target_mixing": "log(0.003,0.2)",
    "batch_size": "32,64,128",
    "train_every": "2,4,8",
    "hidden": "64x64,120x84",
}
# The preset as it was when the sweep began: what is varied around stays what it was when its winner is the preset.
FIXED = {
    "learning_rate": 1.7e-3,
    "learning_rate_end": 5e-5,
    "learning_rate_decay_updates": 25_000,
    "discount": 0.995,
    "epsilon_end": 0.1,
    "epsilon_decay_steps": 11_000,
    "target_period": 1,
    "target_mixing": 0.02,
    "batch_size": 64,
    "train_every": 2,
    "hidden": (120, 84),
    "total_steps": 41_000,
}
FINALISTS, HELD_OUT = 3, 100
RECORDS = common.RESULTS / "cartpole" / "trials.csv"
SEARCHED = "2026-11-21, 2 CPU cores (cpu), jax 0.10.2, Python 3.11.7"  # when the search in trials.csv was measured
PUBLISHED = 390  # what an earlier version of the page called the fastest: it is confirmed with the others


def main() -> None:
    """Run the sweep, and write results/cartpole: trials.csv, figures and page."""
    asked = {"samples": 1024, "seeds": 5, "confirm": HELD_OUT, "confirm_best": FINALISTS}
    preset = with_overrides(resolve_preset("cartpole"), FIXED)
    data = common.run("cartpole", preset, VARY, **asked, confirm_by=("env_steps", "seconds")).data
    by_steps, by_seconds = View.of(data), View.of(data, "seconds")
    figures = {
        **common.FIGURES,
        "parallel": space_figures.parallel_coordinates,
        "cost": sweep_figures.cost,
    }
    drawn = common.write_results("cartpole", by_steps, figures)
    steps, seconds = (view.confirmed.iloc[0].to_dict() for view in (by_steps, by_seconds))
    lanes = data.lanes[data.lanes["phase"] == "search"]
    both = ("time", "per_solved")
    _page(
        drawn,
        points=len(data.trials),
        end=by_steps.end,
        solved=lanes["converged"].mean(),
        lanes=len(lanes),
        lane_steps=data.lanes["env_steps"].sum(),
        device_seconds=data.lanes["device_seconds"].sum(),
        programs=len(data.plan["groups"]),
        steps=steps,
        seconds=seconds,
        confirmed_by_steps=common.ranking(by_steps.confirmed, by_steps, rows=6, columns=both),
        confirmed_by_seconds=common.ranking(by_seconds.confirmed, by_seconds, rows=6, columns=both),
        search_by_steps=common.ranking(by_steps.table, by_steps, columns=both),
        search_by_seconds=common.ranking(by_seconds.table, by_seconds, columns=both),
    )


def from_records() -> None:
    """The page anew from what trials.csv holds of the sweep of 2026-11-21, and its leaders confirmed anew.

    Lanes left when they converged, so the device-seconds of a trial are what its seeds cost, solved or not.
    """
    table = read_records()
    search = table[table["phase"] == "search"]
    # Intervals of that day were percentile bootstraps, which are too narrow, and cannot be had again without seeds.
    kept = [name for name in table.columns if not str(name).endswith(("_low", "_high"))]
    with files.atomic(RECORDS) as path:
        table[kept].to_csv(path, index=False, float_format="%.7g")
    leaders = [
        *search.nsmallest(FINALISTS, "time")["trial"],
        *search.nsmallest(FINALISTS, "seconds_per_solved")["trial"],
    ]
    again = pd.concat([_again(trial, search) for trial in dict.fromkeys([*leaders, PUBLISHED])])
    by_steps, by_seconds = again.sort_values(["choosing_time", "trial"]), again.sort_values("choosing_per_solved")
    _page(
        ("slices", "survival", "importance", "parallel", "cost"),
        when=f"measured {SEARCHED}, tables made anew (--from-records); figures are of that day",
        template="cartpole_records",
        confirmed_when=pages.machine(),
        fewest=by_steps.iloc[0].to_dict(),
        cheapest=by_seconds.iloc[0].to_dict(),
        published_trial=PUBLISHED,
        published=again[again["trial"] == PUBLISHED].iloc[0].to_dict(),
        by_steps=_confirmed(by_steps),
        by_seconds=_confirmed(by_seconds),
        **recorded(table),
    )


def read_records() -> pd.DataFrame:
    """trials.csv, with what each solved seed cost; NaN where none was."""
    table = pd.read_csv(RECORDS)
    table["seconds_per_solved"] = table["device_seconds"] / table["converged"].where(table["converged"] > 0)
    return table


def recorded(table: pd.DataFrame) -> dict[str, Any]:
    """What trials.csv says of the search, and of the held-out seeds of that day: a share, and lines of tables."""
    search, held_out = (table[table["phase"] == phase] for phase in ("search", "confirm"))
    return {
        "solved": search["converged"].sum() / 5120,
        "held_out_by_steps": _records(held_out.sort_values("time")),
        "held_out_by_seconds": _records(held_out.sort_values("seconds_per_solved")),
        "search_by_steps": _records(search.sort_values("time").head(5)),
        "search_by_seconds": _records(search.sort_values("seconds_per_solved").head(5)),
    }


def _confirmed(rows: pd.DataFrame) -> list[list[Any]]:
    """Rows of `_again` as lines of the page's table."""
    return [
        [
            row["trial"],
            number(row["choosing_time"]),
            number(row["choosing_per_solved"]),
            f"{row['converged']} ({estimate(row, 'share', percent)})",
            estimate(row, "steps", number),
            estimate(row, "reported", number),
        ]
        for row in rows.to_dict("records")
    ]


def _again(trial: int, search: pd.DataFrame) -> pd.DataFrame:
    """One point on 100 seeds held out anew; what an earlier call has found is not found again."""
    point = search.set_index("trial").loc[trial, list(VARY)].to_dict()
    vary = {str(name): value if isinstance(value, str) else f"{value:.10g}" for name, value in point.items()}
    fixed = {name: value for name, value in FIXED.items() if name not in VARY}
    seeds = list(range(10_000_000, 10_000_000 + HELD_OUT))
    out = f"cartpole-confirm-{trial}"
    data = common.run(out, "cartpole", vary, seeds=seeds, eval_seed=3_000_003, **fixed).data
    choosing, reported = (
        dataclasses.replace(
            data, settings=data.settings | {"seeds": half}, lanes=data.lanes[data.lanes["seed"].isin(half)]
        )
        for half in (seeds[: HELD_OUT // 2], seeds[HELD_OUT // 2 :])
    )
    return ranked(reported).assign(
        trial=trial,
        choosing_time=ranked(choosing)["time"],
        choosing_per_solved=ranked(choosing, "seconds")["per_solved"],
        **{f"steps{end}": ranked(reported)[f"time{end}"] for end in ("", "_low", "_high")},
        **{f"reported{end}": ranked(reported, "seconds")[f"per_solved{end}"] for end in ("", "_low", "_high")},
    )


def _records(rows: pd.DataFrame) -> list[list[Any]]:
    """Rows of trials.csv as lines of the page's table; of the intervals only that of the share can be had."""
    lines = []
    for row in rows.to_dict("records"):
        low, high = convergence.share_interval(np.arange(row["lanes"]) < row["converged"])
        settings = ", ".join(f"{name} {row[name]}" for name in VARY)
        share = f"{row['converged']} of {row['lanes']} ({percent(row['share'])} [{percent(low)}, {percent(high)}])"
        numbers = [number(row[name]) for name in ("time", "lane_seconds", "seconds_per_solved")]
        lines.append([row["trial"], share, *numbers, settings])
    return lines


def _page(figures: Sequence[str], **facts: Any) -> None:
    dated = convergence.parse_criterion("eval>=475x3").dated
    common.write_page("cartpole", figures, dated=dated, **facts)


if __name__ == "__main__":
    from_records() if sys.argv[1:] == ["--from-records"] else main()
