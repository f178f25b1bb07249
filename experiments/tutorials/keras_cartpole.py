"""Tutorial 1, Keras CartPole (J. Urbain): does "epsilon is 0.01" mean converged, and does it last?

    .venv/bin/python -m experiments.tutorials.keras_cartpole

Claim checked: the agent "converges" within the episodes it takes epsilon to fall to 0.01; scores reach 499, and
collapse to 8-9 later. Measured beside it: the moments at which the mean of 100 episodes passes 195 and 475, the
collapses, what prevents them, and settings that shorten convergence, chosen on other seeds than those reported.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

import dqn_jax
from dqn_jax import convergence
from dqn_jax.runs.play import median_lane
from experiments import pages
from experiments.figures import COLOURS, save_figure
from experiments.tutorials import common

NAME = "keras_cartpole"
FOLDER = common.RESULTS / NAME
EPISODES = 1_000
HIGH, LOW, TEN = 195.0, 30.0, 10  # a collapse: the mean of ten episodes falls from HIGH to LOW

MINIBATCH = "faithful, one minibatch for 32 fits"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "faithful": ("tutorial-1", {}),
    "faithful, time limit as terminal": ("tutorial-1", {"time_limit_terminates": True}),
    MINIBATCH: ("tutorial-1", {"minibatch_size": None}),
    "vectorised": ("tutorial-1-vectorised", {}),
    "vectorised, time limit as terminal": ("tutorial-1-vectorised", {"time_limit_terminates": True}),
    "vectorised, target network": (
        "tutorial-1-vectorised",
        {"target_network": True, "target_period": 1, "target_mixing": 0.01},
    ),
    "vectorised, replay of 50,000": ("tutorial-1-vectorised", {"replay_capacity": 50_000}),
    "vectorised, replay of 100": ("tutorial-1-vectorised", {"replay_capacity": 100}),
    "vectorised, epsilon stays above 0.1": ("tutorial-1-vectorised", {"epsilon_end": 0.1}),
    "vectorised, no -10 for a fall": ("tutorial-1-vectorised", {"terminal_reward": None}),
}
SEARCH = {
    "learning_rate": (5e-4, 1e-3, 2e-3),
    "discount": (0.95, 0.99),
    "epsilon_decay": (0.98, 0.995),
    "target_mixing": (None, 0.01),  # None: no target network
}
SEARCH_SEEDS = 5  # per setting, from seed 0 up


SHOWN = ("faithful", "vectorised, target network", "vectorised, tuned")


def main() -> None:
    """Run everything and write the page."""
    results = {
        label: common.population(NAME, label, preset, **changes) for label, (preset, changes) in VARIANTS.items()
    }
    chosen, searched = search()
    results["vectorised, tuned"] = common.population(NAME, "tuned", "tutorial-1-vectorised", **chosen)
    faithful, tuned = results["faithful"], results["vectorised, tuned"]
    falls = {label: collapses_of(result) for label, result in results.items()}
    tables = {label: common.scores(result, EPISODES) for label, result in results.items()}
    common.write_csv(FOLDER / "search.csv", searched)
    common.write_csv(FOLDER / "seeds.csv", [r for label, result in results.items() for r in per_seed(label, result)])
    common.write_csv(
        FOLDER / "scores.csv",
        [
            r
            for label in ("faithful", "vectorised", "vectorised, tuned")
            for r in common.score_rows(label, tables[label])
        ],
    )
    lane = typical_lane(falls["faithful"])
    save_figure(FOLDER / "scores.png", 9, 5.2, lambda f: draw_document(f, faithful, lane))
    save_figure(FOLDER / "collapse.png", 9, 6, lambda f: draw_collapse(f, {k: tables[k] for k in SHOWN}))
    save_figure(FOLDER / "why.png", 9, 5, lambda f: draw_why(f, results))
    best = median_lane(np.asarray(tuned.summary["final_eval_return"]))
    common.film(tuned, FOLDER / "trained.gif", lane=best, title="tuned, median seed")
    common.write_page(
        NAME,
        preset="tutorial-1",
        figure="scores.png",
        pictures=["trained.gif"],
        **measure(results, falls),
        best_score=np.nanmax(tables["faithful"], axis=1),
        searched=len(searched),
        chosen=describe(chosen),
    )


def measure(
    results: dict[str, dqn_jax.TrainResult], falls: dict[str, list[list[convergence.Collapse]]]
) -> dict[str, Any]:
    """What the page says of the settings, each by seed."""

    def episodes(label: str, criterion: str) -> list[int | None]:
        return list(common.criterion(results[label], criterion)["episodes"])

    faithful, own = results["faithful"], falls["faithful"]
    return {
        "episodes": EPISODES,
        "high": HIGH,
        "low": LOW,
        "ten": TEN,
        "minibatch": MINIBATCH,
        "search": list(SEARCH),
        "search_seeds": SEARCH_SEEDS,
        "to_epsilon": episodes("faithful", "epsilon<=0.01"),
        "to_195": episodes("faithful", "train100>=195"),
        "vectorised_to_195": episodes("vectorised", "train100>=195"),
        "tuned_to_195": episodes("vectorised, tuned", "train100>=195"),
        "reached_195": common.reached(faithful, "train100>=195"),
        "reached_475": common.reached(faithful, "train100>=475"),
        "fallen": [bool(falls_of_seed) for falls_of_seed in own],
        "first_fall": [falls_of_seed[0].began for falls_of_seed in own if falls_of_seed],
        "fall_lasted": [None if c.ended is None else c.ended - c.began for falls_of_seed in own for c in falls_of_seed],
        "time_fallen": {label: mean_share(time_fallen(result)) for label, result in results.items()},
        "greedy": {label: result.summary["final_eval_return"] for label, result in results.items()},
        "rows": [row(label, result, falls[label]) for label, result in results.items()],
    }


def collapses_of(result: dqn_jax.TrainResult) -> list[list[convergence.Collapse]]:
    """The collapses of each seed, in the order of seeds and episodes."""
    return [
        convergence.collapses(curve.episode_return[:EPISODES], high=HIGH, low=LOW, window=TEN)
        for curve in result.history.curves()
    ]


def time_fallen(result: dqn_jax.TrainResult) -> np.ndarray:
    """Share of the episodes after the first ten-episode mean of HIGH with one of LOW or less; NaN if never reached."""
    shares = []
    for curve in result.history.curves():
        means = convergence.trailing_mean(curve.episode_return[:EPISODES], TEN)
        high = np.flatnonzero(means >= HIGH)
        shares.append(np.mean(means[high[0] :] <= LOW) if len(high) else np.nan)
    return np.array(shares)


def mean_share(shares: np.ndarray) -> str:
    """Mean over the seeds that have one."""
    return f"{np.nanmean(shares):.0%}" if np.isfinite(shares).any() else "-"


def typical_lane(falls: list[list[convergence.Collapse]]) -> int:
    """The seed whose first collapse is the median one (the first seed, if none collapsed)."""
    began = [(own[0].began, lane) for lane, own in enumerate(falls) if own]
    return sorted(began)[(len(began) - 1) // 2][1] if began else 0


def row(label: str, result: dqn_jax.TrainResult, falls: list[list[convergence.Collapse]]) -> tuple[str, ...]:
    """A setting as a line of the page's comparison."""
    fallen = time_fallen(result)
    return (
        label,
        pages.share(common.reached(result, "train100>=195")),
        pages.median(common.criterion(result, "train100>=195")["episodes"]),
        pages.share(common.reached(result, "train100>=475")),
        pages.share([bool(f) for f in falls]),
        mean_share(fallen),
        pages.mean(result.summary["final_eval_return"], 0),
    )


