"""Use what a run has learnt: evaluate it on new episodes, and film it."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax import checkpoint, convergence, devices, files, film, pool_film, runs
from dqn_jax.config import ConfigError
from dqn_jax.loop import Loop
from dqn_jax.paths import AnyLoop, lane_shapes, loop_for, play_agents, rows_apart
from dqn_jax.pool_loop import PoolLoop
from dqn_jax.prng import make_key
from dqn_jax.rows import without_rows
from dqn_jax.types import Key, Obs, Params


def load_agents(run: Path) -> tuple[runs.RunSettings, AnyLoop, Params]:
    """A run's settings, loop, and online networks (leaves `[L, ...]`) from its newest whole checkpoint.

    Raises:
      ConfigError: if there is no run or no checkpoint.
    """
    devices.configure()
    settings = runs.load_settings(run)
    loop = loop_for(settings.config)
    shapes = lane_shapes(loop, settings.seeds, settings.hparams)
    if rows_apart(loop, settings.config):
        shapes = without_rows(shapes)  # to play, no replay is needed
    saved = checkpoint.load(run, shapes, warn=lambda line: print(f"dqn-jax: {line}", file=sys.stderr))
    if saved is None:
        raise ConfigError(f"run: {run} has no whole checkpoint; train for longer or choose another run.")
    return settings, loop, saved[1].agent.params


def evaluate_run(path: Path, *, episodes: int, epsilon: float | None, eval_seed: int) -> dict[str, Any]:
    """Returns of `episodes` new episodes for every seed of a run."""
    if episodes < 1:
        raise ConfigError(f"episodes: {episodes} is not possible; use 1 or more.")
    if epsilon is not None and not 0.0 <= epsilon <= 1.0:
        raise ConfigError(f"epsilon: {epsilon:g} is not possible; use a probability between 0 and 1.")
    run = runs.find_run(path)
    settings, loop, params = load_agents(run)
    if epsilon is None:
        epsilon = settings.config.eval_epsilon
    result = play_agents(loop, params, episodes=episodes, epsilon=epsilon, eval_seed=eval_seed)
    returns = np.asarray(result.returns)
    means = returns.mean(axis=1)
    low, high = convergence.mean_interval(means)
    return {
        "run": str(run),
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


def median_lane(final_returns: Any) -> int:
    """The lane with the median final evaluation (the lower of the middle two)."""
    final = np.asarray(final_returns, np.float64)
    return int(np.argsort(final)[(len(final) - 1) // 2])


def can_draw(loop: AnyLoop) -> bool:
    """Whether `film_policy` can film this loop's environment."""
    return film.can_draw(loop.env) if isinstance(loop, Loop) else pool_film.can_draw(loop)


def film_title(loop: AnyLoop, who: str) -> str:
    """What is above a film of `who`."""
    return f"{(loop.env.spec if isinstance(loop, Loop) else loop.spec).name}, {who}"


def record_run(
    path: Path, output: Path, *, seed: int | None, random: bool, start: int, q_values: bool
) -> tuple[float, int]:
    """Film one episode of a run's agent (or of a random policy); gives its return and the number of frames."""
    film.check_suffix(output)
    files.check_writable(output, "output")
    if q_values and random:
        raise ConfigError("q_values: a random policy has none; leave out one of the two.")
    run = runs.find_run(path)
    settings, loop, params = load_agents(run)
    if seed is not None and seed not in settings.seeds:
        raise ConfigError(f"seed: {run} has no seed {seed}; it has {', '.join(map(str, settings.seeds))}.")
    if not can_draw(loop):
        raise ConfigError(
            f"run: {settings.config.env} cannot be drawn; classic control, MinAtar, grids and what EnvPool renders can."
        )
    if seed is None:
        summary = run / "summary.json"
        final = json.loads(summary.read_text())["final_eval_return"] if summary.is_file() else [0.0]
        lane = median_lane([np.nan if x is None else x for x in final])
    else:
        lane = settings.seeds.index(seed)
    own = None if random else jax.tree.map(lambda x: x[lane], params)
    who = "random policy" if random else f"seed {settings.seeds[lane]}"
    with files.clear_errors(output, "try again", "output"):
        return film_policy(loop, own, output, start=start, title=film_title(loop, who), q_values=q_values)


def film_policy(
    loop: AnyLoop, params: Params | None, output: Path, *, start: int, title: str, q_values: bool = False
) -> tuple[float, int]:
    """Film one episode (random, if `params` is None) from start `start`; gives return and frame count.

    Agents are greedy, and in a pool explore as its evaluations do. `q_values` draws theirs beside the picture.
    """
    if isinstance(loop, PoolLoop):
        game = pool_film.play(loop, params, start=start)
        steps = pool_film.steps_shown(game, output)
        drawn = pool_film.draw(loop, game, steps, title=title, q_values=q_values)
        film.write_film(output, drawn, fps=pool_film.frames_per_second(loop))
        return game.score, len(steps)

    def choose(obs: Obs, key: Key) -> jax.Array:
        if params is None:
            return jax.random.randint(key, (obs.shape[0],), 0, loop.env.spec.num_actions, jnp.int32)
        return jnp.argmax(loop.agent.q_values(params, obs), axis=-1)

    values = functools.partial(loop.agent.q_values, params) if q_values and params is not None else None
    episode = film.play(loop.env, choose, make_key(start), q_values=values)
    frames = film.draw(loop.env, episode, title=title)
    film.write_film(output, frames, fps=film.frames_per_second(loop.env))
    return episode.episode_return, len(frames)
