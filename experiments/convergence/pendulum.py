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
from experiments.convergence import common

VARY = {
    "action_bins": "3,5,9,15,25",
    "action_repeat": "1,2,4",
    "discount": "0.9,0.95,0.98,0.99",
    "learning_rate": "5e-4,1e-3,2e-3,4e-3",
}


def main() -> None:
    """Run the sweep, and write results/pendulum: trials.csv, figures and page."""
    asked = {"seeds": 5, "total_steps": 21_000, "eval_every": 500, "confirm": 32}
    data = common.run("pendulum", "pendulum", VARY, **asked).data
    view = View.of(data)
    drawn = common.write_results("pendulum", view, common.FIGURES)
    lanes = data.lanes[data.lanes["phase"] == "search"].merge(data.trials, left_on="trial", right_index=True)
    common.write_page(
        "pendulum",
        drawn,
        confirmed=common.ranking(view.confirmed, view),
        search=common.ranking(view.table, view),
        marginals={
            name: [
                [value, *marginal(own, data.settings["config"]["total_steps"])] for value, own in lanes.groupby(name)
            ]
            for name in VARY
        },
    )


def marginal(lanes: pd.DataFrame, total_steps: int) -> list[str]:
    """Lanes, share converged and mean steps of all lanes with one value, with intervals."""
    speed = convergence.time_to_convergence(*outcomes(lanes, "env_steps", total_steps))
    share, mean = (speed.share, *speed.share95), (speed.restricted_mean, *speed.restricted_mean95)
    return [str(speed.runs), "{:.0%} [{:.0%}, {:.0%}]".format(*share), "{:,.0f} [{:,.0f}, {:,.0f}]".format(*mean)]


if __name__ == "__main__":
    main()
