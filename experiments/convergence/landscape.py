"""A hyperparameter landscape of DQN on CartPole-v1, over all traced hyperparameters, in one population.

.venv/bin/python -m experiments.convergence.landscape                  # 4 minutes on two quiet cores
.venv/bin/python -m experiments.convergence.landscape --from-records   # anew from landscape.parquet
"""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pandas as pd

import dqn_jax
from dqn_jax import files
from dqn_jax.report import space_figures, sweep_figures
from dqn_jax.report.view import View
from dqn_jax.sweep.tables import CURVE_COLUMNS, LANE_COLUMNS, SweepData
from experiments import pages
from experiments.convergence import common

RECORDS = common.RESULTS / "landscape" / "landscape.parquet"

# ARLBench's protocol for DQN on CartPole (Becktepe et al. 2024): 256 configurations, 10 seeds, 10 checkpoints of 100k
# steps; 10 environments, one update of 16 every 40 steps.
CONFIG = dqn_jax.Config(
    env="CartPole-v1",
    num_envs=10,
    hidden=(64, 64),
    batch_size=16,
    train_every=40,
    replay_capacity=100_000,
    min_replay=1_000,
    total_steps=101_000,
    eval_every=10_000,
    eval_episodes=100,
    loss="huber",
)
HPARAMS = dqn_jax.HParams(learning_rate_end=1e-5, max_grad_norm=10.0, optimizer_eps=1e-8, b1=0.9, b2=0.999)
VARY = {
    "learning_rate": "log(1e-5,1e-1)",
    "learning_rate_end": "log(1e-6,1e-3)",
    "learning_rate_decay_updates": "logint(100,2500)",
    "discount": "uniform(0.8,0.9999)",
    "epsilon_start": "uniform(0.5,1)",
    "epsilon_end": "log(0.001,0.5)",
    "epsilon_decay_steps": "logint(1000,100000)",
    "target_period": "logint(1,500)",
    "target_mixing": "log(0.01,1)",
    "huber_delta": "log(0.1,100)",
    "max_grad_norm": "log(0.1,100)",
    "optimizer_eps": "log(1e-9,1e-3)",
    "b1": "uniform(0.5,0.99)",
    "b2": "uniform(0.9,0.9999)",
}


def main() -> None:
    """Run the sweep, and write results/landscape: records, trials.csv, figures and page."""
    preset = dqn_jax.Preset("cartpole-landscape", "", CONFIG, HPARAMS, ("eval>=475",))
    data = common.run("landscape", preset, VARY, samples=256, seeds=10, stop="budget").data
    # One row for each point, seed and checkpoint, with the point: all that a landscape is drawn from.
    curves = data.curves[["trial", "seed", "env_steps", "eval_return", "train_return"]]
    table = curves.merge(data.trials, left_on="trial", right_index=True)
    small = {name: "float32" for name in (*VARY, "eval_return", "train_return")}
    with files.atomic(RECORDS) as path:
        table.astype({**small, "trial": "int16", "seed": "int8", "env_steps": "int32"}).to_parquet(path, index=False)
    session, compiled = data.plan["sessions"][-1], data.plan["compiled"]
    write(
        data,
        cost=f"{len(compiled)} program, {session['lane_steps']:,} lane-steps in {session['seconds']:.0f} s",
        when=f"measured {pages.machine()}",
    )


def from_records() -> None:
    """Write results/landscape from landscape.parquet and trials.csv."""
    write(
        recorded(),
        cost="1 program, 256,000,000 lane-steps in 243 s",
        when="measured 2026-11-21, 2 CPU cores (cpu), jax 0.10.2, Python 3.11.7; tables anew from its records with "
        "today's intervals (--from-records)",
    )


def recorded() -> SweepData:
    """The sweep of 2026-11-21 from landscape.parquet and trials.csv; updates and episodes are not there."""
    table = pd.read_parquet(RECORDS)
    curves = table.assign(phase="search").reindex(columns=list(CURVE_COLUMNS)).fillna({"updates": 0, "episodes": 0})
    curves["eval_return"] = curves["eval_return"].astype("float64").round(2)  # means of 100 returns
    rows = []
    for (trial, seed), own in curves.groupby(["trial", "seed"]):
        met = own["env_steps"][own["eval_return"] >= 475].to_numpy(float)
        final = float(own["eval_return"].iloc[-1])
        row = {
            "trial": trial,
            "seed": seed,
            "phase": "search",
            "status": "diverged" if np.isnan(final) else "budget",
            "env_steps": own["env_steps"].iloc[-1],
            "converged": len(met) > 0,
            "converged_env_steps": met[0] if len(met) else np.nan,
            "final_return": final,
            "best_return": own["eval_return"].max(),
            "moments": "[null]",
        }
        rows.append(row)
    spent = pd.read_csv(RECORDS.with_name("trials.csv")).set_index("trial")["lane_seconds"]
    lanes = (
        pd.DataFrame(rows)
        .assign(device_seconds=lambda own: own["trial"].map(spent))
        .reindex(columns=list(LANE_COLUMNS))
        .fillna({"updates": 0, "episodes": 0})
    )
    settings = {
        "preset": "cartpole-landscape", "vary": VARY, "seeds": list(range(10)), "criteria": ["eval>=475"],
        "stop": "budget", "config": dataclasses.asdict(CONFIG), "hparams": HPARAMS._asdict(),
    }  # fmt: skip
    trials = table.groupby("trial")[list(VARY)].first().astype({n: int for n, t in VARY.items() if "int(" in t})
    return SweepData(
        name="landscape",
        settings=settings,
        plan={},
        provenance={},
        trials=trials,
        lanes=lanes.astype(LANE_COLUMNS),
        curves=curves.astype(CURVE_COLUMNS),
    )


def write(data: SweepData, *, cost: str, when: str) -> None:
    """Write trials.csv, figures and page; what the sweep cost, and when it was measured, are words for the page."""
    view = View.of(data, "final_return")
    figures = {
        "slices": space_figures.slices,
        "importance": common.importances,
        "profile": lambda view: sweep_figures.profile([view]),
    }
    drawn = common.write_results("landscape", view, figures)
    common.write_page(
        "landscape",
        drawn,
        when=when,
        points=len(data.trials),
        seeds=len(data.settings["seeds"]),
        varied=len(VARY),
        cost=cost,
        converged=data.lanes["converged"].mean(),
        middle=view.table["final"].median(),
        best=view.table["final"].max(),
        ranking=common.ranking(view.table, view, columns=("final", "worst")),
    )


if __name__ == "__main__":
    from_records() if sys.argv[1:] == ["--from-records"] else main()
