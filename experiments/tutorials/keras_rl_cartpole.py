"""Tutorial 2, keras-rl CartPole (Analytics Vidhya): are 5,000 steps enough for the 200-step cap?

    .venv/bin/python -m experiments.tutorials.keras_rl_cartpole

Claim checked: after 5,000 steps with soft target updates and epsilon 0.1, five test episodes come near 200. The
document names Double DQN, dueling networks, another environment and watching while it trains as the next steps; they
are here too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import dqn_jax
from dqn_jax import convergence
from dqn_jax.runs.play import median_lane
from experiments import pages
from experiments.figures import COLOURS, save_figure
from experiments.tutorials import common

NAME = "keras_rl_cartpole"
FOLDER = common.RESULTS / NAME
TESTS = 5
NEAR = 195.0

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "faithful": ("tutorial-2", {}),
    "Double": ("tutorial-2", {"double": True}),
    "dueling": ("tutorial-2", {"dueling": True}),
    "Double and dueling": ("tutorial-2", {"double": True, "dueling": True}),
    "no target network": ("tutorial-2", {"target_network": False}),
    "target copied every 500 updates": ("tutorial-2", {"target_period": 500, "target_mixing": 1.0}),
    "time limit as terminal": ("tutorial-2", {"time_limit_terminates": True}),
    "20,000 steps": ("tutorial-2", {"total_steps": 20_000}),
    "vectorised": ("tutorial-2-vectorised", {}),
    "Acrobot-v1": ("tutorial-2", {"env": "Acrobot-v1", "criteria": ["eval>=-100"]}),
    "Acrobot-v1, 20,000 steps": (
        "tutorial-2",
        {"env": "Acrobot-v1", "criteria": ["eval>=-100"], "total_steps": 20_000},
    ),
}


def main() -> None:
    """Run everything and write the page."""
    results = {
        label: common.population(NAME, label, preset, **changes) for label, (preset, changes) in VARIANTS.items()
    }
    tests = {label: common.greedy_tests(result, TESTS) for label, result in results.items()}
    faithful, own = results["faithful"], tests["faithful"].mean(axis=1)
    cartpole = [label for label in results if not label.startswith("Acrobot")]
    common.write_csv(
        FOLDER / "seeds.csv", [r for label in results for r in per_seed(label, results[label], tests[label])]
    )
    common.write_csv(FOLDER / "curves.csv", [r for label in results for r in curve_rows(label, results[label])])
    shown = {label: results[label] for label in ("Double", "dueling", "no target network")}
    shown = {"faithful, to 20,000 steps": results["20,000 steps"], **shown}
    save_figure(FOLDER / "learning.png", 9, 4.6, lambda f: draw_learning(f, shown))
    save_figure(FOLDER / "tests.png", 9, 4.4, lambda f: draw_tests(f, {k: tests[k] for k in cartpole}))
    lane = median_lane(own)
    common.film(faithful, FOLDER / "random.gif", lane=None, title="before: a random policy")
    common.film(faithful, FOLDER / "trained.gif", lane=lane, title="after 5,000 steps, median seed")

    common.write_page(
        NAME,
        preset="tutorial-2",
        figure="learning.png",
        pictures=["random.gif", "trained.gif"],
        near=NEAR,
        tests={label: returns.mean(axis=1) for label, returns in tests.items()},
        acrobot=[label for label in results if label not in cartpole],
        rows=[variant_row(label, results[label], tests[label]) for label in cartpole],
    )


def variant_row(label: str, result: dqn_jax.TrainResult, tests: np.ndarray) -> tuple[str, ...]:
    """A setting as a line of the page's comparison."""
    means = tests.mean(axis=1)
    greedy = pages.mean(result.summary["final_eval_return"])
    return label, pages.mean(means), pages.share(means >= NEAR), f"{means.min():.1f}", greedy


def per_seed(label: str, result: dqn_jax.TrainResult, tests: np.ndarray) -> list[dict[str, Any]]:
    """Rows of seeds.csv: one setting's tests, `[S, TESTS]`, seed by seed."""
    return [
        {
            "variant": label,
            "seed": seed,
            "mean_of_5_tests": own.mean(),
            "worst_of_5_tests": own.min(),
            "greedy_100": final,
        }
        for seed, own, final in zip(result.summary["seeds"], tests, result.summary["final_eval_return"], strict=True)
    ]


def curve_rows(label: str, result: dqn_jax.TrainResult) -> list[dict[str, Any]]:
    """For curves.csv: the greedy evaluations along the way."""
    values = result.history.reading("eval_return")
    low, high = convergence.mean_interval(values)
    return [
        {"variant": label, "env_steps": steps, "mean": mean, "low95": a, "high95": b}
        for steps, mean, a, b in zip(result.history.env_steps, values.mean(axis=0), low, high, strict=True)
    ]


def draw_learning(figure: Any, results: dict[str, dqn_jax.TrainResult]) -> None:
    """Greedy return by environment steps, with bands."""
    axis = figure.subplots()
    for colour, (label, result) in zip(COLOURS, results.items(), strict=False):
        steps, values = result.history.env_steps, result.history.reading("eval_return")
        low, high = convergence.mean_interval(values)
        axis.plot(steps, values.mean(axis=0), color=colour, lw=2, label=label)
        axis.fill_between(steps, low, high, color=colour, alpha=0.15, lw=0)
    axis.axvline(5_000, color="0.3", ls=":", lw=1)
    axis.annotate("the document\nstops here", (5_000, 20), (5, 0), textcoords="offset points", fontsize=8)
    axis.axhline(NEAR, color="0.2", ls="--", lw=0.9)
    axis.set_xlabel("environment steps")
    axis.set_ylabel("greedy return, 100 episodes")
    axis.set_xlim(left=0)
    axis.set_ylim(0, 205)
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    axis.set_title(f"keras-rl CartPole: mean of {common.SEEDS} seeds with 95 % intervals", fontsize=10)


def draw_tests(figure: Any, tests: dict[str, np.ndarray]) -> None:
    """The five-episode test of every seed, `[S, TESTS]` by setting."""
    axis = figure.subplots()
    common.draw_strips(axis, {label: returns.mean(axis=1) for label, returns in tests.items()})
    axis.axvline(NEAR, color="0.2", ls="--", lw=0.9)
    axis.set_xlim(0, 205)
    axis.set_xlabel("mean of five test episodes (a dot per seed, a bar for their mean)")


if __name__ == "__main__":
    main()
