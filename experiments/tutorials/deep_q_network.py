"""Tutorial 4, Deep Q-Network (vectorised Keras): does stopping at a last-5 mean of 195 mean solved?

    .venv/bin/python -m experiments.tutorials.deep_q_network

Claim checked: training may stop once the last five episodes average over 195; the greedy test episodes that follow, to
500 in all, then show a solved task (over 195 on average over 100 episodes). Discount, learning rate, batch size and
cap are varied one at a time.
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

NAME = "deep_q_network"
FOLDER = common.RESULTS / NAME
EPISODES = 500
LINE = 195.0
STOP = "train5>195"

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "faithful": ("tutorial-4", {}),
    "vectorised": ("tutorial-4-vectorised", {}),
    "time limit as terminal": ("tutorial-4", {"time_limit_terminates": True}),
    "discount 0.9": ("tutorial-4", {"discount": 0.9}),
    "discount 0.99": ("tutorial-4", {"discount": 0.99}),
    "learning rate 3e-4": ("tutorial-4", {"learning_rate": 3e-4}),
    "learning rate 3e-3": ("tutorial-4", {"learning_rate": 3e-3}),
    "batch 8": ("tutorial-4", {"batch_size": 8, "min_replay": 7}),
    "batch 64": ("tutorial-4", {"batch_size": 64, "min_replay": 63}),
    "cap 500": ("tutorial-4", {"max_episode_steps": 500, "total_steps": 250_000}),
    "stop at a last-20 mean": ("tutorial-4", {"freeze_when": "train20>195"}),
    "never stops": ("tutorial-4", {"freeze_when": None}),
}


def main() -> None:
    """Run everything and write the page."""
    results = {
        label: common.population(NAME, label, preset, **changes) for label, (preset, changes) in VARIANTS.items()
    }
    facts = {label: facts_of(label, result) for label, result in results.items()}
    faithful, own = results["faithful"], facts["faithful"]
    tables = {label: common.scores(result, EPISODES) for label, result in results.items()}
    common.write_csv(
        FOLDER / "seeds.csv", [r for label in results for r in per_seed(label, results[label], facts[label])]
    )
    common.write_csv(
        FOLDER / "scores.csv",
        [r for label in ("faithful", "vectorised") for r in common.score_rows(label, tables[label])],
    )
    common.write_csv(FOLDER / "loss.csv", loss_rows(faithful))
    tested = np.where(np.isnan(own["test_mean"]), -np.inf, own["test_mean"])
    lane = median_lane(tested)
    save_figure(FOLDER / "scores.png", 9, 5, lambda f: draw_document(f, faithful, lane, own["stopped"][lane]))
    save_figure(FOLDER / "solved.png", 6.4, 5, lambda f: draw_solved(f, own))
    save_figure(FOLDER / "loss.png", 9, 3.8, lambda f: draw_loss(f, faithful))
    common.film(faithful, FOLDER / "trained.gif", lane=lane, title="after the stop, median seed")

    twenty = facts["stop at a last-20 mean"]
    common.write_page(
        NAME,
        preset="tutorial-4",
        figure="scores.png",
        pictures=["trained.gif"],
        episodes=EPISODES,
        stopped=own["stopped"],
        stops=stops(own),
        tests=own["test_mean"][~np.isnan(own["test_mean"])],
        solved=own["solved"],
        solved_by_twenty=twenty["solved"][stops(twenty)],
        solved_without_bootstrap=facts["time limit as terminal"]["solved"],
        rows=[variant_row(label, facts[label]) for label in results],
    )


def stops(facts: dict[str, Any]) -> np.ndarray:
    """`[S]`, bool, whether each seed's learning stopped."""
    return np.array([episode is not None for episode in facts["stopped"]])


def facts_of(label: str, result: dqn_jax.TrainResult) -> dict[str, Any]:
    """Per seed: the episode at which learning stopped, the five scores before, and the tests after."""
    table = common.scores(result, EPISODES)
    lanes = len(table)
    facts: dict[str, Any] = {
        "stopped": [None] * lanes,
        "before": np.full(lanes, np.nan),
        "test_mean": np.full(lanes, np.nan),
        "tests": np.zeros(lanes, int),
        "solved": np.zeros(lanes, bool),
    }
    rule = result.settings.config.freeze_when
    if rule is None:
        facts["solved"] = np.array(common.reached(result, "train100>195"))
        return facts
    window = convergence.parse_criterion(rule).window
    for lane, scores in enumerate(table):
        means = convergence.trailing_mean(scores, window)
        over = np.flatnonzero(means > LINE)
        if not len(over):
            continue
        facts["stopped"][lane] = int(over[0]) + 1
        facts["before"][lane] = means[over[0]]
        after = scores[over[0] + 1 :][:100]
        after = after[~np.isnan(after)]
        facts["tests"][lane] = len(after)
        if len(after):
            facts["test_mean"][lane] = after.mean()
            facts["solved"][lane] = after.mean() > LINE
    return facts


