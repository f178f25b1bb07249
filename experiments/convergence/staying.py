"""What makes agents stay where they converged? Parts of the family, one at a time, on four tasks.

    .venv/bin/python -m experiments.convergence.staying [TASK ...]   # trains what is missing, then writes the page

Claim checked: "an agent that has converged is done". Plain Double DQN reaches the threshold of each task and then
falls from it again and again; here each part of the family is added to the same small recipe, on the same seeds, and
judged by what comes after first passage.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dqn_jax import convergence, files
from experiments import pages
from experiments.convergence.common import PLAIN, RESULTS, improvement, task_rows
from experiments.figures import COLOURS, save_figure
from experiments.training import trained

FOLDER = RESULTS / "staying"
SEEDS = 16
FIRST_SEED = 70_000  # no setting was chosen on seeds from here on


class Task(NamedTuple):
    """A task, the settings that its arms share, and when it counts as solved."""

    preset: str  # whose environment it is
    criterion: str
    values: tuple[float, float]  # of any policy, least and most: the support of heads that need one
    settings: dict[str, Any]


# What the presets of classic control were made of before this: a soft target, values of about 10 (CartPole: 50).
SHARED: dict[str, Any] = PLAIN | {
    "hidden": (64, 64),
    "batch_size": 64,
    "train_every": 4,
    "learning_rate": 1.5e-3,
    "learning_rate_end": 1e-5,
    "learning_rate_decay_updates": 12_000,
    "target_mixing": 0.02,
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
    "Acrobot": Task(
        "acrobot",
        "eval>=-100x3",
        (-10.0, 0.0),
        {"epsilon_end": 0.02, "epsilon_decay_steps": 18_000, "total_steps": 61_000},
    ),
    "MountainCar": Task(
        "mountaincar",
        "eval>=-110x3",
        (-10.0, 0.0),
        {"discount": 0.98, "epsilon_end": 0.02, "epsilon_decay_steps": 18_000, "total_steps": 61_000},
    ),
    "Pendulum": Task(
        "pendulum",
        "eval>=-200x3",
        (-82.0, 0.0),
        {
            "discount": 0.98,
            "epsilon_end": 0.05,
            "epsilon_decay_steps": 8_000,
            "train_every": 2,
            "eval_every": 1_000,
            "total_steps": 31_000,
        },
    ),
}
_AVERAGE, _NORM = {"average_decay": 0.9998}, {"layer_norm": True}
_MUNCHAUSEN = {"target": "munchausen", "double": False}
BASE = "Double DQN"
ARMS: dict[str, dict[str, Any]] = {
    BASE: {},
    "averaged weights": _AVERAGE,
    "layer norm": _NORM,
    "layer norm, averaged": _NORM | _AVERAGE,
    "Munchausen": _MUNCHAUSEN,
    "Munchausen, layer norm, averaged": _MUNCHAUSEN | _NORM | _AVERAGE,
    "advantage learning": {"target": "advantage", "double": False},
    "C51": {"loss": "categorical"},
    "QR-DQN": {"loss": "quantile"},
    "3-step": {"n_step": 3},
    "prioritised": {"replay": "prioritized"},
    "no Double": {"double": False},
    "dueling": {"dueling": True},
    "constant rate": {"learning_rate_end": 1.5e-3},
    "weight decay 1e-3": {"optimizer": "adamw", "weight_decay": 1e-3},
    "batches of 256": {"batch_size": 256},
    "hard target": {"target_mixing": 1.0, "target_period": 100},
}
# A step is worth nothing and the fall costs 1, of all tasks CartPole's alone: elsewhere a step costs something already.
_FALL = {"reward_shift": -1.0, "terminal_reward": -1.0, "reward_scale": 1.0, "munchausen_temperature": 0.003}
FALL_ARMS: dict[str, dict[str, Any]] = {
    "a fall costs 1": _FALL,
    "the same, layer norm, averaged": _FALL | _NORM | _AVERAGE,
    "the same with Munchausen": _FALL | _NORM | _AVERAGE | _MUNCHAUSEN,
}
ON_CARTPOLE_ALONE = ("QR-DQN", "constant rate", "weight decay 1e-3", "batches of 256", "hard target")


def arms_of(task: str) -> dict[str, dict[str, Any]]:
    """What is changed of the recipe, by name: all of it on CartPole, on the other tasks what says most."""
    if task == "CartPole":
        return ARMS | FALL_ARMS
    return {arm: changes for arm, changes in ARMS.items() if arm not in ON_CARTPOLE_ALONE}


def train(task: str, arm: str) -> dict[str, Any]:
    """The evaluations of one population, `env_steps` `[C]` and `returns` `[S, C]`; what was trained is not again."""
    settings = SHARED | TASKS[task].settings | arms_of(task)[arm]
    if settings.get("loss") == "categorical":
        settings["v_min"], settings["v_max"] = TASKS[task].values
    out = Path("runs/convergence/staying") / f"{task}-{list(arms_of(task)).index(arm):02d}"
    result = trained(out, TASKS[task].preset, seeds=SEEDS, seed=FIRST_SEED, **settings)
    return {
        "env_steps": np.asarray(result.history.env_steps),
        "returns": np.asarray(result.history.reading("eval_return"), float),
        "q_mean": np.asarray(result.history.reading("q_mean"), float)[:, -1],
        "seconds": result.summary["seconds"]["run"],
    }


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
            # Who does not settle is last.
            "settles_sooner": improvement(*(-np.nan_to_num(x.settled, nan=np.inf) for x in (own, base))),
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


def draw_frontier(figure: Figure, table: pd.DataFrame) -> None:
    """Median first passage against the share of later evaluations that hold, a panel for each task."""
    tasks = list(dict.fromkeys(table["task"]))
    numbers = {arm: number for number, arm in enumerate(dict.fromkeys(table["arm"]), 1)}
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axis, task in zip(axes, tasks, strict=True):
        for row in table[table["task"] == task].to_dict("records"):
            if np.isfinite(row["first_passage"]):
                at, number = (row["first_passage"], row["held"]), numbers[row["arm"]]
                axis.plot(*at, "o", ms=4, color=COLOURS[number % len(COLOURS)])
                axis.annotate(str(number), at, xytext=(3, 3), textcoords="offset points", fontsize=7)
        axis.set_title(task, fontsize=10)
        axis.set_xlabel("median steps to first passage")
        axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
        axis.set_ylim(-0.03, 1.05)
    axes[0].set_ylabel("share of later evaluations that hold")
    names = [f"{number} {arm}" for arm, number in numbers.items()]
    figure.supxlabel("\n".join("   ".join(names[start : start + 7]) for start in range(0, len(names), 7)), fontsize=6.5)


def draw_curves(figure: Figure, task: str, arms: dict[str, dict[str, Any]]) -> None:
    """Share of a task's seeds whose evaluation meets the threshold, over environment steps, for a few arms."""
    shown = (BASE, "averaged weights", "layer norm", "Munchausen, layer norm, averaged", "batches of 256", "QR-DQN")
    axis = figure.subplots()
    criterion = convergence.parse_criterion(TASKS[task].criterion)
    for colour, arm in zip(COLOURS, (*shown, *list(FALL_ARMS)[-1:]), strict=False):
        if arm in arms:
            axis.plot(
                arms[arm]["env_steps"],
                criterion.holds(arms[arm]["returns"]).mean(axis=0),
                color=colour,
                lw=1.4,
                label=arm,
            )
    axis.set_xlabel("environment steps")
    axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
    axis.set_xlim(left=0)
    axis.set_ylim(-0.03, 1.03)
    axis.set_ylabel("share of seeds at the threshold")
    figure.legend(loc="outside right center", fontsize=8, frameon=False)


