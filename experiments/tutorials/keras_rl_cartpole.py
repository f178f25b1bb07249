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
    common.save_figure(FOLDER / "learning.png", 9, 4.6, lambda f: draw_learning(f, shown))
    common.save_figure(FOLDER / "tests.png", 9, 4.4, lambda f: draw_tests(f, {k: tests[k] for k in cartpole}))
    lane = median_lane(own)
    common.film(faithful, FOLDER / "random.gif", lane=None, title="before: a random policy")
    common.film(faithful, FOLDER / "trained.gif", lane=lane, title="after 5,000 steps, median seed")

    mean = {label: common.mean_text(values.mean(axis=1)) for label, values in tests.items()}
    acrobot = {label: tests[label].mean(axis=1) for label in results if label not in cartpole}
    common.write_page(
        NAME,
        title="Tutorial 2: keras-rl CartPole (Analytics Vidhya)",
        preset="tutorial-2",
        asks="CartPole-v0 (200 steps), one hidden layer of 16, 5,000 steps, a soft target (1e-2 each step), epsilon "
        "0.1 throughout.",
        claims=[
            (
                "after 5,000 steps, five test episodes near the 200-step cap",
                f"the mean of five new greedy episodes is {common.mean_text(own)}; it is at least {NEAR:g} in "
                f"{common.share_text(own >= NEAR)} of seeds, and below 50 in {common.share_text(own < 50)}",
            ),
            (
                "more steps are not asked for",
                f"after 20,000 steps {common.mean_text(tests['20,000 steps'].mean(axis=1))}, at least {NEAR:g} in "
                f"{common.share_text(tests['20,000 steps'].mean(axis=1) >= NEAR)}",
            ),
        ],
        sections=[
            "## Double, dueling, targets, the time limit",
            "![tests](tests.png)",
            common.markdown_table(
                ["setting", "mean of five tests", f"share of seeds at {NEAR:g} or more", "worst seed",
                 "greedy, 100 episodes"],
                [variant_row(label, results[label], tests[label]) for label in cartpole],
            ),
            "## Another environment",
            "The same settings on Acrobot-v1 (solved at -100; a policy that never gets there scores -500): "
            + "; ".join(f"{label}: {common.mean_text(values)}" for label, values in acrobot.items())
            + ".",
            "## Watching while it trains",
            "`dqn-jax train tutorial-2` shows the returns as they come; `dqn-jax record runs/tutorial-2 -o now.gif` in "
            "another terminal films the newest saved agent of a run that is still going, and `tensorboard --logdir "
            "runs/tutorial-2` draws its curves.\n\n"
            "Prioritised replay, the document's third next step, is not part of the core yet.",
        ],
        deviations=[
            common.TIME_LIMIT,
            ("Double DQN", "on by default in some versions of keras-rl", "off; on is measured beside it"),
            ("drawing a batch while fewer than 32 are stored", "with repeats", "with repeats"),
            ("dueling", "-", "each stream has a hidden layer of 16 of its own, so that the network is twice as large"),
            ("loss", "half the squared TD error of the action taken", "the same"),
            common.KERAS[1],
            ("vectorised form", "-", "8 environments, as many updates per step"),
        ],
        summary=(
            "After 5,000 steps, five test episodes near the 200 cap.",
            f"Mean of five tests {common.mean_text(own)}; near the cap in {common.share_text(own >= NEAR)} of seeds.",
        ),
        lessons={
            "Target network": (
                f"In the 5,000 steps of keras-rl's CartPole a soft target gives {mean['faithful']}, none "
                f"{mean['no target network']}, a copy every 500 updates {mean['target copied every 500 updates']} "
                "(five test episodes).",
                "tests.png",
            ),
            "Double, dueling": (
                f"In keras-rl's CartPole the plain agent gives {mean['faithful']}, Double DQN {mean['Double']}, a "
                f"dueling head {mean['dueling']}.",
                "tests.png",
            ),
        },
        figure="learning.png",
        pictures=["random.gif", "trained.gif"],
    )  # fmt: skip


def variant_row(label: str, result: dqn_jax.TrainResult, tests: np.ndarray) -> tuple[str, ...]:
    """One line of the comparison."""
    means = tests.mean(axis=1)
    greedy = common.mean_text(result.summary["final_eval_return"])
    return label, common.mean_text(means), common.share_text(means >= NEAR), f"{means.min():.1f}", greedy


def per_seed(label: str, result: dqn_jax.TrainResult, tests: np.ndarray) -> list[dict[str, Any]]:
    """For seeds.csv."""
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
    for colour, (label, result) in zip(common.COLOURS, results.items(), strict=False):
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
    """Every seed's five-episode test."""
    axis = figure.subplots()
    common.draw_strips(axis, {label: returns.mean(axis=1) for label, returns in tests.items()})
    axis.axvline(NEAR, color="0.2", ls="--", lw=0.9)
    axis.set_xlim(0, 205)
    axis.set_xlabel("mean of five test episodes (a dot per seed, a bar for their mean)")


if __name__ == "__main__":
    main()
