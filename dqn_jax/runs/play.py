"""Use what a run has learnt: evaluate it on new episodes, and film it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import jax
import numpy as np
from numpy.typing import ArrayLike

from dqn_jax import convergence, devices, files
from dqn_jax.config import ConfigError, check_seed
from dqn_jax.films import write
from dqn_jax.lanes import memory
from dqn_jax.lanes.driver import Driver, driver_for
from dqn_jax.lanes.lane import without_rows
from dqn_jax.runs import best
from dqn_jax.runs import checkpoint as checkpoints
from dqn_jax.runs.folder import load_summary
from dqn_jax.runs.settings import RunSettings, load_settings
from dqn_jax.types import Params, PyTree

Which = Literal["last", "best"]


class Agents(NamedTuple):
    """L trained agents: those of a run, or of a setting that a sweep has confirmed, one for each seed."""

    whose: str  # in words
    run: Path | None  # the folder of their run, if they are of one
    settings: RunSettings
    driver: Driver
    params: Params  # online networks, leaves [L, ...]
    which: Which
    env_steps: np.ndarray  # [L], after which they were saved
    eval_return: np.ndarray | None  # [L], of the evaluations that the best ones were chosen by

    def describe(self, lane: int | None = None) -> str:
        """Which they are, all or one of them, in words."""
        steps = self.env_steps if lane is None else self.env_steps[lane : lane + 1]
        return f"{self.which} checkpoint, after {best.describe(steps)}"


def load_agents(run: Path, checkpoint: Which = "last") -> Agents:
    """A run's agents from its newest whole checkpoint, or each seed's best by evaluation.

    Raises:
      ConfigError: if there is no run or no such checkpoint.
    """
    if checkpoint not in get_args(Which):
        raise ConfigError(f"checkpoint: '{checkpoint}' is none of {', '.join(get_args(Which))}.")
    devices.configure()
    settings = load_settings(run)
    driver = driver_for(settings.config)
    shapes = driver.lane_shapes(len(settings.seeds), settings.hparams)
    if checkpoint == "best":
        params, notes = _load_best(run, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), shapes))
        if notes["seeds"].tolist() != list(settings.seeds):
            raise ConfigError(f"checkpoint: {best.path_of(run)} is of another run; use --checkpoint last.")
        return Agents(
            str(run),
            run,
            settings,
            driver,
            params,
            checkpoint,
            env_steps=notes["env_steps"],
            eval_return=notes["eval_return"],
        )
    if driver.rows_apart:
        shapes = without_rows(shapes)  # to play, no replay is needed
    folder = checkpoints.folder_of(run)
    saved = checkpoints.load(folder, shapes, warn=lambda line: print(f"dqn-jax: {line}", file=sys.stderr))
    if saved is None:
        raise ConfigError(f"run: {run} has no whole checkpoint; train for longer or choose another run.")
    env_steps = np.full(len(settings.seeds), saved.env_steps)
    return Agents(
        str(run), run, settings, driver, saved.lanes.agent.played, checkpoint, env_steps=env_steps, eval_return=None
    )


def _load_best(run: Path, lane: PyTree) -> tuple[Params, dict[str, np.ndarray]]:
    """The best networks of a run whose lanes have the shapes `lane`, and what is known of them."""
    try:
        return best.load(run, lane.agent.params)
    except FileNotFoundError:
        raise ConfigError(
            f"checkpoint: {run} keeps no best networks (it was stopped before its first evaluation, or written by an "
            "earlier dqn_jax); use --checkpoint last."
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"checkpoint: {best.path_of(run)} is damaged ({error}); use --checkpoint last, or go on with the run by "
            "--resume, which writes it again."
        ) from error


def evaluate_run(find: Callable[[], Agents], *, episodes: int, epsilon: float | None, eval_seed: int) -> files.Json:
    """Play new episodes with every agent.

    Args:
      find: gives the agents; called once all else is known to be possible.
      episodes: of each agent.
      epsilon: exploration (None: as in the evaluations of their training).
      eval_seed: fixes the starts and the environments' noise.

    Returns:
      Returns and lengths, by agent and over all, as `dqn-jax evaluate --json` prints them.

    Raises:
      ConfigError: for what is not possible.
    """
    check_seed("eval_seed", eval_seed)
    if episodes < 1:
        raise ConfigError(f"episodes: {episodes} is not possible; use 1 or more.")
    if epsilon is not None and not 0.0 <= epsilon <= 1.0:
        raise ConfigError(f"epsilon: {epsilon:g} is not possible; use a probability between 0 and 1.")
    agents = find()
    settings, driver, params = agents.settings, agents.driver, agents.params
    if epsilon is None:
        epsilon = settings.config.eval_epsilon
    memory.check_evaluation(driver, len(settings.seeds), episodes)
    result = driver.play(params, episodes=episodes, epsilon=epsilon, seed=eval_seed)
    returns = np.asarray(result.returns)
    means = returns.mean(axis=1)
    low, high = convergence.mean_interval(means)
    return {
        "run": agents.whose,
        "checkpoint": agents.which,
        "env_steps": agents.env_steps.tolist(),
        "eval_seed": eval_seed,
        # The best ones were chosen by their evaluations in training: on the same starts they would look too good.
        "chosen_on_these_starts": agents.which == "best" and eval_seed == settings.config.eval_seed,
        "env": settings.config.env,
        "episodes": episodes,
        "epsilon": epsilon,
        "seeds": list(settings.seeds),
        "mean_return": means.tolist(),
        "worst_return": returns.min(axis=1).tolist(),
        "mean_length": np.asarray(result.lengths).mean(axis=1).tolist(),
        "mean": float(means.mean()),
        "interval95": [None if np.isnan(end) else float(end) for end in (low, high)],
    }


def median_lane(final_returns: ArrayLike) -> int:
    """The lane with the median final evaluation (the lower of the middle two)."""
    final = np.asarray(final_returns, np.float64)
    return int(np.argsort(final)[(len(final) - 1) // 2])


def film_title(driver: Driver, who: str) -> str:
    """What is above a film of `who`."""
    return f"{driver.spec.name}, {who}"


def record_run(
    find: Callable[[], Agents], output: Path, *, seed: int | None, random: bool, start: int, q_values: bool
) -> tuple[float, int, str]:
    """Film one episode of an agent, or of a random policy.

    Args:
      find: gives the agents; called once all else is known to be possible.
      output: the film, .gif or .mp4.
      seed: whose (None: of the one with the median final evaluation).
      random: film a random policy in their environment instead.
      start: seed of the episode's start.
      q_values: draw those of all actions beside the picture.

    Returns:
      Its return, the number of frames, and who.

    Raises:
      ConfigError: for what is not possible.
    """
    check_seed("start", start)
    write.check_suffix(output)
    files.check_writable(output, "output")
    if q_values and random:
        raise ConfigError("q_values: a random policy has none; leave out one of the two.")
    agents = find()
    settings, driver, params = agents.settings, agents.driver, agents.params
    if seed is not None and seed not in settings.seeds:
        raise ConfigError(f"seed: {agents.whose} has no seed {seed}; it has {', '.join(map(str, settings.seeds))}.")
    if not driver.can_film():
        raise ConfigError(
            f"run: {settings.config.env} cannot be drawn; classic control, MinAtar, grids and what EnvPool renders can."
        )
    lane = settings.seeds.index(seed) if seed is not None else median_lane(_final_returns(agents))
    own = None if random else jax.tree.map(lambda x: x[lane], params)
    who = told = "random policy"
    if not random:
        who = f"seed {settings.seeds[lane]}"
        told = f"{who}, {agents.describe(lane)}"
        who += f", its best ({agents.env_steps[lane]:,} steps)" if agents.which == "best" else ""
    with files.clear_errors(output, "try again", "output"):
        return *film_policy(driver, own, output, start=start, title=film_title(driver, who), q_values=q_values), told


def _final_returns(agents: Agents) -> np.ndarray:
    """`[L]`, of each agent's evaluation in training, NaN where none is known."""
    if agents.eval_return is not None:
        return agents.eval_return
    summary = None if agents.run is None else load_summary(agents.run)
    final = (summary or {}).get("final_eval_return") or []
    return (
        np.array(final, np.float64) if len(final) == len(agents.env_steps) else np.full(len(agents.env_steps), np.nan)
    )


def film_policy(
    driver: Driver, params: Params | None, output: Path, *, start: int, title: str, q_values: bool = False
) -> tuple[float, int]:
    """Film one episode (random, if `params` is None) from start `start`; gives return and frame count.

    Agents are greedy, and in a pool explore as its evaluations do. `q_values` draws theirs beside the picture.
    """
    film = driver.film(params, start=start, title=title, suffix=output.suffix, q_values=q_values)
    write.write_film(output, film.frames, fps=film.fps)
    return film.episode_return, film.length
