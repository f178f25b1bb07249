"""Which setting solves CartPole-v1 in the fewest environment steps, and which in the fewest seconds?

    .venv/bin/python -m experiments.convergence.cartpole

Solved: a greedy mean of 475 over 100 episodes in three evaluations in a row. 1,024 points of nine settings around the
`cartpole` preset, 5 seeds each; the best by either clock again on 100 held-out seeds.
"""

from __future__ import annotations

from dqn_jax.report import sweep_figures
from dqn_jax.report.values import estimate, number, percent
from dqn_jax.report.view import View
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


def main() -> None:
    """Run it and write results/cartpole."""
    asked = {"samples": 1024, "seeds": 5, "confirm": 100, "confirm_best": 3, "confirm_by": ("env_steps", "seconds")}
    data = common.run("cartpole", "cartpole", VARY, **asked, **FIXED).data
    by_steps, by_seconds = View.of(data), View.of(data, "seconds")
    figures = {
        **common.FIGURES,
        "parallel": sweep_figures.parallel_coordinates,
        "cost": sweep_figures.cost,
    }
    drawn = common.write_results("cartpole", by_steps, figures)
    steps, seconds = (view.confirmed.iloc[0].to_dict() for view in (by_steps, by_seconds))
    lanes = data.lanes[data.lanes["phase"] == "search"]
    sections = [
        f"{len(data.trials):,} points x 5 seeds, at most {by_steps.end:,.0f} steps each; "
        f"{percent(lanes['converged'].mean())} of the {len(lanes):,} lanes solved it. "
        f"{data.lanes['env_steps'].sum() / 1e6:,.0f} million lane-steps in "
        f"{data.lanes['device_seconds'].sum() / 60:.0f} CPU minutes. Seconds below are CPU seconds of one lane, "
        f"evaluations included; compiling its program (about 6 s) comes once for each of {len(data.plan['groups'])}.",
        f"**Fewest steps: trial {steps['trial']}**, {estimate(steps, 'time', number)} steps on 100 held-out seeds, "
        f"{steps['converged']} of them solved. **Fewest seconds: trial {seconds['trial']}**, "
        f"{estimate(seconds, 'time', number)} CPU seconds, {seconds['converged']} of 100 solved.",
        "## The best by environment steps, on 100 held-out seeds",
        common.ranking(by_steps.confirmed, by_steps, rows=6),
        "## The best by seconds, on 100 held-out seeds",
        common.ranking(by_seconds.confirmed, by_seconds, rows=6),
        "## In the search (5 seeds: of many, the luckiest lead)",
        common.ranking(by_steps.table, by_steps),
        common.ranking(by_seconds.table, by_seconds),
    ]
    asks = "Which setting of Double DQN solves CartPole-v1 (475 in three evaluations of 100 episodes) soonest?"
    common.write_page("cartpole", "CartPole-v1: fewest steps, fewest seconds", asks, sections, drawn)


if __name__ == "__main__":
    main()
