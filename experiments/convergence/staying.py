"""What makes agents stay where they converged? Parts of the family, one at a time, on four tasks.

    .venv/bin/python -m experiments.convergence.staying             # trains what is missing, then writes the page
    .venv/bin/python -m experiments.convergence.staying --from-records

Claim checked: "an agent that has converged is done". Plain Double DQN reaches the threshold of each task and then
falls from it again and again; here each part of the family is added to the same small recipe, on the same seeds, and
judged by what comes after first passage.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import dqn_jax
from dqn_jax import convergence, files
from experiments import pages
from experiments.convergence.common import RESULTS
from experiments.figures import COLOURS, save_figure

FOLDER = RESULTS / "staying"
SEEDS = 16
FIRST_SEED = 70_000  # no setting was chosen on seeds from here on


class Task(NamedTuple):
    """A task, the settings that its arms share, and when it counts as solved."""

    preset: str  # whose environment it is
    criterion: str
    values: tuple[float, float]  # of any policy, least and most: the support of heads that need one
    settings: dict[str, Any]


# The recipe that the presets had: Double DQN, a soft target, rewards scaled to values of about 10 (CartPole: 50).
SHARED: dict[str, Any] = {
    "double": True,
    "hidden": (64, 64),
    "batch_size": 64,
    "train_every": 4,
    "learning_rate": 1.5e-3,
    "eval_episodes": 32,
    "eval_every": 2_500,
    "total_steps": 81_000,
}
TASKS = {
    "CartPole": Task(
        "cartpole",
        "eval>=475x3",
        (0.0, 50.0),
        {"discount": 0.998, "epsilon_end": 0.08, "epsilon_decay_steps": 1_400, "target_mixing": 0.05},
    ),
    "Acrobot": Task("acrobot", "eval>=-100x3", (-10.0, 0.0), {"epsilon_end": 0.02, "epsilon_decay_steps": 18_000}),
    "MountainCar": Task(
        "mountaincar",
        "eval>=-110x3",
        (-10.0, 0.0),
        {"discount": 0.98, "epsilon_end": 0.02, "epsilon_decay_steps": 18_000},
    ),
    "Pendulum": Task(
        "pendulum",
        "eval>=-200x3",
        (-82.0, 0.0),
        {"discount": 0.98, "epsilon_end": 0.05, "epsilon_decay_steps": 8_000, "total_steps": 41_000},
    ),
}
_AVERAGE, _NORM = {"average_decay": 0.9998}, {"layer_norm": True}
BASE = "Double DQN"
ARMS: dict[str, dict[str, Any]] = {
    BASE: {},
    "averaged weights": _AVERAGE,
    "layer norm": _NORM,
    "layer norm, averaged": _NORM | _AVERAGE,
    "the same, 3-step": _NORM | _AVERAGE | {"n_step": 3},
    "the same, rate falls to nothing": _NORM
    | _AVERAGE
    | {"learning_rate_end": 1e-6, "learning_rate_decay_updates": 10_000},
    "rate falls to nothing": {"learning_rate_end": 1e-6, "learning_rate_decay_updates": 10_000},
    "weight decay 1e-3": {"optimizer": "adamw", "weight_decay": 1e-3},
    "3-step": {"n_step": 3},
    "prioritised": {"replay": "prioritized"},
    "Munchausen": {"target": "munchausen", "double": False},
    "advantage learning": {"target": "advantage", "double": False},
    "C51": {"loss": "categorical"},
    "QR-DQN": {"loss": "quantile"},
    "batches of 256": {"batch_size": 256},
    "no Double": {"double": False},
    "dueling": {"dueling": True},
    "hard target": {"target_mixing": 1.0, "target_period": 100},
}


def train(task: str, arm: str) -> dict[str, Any]:
    """The evaluations of one population, `env_steps` `[C]` and `returns` `[S, C]`; what was trained is not again."""
    kept = Path("runs/convergence/staying") / f"{task}-{list(ARMS).index(arm):02d}.json"
    settings = SHARED | TASKS[task].settings | ARMS[arm]
    if settings.get("loss") == "categorical":
        settings["v_min"], settings["v_max"] = TASKS[task].values
    asked = {"settings": json.loads(json.dumps(settings)), "seeds": SEEDS, "first": FIRST_SEED}
    if kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text())
        if found["asked"] == asked:
            return found
    result = dqn_jax.train(TASKS[task].preset, seeds=SEEDS, seed=FIRST_SEED, **settings)
    if result.interrupted:
        sys.exit(130)
    env_steps = np.asarray(result.history.env_steps).tolist()
    returns = np.asarray(result.history.reading("eval_return"), float).tolist()
    q_mean = np.asarray(result.history.reading("q_mean"), float)[:, -1].tolist()
    found = {
        "asked": asked,
        "env_steps": env_steps,
        "returns": returns,
        "q_mean": q_mean,
        "seconds": result.summary["seconds"]["run"],
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(kept, found)
    return found


def measured(task: str, found: dict[str, Any]) -> convergence.Staying:
    """What the seeds of an arm reached, and whether they stayed."""
    criterion = convergence.parse_criterion(TASKS[task].criterion)
    return convergence.staying(found["env_steps"], found["returns"], criterion)


def rows(task: str, arms: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One for each arm; ends of intervals as `<name>_low` and `<name>_high`."""
    lines: list[dict[str, Any]] = []
    base = measured(task, arms[BASE])
    for arm, found in arms.items():
        own = measured(task, found)
        line: dict[str, Any] = {"task": task, "arm": arm, "seeds": len(own.final)}
        estimates = {
            "passed": (own.passage.share, own.passage.share95),
            "first_passage": (own.passage.median, own.passage.median95),
            "held": (own.held_mean, own.held95),
            "settled": (own.settling.share, own.settling.share95),
            "settling": (own.settling.median, own.settling.median95),
            "settles_sooner": improvement(own.settled, base.settled),
        }
        for name, (value, ends) in estimates.items():
            line[name], (line[f"{name}_low"], line[f"{name}_high"]) = value, ends
        line |= {
            "final": own.final_mean,
            "worst": own.worst,
            "q_mean": float(np.median(found["q_mean"])),
            "seconds": found["seconds"],
        }
        lines.append(line)
    return lines


