"""How far do value estimates lie above what the greedy policy is worth, and which part of the family cures it?

    .venv/bin/python -m experiments.convergence.overestimation [TASK ...]   # trains what is missing, writes the page

Claim checked: "DQN overestimates, and Double DQN does so less" (van Hasselt, Guez & Silver 2016, arXiv 1509.06461,
section "Results on overoptimism": the mean of max_a Q over the states that the greedy policy visits, over training,
against the discounted return that it then gets). Here the truth is that of each policy at each time, not only the last.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dqn_jax import convergence, devices, files
from dqn_jax.agent import Agent
from dqn_jax.config import Config, HParams, validate
from dqn_jax.drive import Ears, Work, new_history
from dqn_jax.envs import Env, make_env
from dqn_jax.lanes.driver import driver_for
from dqn_jax.prng import make_key
from dqn_jax.types import Key, Params
from experiments import pages
from experiments.convergence.common import RESULTS, improvement, task_rows
from experiments.figures import COLOURS, save_figure

FOLDER = RESULTS / "overestimation"
SEEDS = 16
FIRST_SEED = 90_000  # no setting was chosen on seeds from here on
EPISODES = 8  # played by the greedy policy of each seed at each time
SCORED, PLAYED = 500, 1_000  # steps of them whose values are compared, and after which the rest of a return is left out
DISCOUNT = 0.99  # to the power of 500 it is 0.7 %: what is left out of a return does not count

BASE = "DQN"
ARMS: dict[str, dict[str, Any]] = {
    BASE: {},
    "Double DQN": {"double": True},
    "Munchausen": {"target": "munchausen"},
    "QR-DQN": {"loss": "quantile"},
    "C51": {"loss": "categorical"},
    "averaged weights": {"average_decay": 0.999},
    "layer norm": {"layer_norm": True},
    "3-step": {"n_step": 3},
    "advantage learning": {"target": "advantage"},
    "dueling": {"dueling": True},
    "prioritised": {"replay": "prioritized"},
    "Expected Sarsa": {"target": "expected_sarsa"},
}
# One recipe for both tasks, plain on purpose: a constant step size, and a target that is copied.
SHARED: dict[str, Any] = {
    "num_envs": 4,
    "hidden": (64, 64),
    "batch_size": 64,
    "replay_capacity": 40_000,
    "min_replay": 1_000,
    "train_every": 4,
    "reward_scale": 0.1,
    "eval_episodes": 1,
    "eval_every": 2_000,
    "total_steps": 40_000,
    "learning_rate": 1e-3,
    "discount": DISCOUNT,
    "epsilon_end": 0.05,
    "epsilon_decay_steps": 10_000,
    "target_period": 100,
}
TASKS: dict[str, tuple[float, float]] = {"CartPole-v1": (-1.0, 11.0), "Acrobot-v1": (-11.0, 1.0)}  # support of C51


class Measured(NamedTuple):
    """Means over the states that a greedy policy visits."""

    estimate: jax.Array  # [], float32, of the greatest Q-value
    value: jax.Array  # [], float32, of the discounted return from there, rewards as they are learnt from


def measure(env: Env, agent: Agent, params: Params, key: Key) -> Measured:
    """Play `EPISODES` episodes of `PLAYED` steps at most with the greedy policy, and compare its first `SCORED`."""
    reset_key, act_key, step_key = jax.random.split(key, 3)
    states, obs = jax.vmap(env.reset)(jax.random.split(reset_key, EPISODES))

    def step(carry: Any, time: jax.Array) -> Any:
        states, obs, going = carry
        q = agent.judged(params, obs, jax.random.fold_in(act_key, time)).q_values
        keys = jax.random.split(jax.random.fold_in(step_key, time), EPISODES)
        states, out = jax.vmap(env.advance)(keys, states, jnp.argmax(q, axis=-1).astype(jnp.int32))
        return (states, out.obs, going & ~out.terminated), (jnp.max(q, axis=-1), out.reward, going)

    going = jnp.ones((EPISODES,), bool)
    _, (estimates, rewards, going) = jax.lax.scan(step, (states, obs, going), jnp.arange(PLAYED))

    def back(after: jax.Array, now: Any) -> Any:
        reward, going = now
        value = jnp.where(going, reward + DISCOUNT * after, 0.0)
        return value, value

    _, values = jax.lax.scan(back, jnp.zeros((EPISODES,)), (rewards, going), reverse=True)
    scored = going[:SCORED]
    count = jnp.sum(scored)
    return Measured(jnp.sum(estimates[:SCORED] * scored) / count, jnp.sum(values[:SCORED] * scored) / count)


def settings_of(task: str, arm: str) -> dict[str, Any]:
    """What an arm trains with: fields of `Config` and `HParams`."""
    own = SHARED | {"env": task} | ARMS[arm]
    if own.get("loss") == "categorical":
        own["v_min"], own["v_max"] = TASKS[task]
    return own


def train(task: str, arm: str) -> dict[str, Any]:
    """Estimates and values of one population over training, `[S, C]`; not again if it was trained with this."""
    path = Path("runs/convergence/overestimation") / f"{task}-{list(ARMS).index(arm):02d}.json"
    settings = settings_of(task, arm)
    asked = {"settings": json.loads(json.dumps(settings)), "seeds": SEEDS, "first": FIRST_SEED}
    if path.is_file() and (found := json.loads(path.read_text()))["asked"] == asked:
        return dict(found)
    traced = {name: value for name, value in settings.items() if name in HParams._fields}
    config = Config(**{name: value for name, value in settings.items() if name not in traced})
    steps, estimates, values, returns = watched(config, HParams(**traced))
    found = {"asked": asked, "env_steps": steps, "estimate": estimates, "value": values, "return": returns}
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, found)
    return found


def watched(config: Config, hparams: HParams) -> tuple[list[int], list[Any], list[Any], list[Any]]:
    """Train all seeds, and after each chunk measure their networks: steps `[C]`, and lists `[S][C]`."""
    devices.configure()
    validate(config, hparams)
    driver, ears = driver_for(config), Ears()
    population = driver.population(hparams, SEEDS)
    work = Work(driver, population, ears, new_history(driver, range(FIRST_SEED, FIRST_SEED + SEEDS)), hparams)
    # Beyond the time limit, from which targets bootstrap: what is estimated is a life without one.
    env = make_env(dataclasses.replace(config, max_episode_steps=PLAYED + 1))
    measured = jax.jit(jax.vmap(functools.partial(measure, env, driver.agent), in_axes=(0, None)))
    work.start()
    everyone, steps, readings = np.arange(SEEDS), [], []
    active = population.layout.active(everyone)
    while work.env_steps < work.last_step:
        work.lanes, metrics = population.chunk(jnp.int32(work.env_steps), work.lanes, work.hparams, active)
        host = population.layout.fetch(metrics, everyone)
        work.env_steps += work.steps_of(host.epsilon)
        estimate, value = measured(work.networks(everyone), make_key(config.eval_seed))
        steps.append(work.env_steps)
        readings.append([np.asarray(x, float) for x in (estimate, value, host.eval_returns.mean(axis=1))])
    estimates, values, returns = np.moveaxis(np.array(readings), 0, -1).tolist()
    return steps, estimates, values, returns


def rows(task: str, arm: str) -> list[dict[str, Any]]:
    """One for each seed: means over the last quarter of training."""
    found = train(task, arm)
    last = -(-len(found["env_steps"]) // 4)
    means = {name: np.asarray(found[name])[:, -last:].mean(axis=1) for name in ("estimate", "value", "return")}
    return [
        {"task": task, "arm": arm, "seed": FIRST_SEED + seed, **{name: means[name][seed] for name in means}}
        for seed in range(SEEDS)
    ]


def lines(table: pd.DataFrame) -> list[list[str]]:
    """The lines of a task's table, from rows of `rows`."""
    excess = {arm: (own["estimate"] - own["value"]).to_numpy() for arm, own in table.groupby("arm")}
    found = []
    for arm in (arm for arm in ARMS if arm in excess):
        own = table[table["arm"] == arm]
        chance, (low, high) = improvement(-excess[arm], -excess[BASE])
        found.append(
            [
                arm,
                pages.mean(own["estimate"], 2),
                pages.mean(own["value"], 2),
                pages.mean(excess[arm], 2),
                pages.share(excess[arm] > 0),
                "" if arm == BASE else f"{chance:.0%} [{low:.0%}, {high:.0%}]",
                pages.mean(own["return"], 0),
            ]
        )
    return found


