"""How do the number of torque bins, the discount, the learning rate and holding actions change Pendulum's convergence?

    .venv/bin/python -m experiments.convergence.pendulum

Converged: one evaluation with a greedy mean of -200 over 100 episodes of 200 frames. Environment steps are decisions:
where an action is held for four frames, an episode has fifty.
"""

from __future__ import annotations

import pandas as pd

from dqn_jax import convergence
from dqn_jax.report.view import View
from dqn_jax.sweep.results import outcomes
from experiments.common import markdown_table
from experiments.convergence import common

VARY = {
    "action_bins": "3,5,9,15,25",
    "action_repeat": "1,2,4",
    "discount": "0.9,0.95,0.98,0.99",
    "learning_rate": "5e-4,1e-3,2e-3,4e-3",
}


def main() -> None:
    """Run it and write results/pendulum."""
    asked = {"seeds": 5, "total_steps": 21_000, "eval_every": 500, "confirm": 32}
    data = common.run("pendulum", "pendulum", VARY, **asked).data
    view = View.of(data)
    drawn = common.write_results("pendulum", view, common.FIGURES)
    lanes = data.lanes[data.lanes["phase"] == "search"].merge(data.trials, left_on="trial", right_index=True)
    sections = ["## The best, on 32 held-out seeds", common.ranking(view.confirmed, view)]
    sections += ["## In the search (5 seeds)", common.ranking(view.table, view)]
    for name in VARY:
        rows = [[value, *marginal(own, data.settings["config"]["total_steps"])] for value, own in lanes.groupby(name)]
        header = [name, "lanes", "converged", "mean env steps"]
        sections.append(f"## Over all else: {name}\n\n" + markdown_table(header, rows))
    asks = "The tutorial cuts the torque into 20 bins. Does it need so many? And what else sets the pace?"
    common.write_page("pendulum", "Pendulum-v1: bins, discount, step size, frame skip", asks, sections, drawn)


def marginal(lanes: pd.DataFrame, total_steps: int) -> list[str]:
    """Lanes, share converged and mean steps of all lanes with one value, with intervals."""
    speed = convergence.time_to_convergence(*outcomes(lanes, "env_steps", total_steps))
    share, mean = (speed.share, *speed.share95), (speed.restricted_mean, *speed.restricted_mean95)
    return [str(speed.runs), "{:.0%} [{:.0%}, {:.0%}]".format(*share), "{:,.0f} [{:,.0f}, {:,.0f}]".format(*mean)]


if __name__ == "__main__":
    main()
