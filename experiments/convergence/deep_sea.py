"""Deep exploration: which way of exploring finds the treasure of bsuite's DeepSea, and up to which size?

    .venv/bin/python -m experiments.convergence.deep_sea   # trains what is missing, then writes the page

Claim checked: "exploration by dithering takes exponentially long" (bsuite, Osband et al. 2020, arXiv 1908.03568). In a
deep sea of size N one sequence of N actions in 2^N pays, and every step towards it costs a little.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dqn_jax import convergence, files
from experiments import pages
from experiments.convergence.common import RESULTS
from experiments.figures import COLOURS, save_figure
from experiments.training import trained

FOLDER = RESULTS / "deep_sea"
SIZES = (4, 6, 8, 10, 12, 16)
SEEDS = 20
FIRST_SEED = 80_000  # no setting was chosen on seeds from here on
EPISODES = 1_000
OPTIMUM = 0.99  # 1, less N moves of 0.01 / N
NEAR = 0.985  # a greedy return from here on is the optimum: anything else is 0 at most


class Arm(NamedTuple):
    """A way of exploring: one part of the hyperparameters of a population."""

    epsilon: tuple[float, float]  # at the start and at the end
    temperature: float  # of the softmax where epsilon's coin does not choose
    noisy: bool = False


_GREEDY = 1e-6  # the temperature at which a softmax is greedy: the least move costs six hundred times as much
ARMS = {
    "none": Arm((0.0, 0.0), _GREEDY),
    "epsilon 0.1": Arm((0.1, 0.1), _GREEDY),
    "epsilon 1 to 0.05": Arm((1.0, 0.05), _GREEDY),
    "Boltzmann 0.01": Arm((0.0, 0.0), 0.01),
    "Boltzmann 0.1": Arm((0.0, 0.0), 0.1),
    "noisy": Arm((0.0, 0.0), _GREEDY, noisy=True),
}


def settings_of(size: int, noisy: bool) -> dict[str, Any]:
    """What the population of a size trains with; the arms are its lanes, with hyperparameters of their own."""
    lanes = [arm for arm in ARMS.values() if arm.noisy == noisy for _ in range(SEEDS)]
    return {
        "env_params": (("size", size),),
        "num_envs": 4,
        "torso": "mlp",
        "hidden": (50, 50),
        "noisy": noisy,
        "double": True,
        "batch_size": 32,
        "replay_capacity": 16_000,  # all that happens
        "min_replay": 64,
        "train_every": 4,
        "learning_rate": 1e-3,
        "discount": 0.99,
        "target_period": 20,
        "exploration": "boltzmann",
        "temperature": [arm.temperature for arm in lanes],
        "epsilon_start": [arm.epsilon[0] for arm in lanes],
        "epsilon_end": [arm.epsilon[1] for arm in lanes],
        "epsilon_decay_steps": EPISODES * size // 2,
        "total_steps": EPISODES * size,
        "eval_every": 20 * size,
        "eval_episodes": 1,  # neither task nor greedy policy has any chance in it
    }


def train(size: int, noisy: bool) -> dict[str, Any]:
    """The evaluations of one population, `episodes` `[C]` and `returns` `[lanes, C]`; not again if it was trained."""
    settings, out = settings_of(size, noisy), Path("runs/convergence/deep_sea") / f"{size:02d}{'-noisy' * noisy}"
    result = trained(out, "DeepSea-bsuite", seeds=len(settings["temperature"]), seed=FIRST_SEED, **settings)
    return {
        "episodes": np.asarray(result.history.env_steps) / size,
        "returns": np.asarray(result.history.reading("eval_return"), float),
    }


def rows(size: int) -> list[dict[str, Any]]:
    """One for each arm and seed: the episodes after which the greedy policy was the best one, if ever, and its end."""
    lines = []
    for noisy in (False, True):
        found = train(size, noisy)
        returns = found["returns"]
        for number, arm in enumerate(name for name, arm in ARMS.items() if arm.noisy == noisy):
            for seed, own in enumerate(returns[number * SEEDS : (number + 1) * SEEDS], number * SEEDS + FIRST_SEED):
                best = own >= NEAR
                first = found["episodes"][int(best.argmax())] if best.any() else np.nan
                lines.append({"size": size, "arm": arm, "seed": seed, "episodes": first, "final": own[-1]})
    return lines


def draw(figure: Figure, table: pd.DataFrame) -> None:
    """Share of seeds that found the treasure, and the median episodes until then, over size."""
    shares, times = figure.subplots(1, 2)
    for (number, arm), marker in zip(enumerate(ARMS), "os^vDP", strict=True):
        own = [table[(table["size"] == size) & (table["arm"] == arm)] for size in SIZES]
        found = [np.isfinite(rows["episodes"]) for rows in own]
        middle = np.array([flags.mean() for flags in found])
        low, high = np.array([convergence.share_interval(flags) for flags in found]).T
        at = np.asarray(SIZES) + 0.12 * (number - 2.5)
        spread = np.abs([middle - low, high - middle])
        colour = COLOURS[number]
        shares.errorbar(
            at, middle, yerr=spread, fmt=marker + "-", ms=4, lw=1.2, elinewidth=0.6, color=colour, label=arm
        )
        reached = [convergence.median_with_censored(censored(rows["episodes"])) for rows in own]
        times.plot(SIZES, [np.nan if x is None else x for x in reached], marker + "-", ms=4, lw=1.2, color=colour)
    sizes = np.linspace(SIZES[0], np.log2(EPISODES), 50)
    times.plot(sizes, np.log(2) * 2**sizes, ":", color="#4a4a4a", lw=1.2)
    times.annotate("chance: ln 2 x 2^N", (8.1, np.log(2) * 2**8.1), xytext=(6, -10), textcoords="offset points", size=8)
    times.axhline(EPISODES, color="#bbbbbb", lw=0.8)
    shares.set_ylabel("share of seeds that found the treasure")
    shares.set_ylim(-0.03, 1.05)
    times.set_ylabel("median episodes until it is found")
    times.set_yscale("log")
    for axis in (shares, times):
        axis.set_xlabel("size N")
        axis.set_xticks(SIZES)
    figure.legend(*shares.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8, frameon=False)


def censored(episodes: Any) -> list[float | None]:
    """`[S]` numbers of episodes with None for those that never got there."""
    return [None if np.isnan(x) else float(x) for x in episodes]


def reached(table: pd.DataFrame, arm: str) -> int:
    """The greatest size that, with all smaller ones, at least half of the seeds solved; 0 if there is none."""
    most = 0
    for size in SIZES:
        if np.isfinite(table[(table["size"] == size) & (table["arm"] == arm)]["episodes"]).mean() < 0.5:
            break
        most = size
    return most


def write_page(table: pd.DataFrame, when: str) -> None:
    """Write results/deep_sea/README.md from rows of `rows`."""

    def cells(arm: str, text: Any) -> list[str]:
        return [text(table[(table["size"] == size) & (table["arm"] == arm)]) for size in SIZES]

    pages.write(
        FOLDER / "README.md",
        "convergence/deep_sea.md.jinja",
        measured=when,
        seeds=SEEDS,
        episodes=EPISODES,
        sizes=SIZES,
        shares=[
            [arm, reached(table, arm) or "none", *cells(arm, lambda own: pages.share(np.isfinite(own["episodes"])))]
            for arm in ARMS
        ],
        times=[[arm, *cells(arm, lambda own: pages.median(censored(own["episodes"])))] for arm in ARMS],
        ends=[[arm, *cells(arm, lambda own: pages.share(own["final"] >= NEAR))] for arm in ARMS],
    )


def main() -> None:
    """Train every size, and write results/deep_sea."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = []
    for size in SIZES:
        own = rows(size)
        lines += own
        solved = {arm: int(sum(row["arm"] == arm and np.isfinite(row["episodes"]) for row in own)) for arm in ARMS}
        print(f"size {size}: {solved}", flush=True)
    table = pd.DataFrame(lines)
    with files.atomic(FOLDER / "deep_sea.csv") as path:
        table.to_csv(path, index=False, float_format="%.6g")
    save_figure(FOLDER / "deep_sea.png", 11, 4.6, lambda figure: draw(figure, table))
    write_page(pd.read_csv(FOLDER / "deep_sea.csv"), pages.machine())


if __name__ == "__main__":
    main()
