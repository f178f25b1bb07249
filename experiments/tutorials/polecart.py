"""Tutorial 5, PoleCart notebook: are 200 episodes with 32 fits each enough, and what do further starts add?

    .venv/bin/python -m experiments.tutorials.polecart

Claim checked: after 200 episodes ("about 14 minutes") one greedy episode, watched on video, comes near 500. The
notebook saves its weights and picks them up at the next start; here it is started three times.
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

NAME = "polecart"
FOLDER = common.RESULTS / NAME
EPISODES = 200
SOLVED = 475.0
TWO_NETWORKS = {"target_network": True, "target_period": 1_000, "target_mixing": 1.0}

STARTS = ("first start", "second start", "third start")
LONG = "1,000 episodes at one start"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    LONG: (
        "tutorial-5",
        {"total_episodes": 1_000, "total_steps": 500_000, "eval_every": 5_000},
    ),
    "time limit as terminal": ("tutorial-5", {"time_limit_terminates": True}),
    "two networks, copied every 1,000 updates": ("tutorial-5", TWO_NETWORKS),
    "vectorised": ("tutorial-5-vectorised", {}),
    "vectorised, 1,000 episodes": (
        "tutorial-5-vectorised",
        {"total_episodes": 1_000, "total_steps": 500_000, "eval_every": 5_000},
    ),
}


def main() -> None:
    """Run everything and write the page."""
    results: dict[str, dqn_jax.TrainResult] = {}
    for i, label in enumerate(STARTS):
        weights = {"weights": common.run_folder(NAME, STARTS[i - 1])} if i else {}
        results[label] = common.population(NAME, label, "tutorial-5", **weights)
    for label, (preset, changes) in VARIANTS.items():
        results[label] = common.population(NAME, label, preset, **changes)
    tests = {label: common.greedy_tests(result, 100) for label, result in results.items()}
    first = results[STARTS[0]]
    tables = {label: common.scores(result, EPISODES) for label, result in results.items()}
    common.write_csv(
        FOLDER / "seeds.csv", [r for label in results for r in per_seed(label, results[label], tests[label])]
    )
    common.write_csv(FOLDER / "scores.csv", [r for label in STARTS for r in common.score_rows(label, tables[label])])
    save_figure(FOLDER / "scores.png", 9, 4.6, lambda f: draw_starts(f, tables, results))
    save_figure(FOLDER / "watched.png", 9, 4, lambda f: draw_watched(f, tests))
    lane = median_lane(tests[STARTS[0]].mean(axis=1))
    common.film(first, FOLDER / "random.gif", lane=None, title="before: a random policy")
    common.film(first, FOLDER / "trained.gif", lane=lane, title="after 200 episodes, median seed")

    common.write_page(
        NAME,
        preset="tutorial-5",
        figure="scores.png",
        pictures=["random.gif", "trained.gif"],
        near=SOLVED,
        watched={label: returns[:, 0] for label, returns in tests.items()},
        means={label: returns.mean(axis=1) for label, returns in tests.items()},
        epsilon=first.history.reading("epsilon")[:, -1].mean(),
        rows=[variant_row(label, tests[label]) for label in results],
    )


def variant_row(label: str, tests: np.ndarray) -> tuple[str, ...]:
    """A setting as a line of the page's comparison."""
    watched, means = tests[:, 0], tests.mean(axis=1)
    return (
        label,
        pages.mean(watched),
        pages.share(watched >= SOLVED),
        pages.mean(means),
        pages.share(means >= SOLVED),
    )


def per_seed(label: str, result: dqn_jax.TrainResult, tests: np.ndarray) -> list[dict[str, Any]]:
    """Rows of seeds.csv: one setting's tests, `[S, 100]`, seed by seed."""
    return [
        {"variant": label, "seed": seed, "watched": own[0], "mean_of_100": own.mean(), "worst_of_100": own.min()}
        for seed, own in zip(result.summary["seeds"], tests, strict=True)
    ]


def draw_starts(figure: Any, tables: dict[str, np.ndarray], results: dict[str, dqn_jax.TrainResult]) -> None:
    """Training scores of the three starts, one after another."""
    axis = figure.subplots()
    for i, label in enumerate(STARTS):
        episodes = np.arange(1, EPISODES + 1) + i * EPISODES
        for own in tables[label]:
            axis.plot(episodes, own, color=COLOURS[i], lw=0.3, alpha=0.35)
        smooth = np.stack([convergence.trailing_mean(own, 10) for own in tables[label]])
        axis.plot(episodes, smooth.mean(axis=0), color=COLOURS[i], lw=2, label=f"{label}: mean, last 10 episodes")
        epsilon = common.epsilons(results[label], EPISODES).mean(axis=0)
        axis.plot(episodes, 500 * epsilon, color="0.3", lw=1, ls=":", label="epsilon, times 500" if i == 0 else None)
    axis.axhline(SOLVED, color="0.2", lw=0.9, ls="--")
    axis.set_xlabel("episode")
    axis.set_ylabel("score")
    axis.set_xlim(0, len(STARTS) * EPISODES)
    axis.set_ylim(0, 620)
    axis.set_yticks(range(0, 501, 100))
    axis.legend(fontsize=8, frameon=False, loc="upper center", ncols=2)
    axis.set_title(f"PoleCart: {common.SEEDS} seeds, started three times from the saved weights", fontsize=10)


def draw_watched(figure: Any, tests: dict[str, np.ndarray]) -> None:
    """For every setting, each seed's watched episode and its mean of 100."""
    axis = figure.subplots()
    watched = {label: returns[:, 0] for label, returns in tests.items()}
    means = {label: returns.mean(axis=1) for label, returns in tests.items()}
    colours = COLOURS
    common.draw_strips(axis, watched, marker="x", bars=False, colour=colours[1], label="the episode watched")
    common.draw_strips(axis, means, named=False, bars=False, colour=colours[0], label="mean of 100 episodes")
    axis.axvline(SOLVED, color="0.2", ls="--", lw=0.9)
    axis.set_xlim(0, 510)
    axis.set_xlabel("greedy score, one mark per seed")
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=2, frameon=False)


if __name__ == "__main__":
    main()