def draw(figure: Figure, curves: dict[str, dict[str, Any]]) -> None:
    """Estimates and values over training, means over seeds with their intervals, a panel for each arm."""
    across = 4
    axes = figure.subplots(-(-len(curves) // across), across, sharex=True, sharey=True, squeeze=False)
    for axis, (arm, found) in zip(axes.flat, curves.items(), strict=False):
        for name, colour, words in (
            ("estimate", COLOURS[1], "estimate: mean of max Q"),
            ("value", COLOURS[0], "truth: discounted return"),
        ):
            values = np.asarray(found[name])
            low, high = convergence.mean_interval(values)
            axis.plot(found["env_steps"], values.mean(axis=0), color=colour, lw=1.5, label=words)
            axis.fill_between(found["env_steps"], low, high, color=colour, alpha=0.2, lw=0)
        axis.set_title(arm, fontsize=9)
        axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
    for axis in axes.flat[len(curves) :]:
        axis.set_visible(False)
    figure.supxlabel("environment steps", fontsize=9)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)


def write_page(table: pd.DataFrame) -> None:
    """Write results/overestimation/README.md from rows of `rows`."""
    pages.write(
        FOLDER / "README.md",
        "convergence/overestimation.md.jinja",
        measured=dict(zip(table["task"], table["measured"], strict=True)),
        seeds=SEEDS,
        episodes=EPISODES,
        scored=SCORED,
        steps=SHARED["total_steps"],
        tasks={task: lines(table[table["task"] == task]) for task in dict.fromkeys(table["task"])},
    )


def main() -> None:
    """Train every arm of the tasks asked for, and write results/overestimation, other tasks kept."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for task in sys.argv[1:] or TASKS:
        curves, found = {}, []
        for arm in ARMS:
            curves[arm] = train(task, arm)
            found += rows(task, arm)
            own = pd.DataFrame(found[-SEEDS:])
            print(f"{task}, {arm}: {own['estimate'].mean():.2f} for {own['value'].mean():.2f}", flush=True)
        save_figure(FOLDER / f"{task}.png", 12, 7.5, functools.partial(draw, curves=curves))
        table = task_rows(FOLDER / "overestimation.csv", pd.DataFrame(found).assign(measured=pages.machine()))
        with files.atomic(FOLDER / "overestimation.csv") as path:
            table.to_csv(path, index=False, float_format="%.6g")
        write_page(pd.read_csv(FOLDER / "overestimation.csv"))


if __name__ == "__main__":
    main()