def write_page(table: pd.DataFrame) -> None:
    """Write results/staying/README.md from rows of `rows`."""
    found = table.to_dict("records")
    tasks = {task: [line(row) for row in found if row["task"] == task] for task in dict.fromkeys(table["task"])}
    pages.write(
        FOLDER / "README.md",
        "convergence/staying.md.jinja",
        seeds=int(table["seeds"].max()),
        tasks=tasks,
        measured=dict(zip(table["task"], table["measured"], strict=True)),
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
    """Train every arm of the tasks asked for, and write results/staying; of other tasks it keeps what is there."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for task in sys.argv[1:] or TASKS:
        found = {}
        for arm in arms_of(task):
            found[arm] = train(task, arm)
            own = measured(task, found[arm])
            print(f"{task}, {arm}: held {own.held_mean:.2f}, settled {own.settling.share:.2f}", flush=True)
        table = task_rows(FOLDER / "staying.csv", pd.DataFrame(rows(task, found)).assign(measured=pages.machine()))
        with files.atomic(FOLDER / "staying.csv") as path:
            table.to_csv(path, index=False, float_format="%.6g")
        save_figure(FOLDER / f"{task}.png", 9, 3.4, functools.partial(draw_curves, task=task, arms=found))
        save_figure(FOLDER / "frontier.png", 13, 3.8, functools.partial(draw_frontier, table=table))
        write_page(pd.read_csv(FOLDER / "staying.csv"))


if __name__ == "__main__":
    main()