def variant_row(label: str, facts: dict[str, Any]) -> tuple[str, ...]:
    """A setting as a line of the page's comparison."""
    stopped = stops(facts)
    means = facts["test_mean"][~np.isnan(facts["test_mean"])]
    if label == "never stops":
        return label, "-", "-", "-", "-", pages.share(facts["solved"])
    return (
        label,
        pages.share(stopped),
        pages.median(facts["stopped"]),
        pages.mean(means) if len(means) else "-",
        pages.share(facts["solved"][stopped]) if stopped.any() else "-",
        pages.share(facts["solved"]),
    )


def per_seed(label: str, result: dqn_jax.TrainResult, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of seeds.csv: the facts of one setting, seed by seed."""
    return [
        {"variant": label, "seed": seed, **{name: values[lane] for name, values in facts.items()}}
        for lane, seed in enumerate(result.summary["seeds"])
    ]


def losses(result: dqn_jax.TrainResult) -> np.ndarray:
    """`[S, C]`, mean loss between evaluations; NaN once learning has stopped."""
    return result.history.reading("loss")


def loss_rows(result: dqn_jax.TrainResult) -> list[dict[str, Any]]:
    """Rows of loss.csv: quantiles over the seeds that still learn, by environment steps."""
    rows = []
    for steps, column in zip(result.history.env_steps, losses(result).T, strict=True):
        own = column[~np.isnan(column)]
        if len(own):
            low, high = np.percentile(own, [10, 90])
            rows.append(
                {"env_steps": steps, "seeds_learning": len(own), "median": np.median(own), "p10": low, "p90": high}
            )
    return rows


def draw_document(figure: Any, result: dqn_jax.TrainResult, lane: int, stopped: int | None) -> None:
    """The document's own figure: scores, 100-episode mean, the 195 line, epsilon times 200, where testing starts."""
    axis = figure.subplots()
    everyone = common.scores(result, EPISODES)
    seed = result.settings.seeds[lane]
    common.draw_scores(axis, everyone[lane], everyone, label=f"seed {seed}", line=LINE)
    epsilon = result.history.curves()[lane].episode_epsilon[:EPISODES]
    axis.plot(np.arange(1, len(epsilon) + 1), 200 * epsilon, color=COLOURS[2], label="epsilon, times 200")
    if stopped:
        axis.axvline(stopped, color=COLOURS[4], lw=1.2, label=f"testing starts, episode {stopped}")
    axis.set_ylim(0, 290)
    axis.set_yticks(range(0, 201, 50))
    axis.legend(fontsize=8, loc="upper center", frameon=True, framealpha=0.9, edgecolor="none", ncols=3)
    axis.set_title("Deep Q-Network: the seed with the median test score", fontsize=10)


def draw_solved(figure: Any, facts: dict[str, Any]) -> None:
    """The mean that stopped learning against the mean of the tests."""
    axis = figure.subplots()
    known = ~np.isnan(facts["test_mean"])
    good = facts["solved"][known]
    colours = np.where(good, COLOURS[2], COLOURS[4])
    axis.scatter(facts["before"][known], facts["test_mean"][known], c=colours, s=36, alpha=0.85, lw=0)
    axis.axhline(LINE, color="0.2", ls="--", lw=0.9)
    axis.set_xlim(194, 211)
    axis.set_ylim(bottom=min(150.0, 0.95 * np.nanmin(facts["test_mean"], initial=150.0)), top=213)
    axis.set_xlabel("mean of the five training episodes that stopped learning")
    axis.set_ylabel("mean of the greedy tests after (first 100)")
    axis.set_title(f"{good.sum()} of {known.sum()} seeds that stopped are solved", fontsize=10)


def draw_loss(figure: Any, result: dqn_jax.TrainResult) -> None:
    """Loss history of every seed, and their median."""
    axis = figure.subplots()
    values = losses(result)
    for own in values:
        axis.plot(result.history.env_steps, own, color=COLOURS[0], lw=0.6, alpha=0.5)
    learning = ~np.isnan(values).all(axis=0)
    steps = np.asarray(result.history.env_steps)[learning]
    axis.plot(
        steps,
        np.nanmedian(values[:, learning], axis=0),
        color=COLOURS[1],
        lw=2,
        label="median of those learning",
    )
    axis.set_yscale("log")
    axis.set_xlabel("environment steps")
    axis.set_ylabel("mean loss")
    axis.set_xlim(left=0)
    axis.legend(fontsize=8, frameon=False)


if __name__ == "__main__":
    main()