def improvement(own: np.ndarray, base: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Probability that a random seed settles sooner than with the base, seeds paired; who does not settle is last."""
    own, base = -np.nan_to_num(own, nan=np.inf), -np.nan_to_num(base, nan=np.inf)
    interval = convergence.probability_of_improvement_interval(own, base, paired=True)
    return convergence.probability_of_improvement(own, base), interval


def draw_frontier(figure: Figure, table: pd.DataFrame) -> None:
    """Median first passage against the share of later evaluations that hold, a panel for each task."""
    axes = figure.subplots(1, len(TASKS))
    for axis, task in zip(axes, TASKS, strict=True):
        own = table[table["task"] == task].reset_index(drop=True)
        for number, row in enumerate(own.to_dict("records")):
            if np.isfinite(row["first_passage"]):
                at = row["first_passage"], row["held"]
                axis.plot(*at, "o", ms=4, color=COLOURS[number % len(COLOURS)])
                axis.annotate(str(number + 1), at, xytext=(3, 3), textcoords="offset points", fontsize=7)
        axis.set_title(task, fontsize=10)
        axis.set_xlabel("median steps to first passage")
        axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
        axis.set_ylim(-0.03, 1.05)
    axes[0].set_ylabel("share of later evaluations that hold")
    names = [f"{number} {arm}" for number, arm in enumerate(ARMS, 1)]
    figure.supxlabel("   ".join(names[: len(names) // 2]) + "\n" + "   ".join(names[len(names) // 2 :]), fontsize=6.5)


def draw_curves(figure: Figure, found: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Share of seeds whose evaluation meets the threshold, over environment steps, for a few arms of each task."""
    shown = (BASE, "averaged weights", "layer norm", "layer norm, averaged", "Munchausen", "C51")
    axes = figure.subplots(1, len(found))
    for axis, (task, arms) in zip(axes, found.items(), strict=True):
        criterion = convergence.parse_criterion(TASKS[task].criterion)
        for colour, arm in zip(COLOURS, shown, strict=False):
            if arm in arms:
                holds = criterion.holds(np.asarray(arms[arm]["returns"], float))
                axis.plot(arms[arm]["env_steps"], holds.mean(axis=0), color=colour, lw=1.4, label=arm)
        axis.set_title(task, fontsize=10)
        axis.set_xlabel("environment steps")
        axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
        axis.set_xlim(left=0)
        axis.set_ylim(-0.03, 1.03)
    axes[0].set_ylabel("share of seeds at the threshold")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8, frameon=False)


def write_page(table: pd.DataFrame, when: str) -> None:
    """Write results/staying/README.md from rows of `rows`."""
    found = table.to_dict("records")
    tasks = {task: [line(row) for row in found if row["task"] == task] for task in TASKS}
    pages.write(
        FOLDER / "README.md",
        "convergence/staying.md.jinja",
        measured=when,
        seeds=int(table["seeds"].max()),
        tasks=tasks,
        criteria={task: TASKS[task].criterion for task in tasks},
    )


def line(row: dict[Any, Any]) -> list[str]:
    """A row of the table as one of the page."""

    def estimate(name: str, text: str) -> str:
        ends = [row[name + end] for end in ("", "_low", "_high")]
        low, middle, high = (("-" if not np.isfinite(x) else text.format(x)) for x in (ends[1], ends[0], ends[2]))
        return f"{middle} [{low}, {high}]"

    return [
        row["arm"],
        estimate("passed", "{:.0%}"),
        estimate("first_passage", "{:,.0f}"),
        estimate("held", "{:.0%}"),
        estimate("settled", "{:.0%}"),
        estimate("settling", "{:,.0f}"),
        "" if row["arm"] == BASE else estimate("settles_sooner", "{:.0%}"),
        f"{row['final']:.1f} ({row['worst']:.1f})",
        f"{row['q_mean']:.1f}",
    ]


def main() -> None:
    """Train every arm of every task, and write results/staying: table, curves, figures and page."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for task in TASKS:
        found[task] = {}
        for arm in ARMS:
            found[task][arm] = train(task, arm)
            own = measured(task, found[task][arm])
            print(f"{task}, {arm}: held {own.held_mean:.2f}, settled {own.settling.share:.2f}", flush=True)
    table = pd.DataFrame([row for task, arms in found.items() for row in rows(task, arms)])
    with files.atomic(FOLDER / "staying.csv") as path:
        table.to_csv(path, index=False, float_format="%.6g")
    save_figure(FOLDER / "curves.png", 13, 3.6, lambda figure: draw_curves(figure, found))
    save_figure(FOLDER / "frontier.png", 13, 3.8, lambda figure: draw_frontier(figure, table))
    write_page(table, pages.machine())


if __name__ == "__main__":
    main()