def per_seed(label: str, result: dqn_jax.TrainResult) -> list[dict[str, Any]]:
    """What each seed did, for seeds.csv."""
    rows = []
    fallen, falls = time_fallen(result), collapses_of(result)
    for lane, seed in enumerate(result.summary["seeds"]):
        first = falls[lane][0] if falls[lane] else None
        rows.append(
            {
                "variant": label,
                "seed": seed,
                **{f"episodes_to_{c['name']}": c["episodes"][lane] for c in result.summary["criteria"]},
                "collapses": len(falls[lane]),
                "first_collapse": first and first.began,
                "recovered": first and first.ended,
                "time_fallen": fallen[lane],
                "final_greedy": result.summary["final_eval_return"][lane],
            }
        )
    return rows


def search() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The setting with the fewest episodes to a 100-episode mean of 195 in the median seed, and all settings tried."""
    rows: list[dict[str, Any]] = []
    settings: list[dict[str, Any]] = []
    for mixing in SEARCH["target_mixing"]:
        traced = {name: values for name, values in SEARCH.items() if name != "target_mixing"}
        grid = [dict(zip(traced, values, strict=True)) for values in itertools.product(*traced.values())]
        static = {} if mixing is None else {"target_network": True, "target_period": 1, "target_mixing": mixing}
        lanes = {name: np.repeat([setting[name] for setting in grid], SEARCH_SEEDS) for name in traced}
        result = common.population(
            NAME,
            f"search, target mixing {mixing}", "tutorial-1-vectorised", seeds=len(grid) * SEARCH_SEEDS, seed=0,
            total_episodes=500, **static, **lanes,
        )  # fmt: skip
        episodes = common.criterion(result, "train100>=195")["episodes"]
        final = result.summary["final_eval_return"]
        for i, setting in enumerate(grid):
            own = slice(i * SEARCH_SEEDS, (i + 1) * SEARCH_SEEDS)
            median = convergence.median_with_censored(episodes[own])
            reached = float(np.mean([e is not None for e in episodes[own]]))
            rows.append(
                {**setting, "target_mixing": mixing, "reached": reached, "median_episodes": median,
                 "final_greedy": float(np.mean(final[own]))}
            )  # fmt: skip
            settings.append({**setting, **static})
    best = min(range(len(rows)), key=lambda i: rows[i]["median_episodes"] or np.inf)
    return settings[best], rows


def describe(setting: dict[str, Any]) -> str:
    """A setting in words: its options with their values."""
    return ", ".join(f"`{name} {value}`" for name, value in setting.items())


def draw_document(figure: Any, result: dqn_jax.TrainResult, lane: int) -> None:
    """What the document prints, as curves: score and epsilon by episode, and when it calls itself converged."""
    axis = figure.subplots()
    everyone = common.scores(result, EPISODES)
    seed = result.settings.seeds[lane]
    common.draw_scores(axis, everyone[lane], everyone, label=f"seed {seed}")
    epsilon = result.history.curves()[lane].episode_epsilon[:EPISODES]
    axis.plot(np.arange(1, len(epsilon) + 1), 500 * epsilon, color=COLOURS[2], label="epsilon, times 500")
    claimed = common.criterion(result, "epsilon<=0.01")["episodes"][lane]
    solved = common.criterion(result, "train100>=195")["episodes"][lane]
    if claimed:
        axis.axvline(claimed, color=COLOURS[2], ls=":", label=f'"converged": epsilon 0.01, episode {claimed}')
    if solved:
        axis.axvline(solved, color=COLOURS[1], ls=":", label=f"100-episode mean 195, episode {solved}")
    for i, fall in enumerate(convergence.collapses(everyone[lane], high=HIGH, low=LOW, window=TEN)):
        axis.axvspan(fall.began, fall.ended or EPISODES, color=COLOURS[4], alpha=0.15, lw=0,
                     label=None if i else "collapsed")  # fmt: skip
    axis.set_title(f"Keras CartPole, the seed with the median first collapse ({seed})", fontsize=10)
    axis.legend(fontsize=8, loc="upper left", frameon=True, framealpha=0.9, edgecolor="none", ncols=2)
    axis.set_ylim(0, 720)
    axis.set_yticks(range(0, 501, 100))


def draw_why(figure: Any, results: dict[str, dqn_jax.TrainResult]) -> None:
    """For every setting: the agents at the end, and how much of the time after success was spent collapsed."""
    left, right = figure.subplots(1, 2)
    common.draw_strips(left, {label: np.array(r.summary["final_eval_return"]) for label, r in results.items()})
    common.draw_strips(right, {label: time_fallen(r) for label, r in results.items()}, named=False)
    left.set_xlabel("greedy score at the end (bar: mean)")
    right.set_xlabel("share of later episodes spent collapsed")
    left.set_xlim(0, 510)


def draw_collapse(figure: Any, tables: dict[str, np.ndarray]) -> None:
    """Every seed's ten-episode mean as a row of colours."""
    axes = figure.subplots(len(tables), 1, sharex=True)
    for axis, (label, table) in zip(axes, tables.items(), strict=True):
        means = np.stack([convergence.trailing_mean(own, TEN) for own in table])
        first = [np.flatnonzero(own >= HIGH)[0] if np.any(own >= HIGH) else EPISODES for own in means]
        image = axis.imshow(means[np.argsort(first)], aspect="auto", vmin=0, vmax=500, cmap="viridis",
                            extent=(1, EPISODES, len(table), 0), interpolation="nearest")  # fmt: skip
        axis.set_title(label, fontsize=9, loc="left")
        axis.set_ylabel("seeds")
        axis.set_yticks([])
    axes[-1].set_xlabel("episode")
    figure.colorbar(image, ax=axes, label="mean of ten scores", shrink=0.8)


if __name__ == "__main__":
    main()
