"""EnvPool environments on the host: names, options, and the rows a learner gets from a pool of them.

EnvPool (Weng et al. 2022, arXiv 2206.10558) steps many environments in C++ threads. It resets in the *next* step:
after the last row of an episode comes a row that only begins the next one. Its action is ignored and its reward is 0;
`PoolOutput.first` marks it, and it is no transition. `send` returns at once and `recv` waits, so that a learner can
work in between. Asynchronously, `recv` waits for the first few environments that are ready, and `send` is for these.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dqn_jax.config import ConfigError, PoolSettings, RunError, asynchronous
from dqn_jax.devices import cpu_cores
from dqn_jax.envs.pool_options import FOR_EYES, options_for
from dqn_jax.envs.pool_tasks import (
    ATARI,
    PREFIX,
    default_options,
    families,
    first_line,
    is_atari,
    load_envpool,
    resolve_pool_env,
    spaces_of,
)
from dqn_jax.types import EnvSpec

_CHANNELS_FIRST = (ATARI, "envpool.vizdoom")  # as which these give images; others have an option or need none
_USUAL_KEY = "image"  # of several arrays: what MiniGrid's agent sees, codes of objects, colours and states


class PoolOutput(NamedTuple):
    """One row of every environment, in their order. Arrays are NumPy's; `N` is environments.

    Asynchronously, one row of each of the `pool_batch` environments that were ready, in any order.
    """

    frame: np.ndarray  # [N, *frame_shape], the spec's dtype, the newest frame alone
    reward: np.ndarray  # [N], float32, as learnt from (after shift, terminal_reward, scaling and clipping)
    terminated: np.ndarray  # [N], bool, the bootstrap stops here: game over, or a life lost if life_loss says so
    truncated: np.ndarray  # [N], bool, the time limit ended the episode (of Atari: and nothing else did)
    first: np.ndarray  # [N], bool, the row begins an episode: no transition, its action was ignored
    game_over: np.ndarray  # [N], bool, the logged episode ended here: game over or time limit, never a life lost
    episode_return: np.ndarray  # [N], float32, raw score of the whole game so far, this row included
    episode_length: np.ndarray  # [N], int32, frames of the whole game so far: agent steps times action_repeat
    env_id: np.ndarray  # [N], int32, the environments: 0, 1, ... but asynchronously


def pool_seeds(seed: int, num_envs: int) -> list[int]:
    """Seeds of the environments of a pool, each in 1 to 2**31 - 1.

    Environment i takes word i of NumPy's `SeedSequence(seed)`, whatever the number of environments. With EnvPool's
    own rule, `seed + i`, the pools of neighbouring seeds would have all environments but one in common.
    """
    words = np.random.SeedSequence(seed).generate_state(num_envs) >> 1  # EnvPool's seeds are int32
    return [max(int(word), 1) for word in words]


def make_pool(
    config: PoolSettings, num_envs: int, seed: int | Sequence[int], *, evaluation: bool = False, pictures: bool = False
) -> Pool:
    """Start a pool of `num_envs` environments for each seed. Those of equal seeds give the same rows.

    Args:
      config: its fields on environments and pools are read.
      num_envs: environments of each seed; `config.num_envs` is not read.
      seed: 0 or more, or several, whose environments follow one another; see `pool_seeds`. One where the pool is
        asynchronous.
      evaluation: play whole games, whatever `life_loss` says, all step by step, whatever `pool_batch` says.
      pictures: for `Pool.picture`; the frames are no observations then, all else is as without.

    Raises:
      ConfigError: for an unknown name or option, or one that the environment does not have.
    """
    name = resolve_pool_env(config.env)
    task = name.removeprefix(PREFIX)
    options = options_for(config, name, default_options(task))
    if evaluation and "episodic_life" in options:
        options["episodic_life"] = False
    if pictures:
        options |= FOR_EYES if is_atari(name) else {"render_mode": "rgb_array"}
    words = [word for s in ([seed] if isinstance(seed, int) else seed) for word in pool_seeds(s, num_envs)]
    threads = min(len(words), config.pool_threads or cpu_cores())
    try:
        env = load_envpool().make(
            task,
            env_type="gymnasium",
            num_envs=len(words),
            batch_size=config.pool_batch if asynchronous(config) and not evaluation else len(words),
            num_threads=threads,
            seed=words,
            **options,
        )
    except Exception as error:
        raise ConfigError(f"pool_options: EnvPool cannot make {name} so: {first_line(error)}.") from error
    return Pool(env, name, config, evaluation=evaluation)


def _observed(space: Any, config: PoolSettings, name: str) -> tuple[tuple[str, ...], Any]:
    """The array that the agent sees: the keys that lead to it in what EnvPool gives, and its space."""
    arrays = _arrays(space)
    if () in arrays:
        if config.obs_key is not None:
            raise ConfigError(f"obs_key: {name} gives one array; leave it out.")
        return (), space
    keys = tuple((_USUAL_KEY if config.obs_key is None else config.obs_key).split("."))
    if keys not in arrays:
        given = "several arrays" if config.obs_key is None else f"no '{config.obs_key}'"
        raise ConfigError(f"obs_key: {name} gives {given}; use one of {', '.join('.'.join(keys) for keys in arrays)}.")
    return keys, arrays[keys]


def _arrays(space: Any, keys: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The spaces of single arrays in `space`, by the keys that lead to them."""
    from gymnasium import spaces

    if not isinstance(space, spaces.Dict):
        return {keys: space}
    return {path: one for key, inner in space.items() for path, one in _arrays(inner, (*keys, key)).items()}


def _observations(
    space: Any, channels_first: bool, stacked: bool
) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[int, ...], Any]:
    """How EnvPool's observations `[N, ...]` become frames `[N, *frame_shape]`, and their shape and dtype.

    The stack of grey frames takes the place of their one channel; where nothing is stacked, they keep it.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        states, start = int(space.n), int(space.start)
        table = np.eye(states, dtype=np.float32)
        return (lambda obs: table[obs - start]), (states,), jnp.float32
    if channels_first:
        channels, *size = space.shape
        if channels == 1 and stacked:
            return (lambda obs: obs[:, 0]), tuple(size), jnp.uint8
        return (lambda obs: np.moveaxis(obs, 1, -1)), (*size, channels), jnp.uint8
    dtype = jnp.uint8 if space.dtype == np.uint8 or isinstance(space, spaces.MultiBinary) else jnp.float32
    return (lambda obs: obs.astype(dtype, copy=False)), tuple(space.shape), dtype


class Pool:
    """Environments that threads of the host step: `reset` once, then `send` and `recv` in turn.

    Attributes:
      spec: the environment as the agent sees it. Atari's observations are uint8, `[size, size, frame_stack]`, in
        colour `[size, size, 3, frame_stack]`; others have the task's own shape, discrete ones are one-hot. Where
        nothing is stacked, an observation is a frame. `max_episode_steps` is in emulator frames.
      frame_shape: of one frame, before stacking: `[size, size]` or `[size, size, 3]`; grey ones that are not stacked
        have their one channel, `[size, size, 1]`.
    """

    def __init__(self, env: Any, name: str, config: PoolSettings, *, evaluation: bool) -> None:
        self._env = env
        self._config = config
        self._atari = is_atari(name)
        self._life_loss = "ignore" if evaluation else config.life_loss
        actions, observations = spaces_of(env)
        self._first_action = int(actions.start)
        self._keys, observed = _observed(observations, config, name)
        channels_first = families()[name.removeprefix(PREFIX)] in _CHANNELS_FIRST
        stacked = config.frame_stack > 1
        self._encode, self.frame_shape, dtype = _observations(observed, channels_first, stacked)
        self.spec = EnvSpec(
            name=name,
            obs_shape=(*self.frame_shape, config.frame_stack) if stacked else self.frame_shape,
            obs_dtype=dtype,
            num_actions=int(actions.n),
            max_episode_steps=env.config["max_episode_steps"] * config.action_repeat,
        )

    def reset(self) -> PoolOutput:
        """Begin a new game everywhere: each environment's next row is `first`. Not between `send` and `recv`.

        Raises:
          RunError: if EnvPool fails.
        """
        envs = len(self._env)
        self._done, self._game_over = np.ones(envs, bool), np.ones(envs, bool)
        self._lives = np.zeros(envs, np.int32)
        self._return, self._steps = np.zeros(envs, np.float32), np.zeros(envs, np.int32)
        with self._one_line():
            self._env.async_reset()
        return self.recv()

    def send(self, actions: np.ndarray) -> None:
        """Hand `actions` `[N]` (integers below `spec.num_actions`) for the last row to the threads; return at once.

        Raises:
          ValueError: for other actions; EnvPool would read beyond its table.
          RunError: if EnvPool fails.
        """
        actions = np.asarray(actions)
        if actions.shape != self._envs.shape or actions.min() < 0 or actions.max() >= self.spec.num_actions:
            raise ValueError(f"actions are {len(self._envs)} integers from 0 to {self.spec.num_actions - 1}")
        with self._one_line():
            self._env.send(actions + self._first_action, self._envs)

    def recv(self) -> PoolOutput:
        """Wait for the rows that the last `send` leads to, or asynchronously for any that are ready.

        Raises:
          RunError: if EnvPool fails.
        """
        with self._one_line():
            obs, reward, ended, limit, info = self._env.recv()
        return self._output(obs, reward, ended, limit, info)

    def picture(self) -> np.ndarray:
        """The first environment of a pool made with `pictures`, at the newest row: `[H, W, 3]` uint8.

        Atari's are the maximum of the last two emulator frames, for many games draw a thing in every second one only:
        the laser of Space Invaders is in none of those that EnvPool's own `render` shows.

        Raises:
          ConfigError: if EnvPool cannot draw it.
        """
        if self._atari:
            return self._newest[0].transpose(1, 2, 0)
        try:
            return self._env.render()[0]
        except Exception as error:
            raise ConfigError(f"env: {self.spec.name} cannot be drawn: {first_line(error)}.") from error

    def close(self) -> None:
        """End the pool's threads and its emulators."""
        self._env.close()
        del self._env  # its destructor joins them

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise RunError(f"env: EnvPool failed at {self.spec.name}: {first_line(error)}.") from error

    def _output(
        self, obs: Any, reward: np.ndarray, ended: np.ndarray, limit: np.ndarray, info: dict[str, np.ndarray]
    ) -> PoolOutput:
        """The row in EnvPool's arrays; `ended` is an end before the time limit, `limit` any end at it."""
        self._envs = envs = info["env_id"]
        first, new_game = self._done[envs], self._game_over[envs]
        self._newest = obs
        # What ended at the limit EnvPool calls truncated, whatever else happened; only Atari says if the game is over.
        over = info["terminated"].astype(bool) if self._atari else ended
        terminated = over
        if self._atari:
            lost = ~first & (info["lives"] < self._lives[envs])
            self._lives[envs] = info["lives"]
            if self._life_loss == "bootstrap":
                terminated = over | lost
            elif self._life_loss == "episode":
                terminated = ended | (limit & (over | lost))
        truncated = limit & ~terminated
        if self._config.time_limit_terminates:
            terminated, truncated = terminated | truncated, np.zeros_like(truncated)
        self._done[envs], self._game_over[envs] = ended | limit, over | limit
        self._return[envs] = np.where(new_game, np.float32(0.0), self._return[envs] + reward)
        self._steps[envs] = np.where(new_game, np.int32(0), self._steps[envs] + ~first)
        return PoolOutput(
            frame=self._encode(functools.reduce(lambda inner, key: inner[key], self._keys, obs)),
            reward=self._learnt_reward(reward, terminated),  # EnvPool's is 0 where a row only begins
            terminated=terminated,
            truncated=truncated,
            first=first,
            game_over=self._game_over[envs],
            episode_return=self._return[envs],
            episode_length=self._steps[envs] * np.int32(self._config.action_repeat),
            env_id=envs,
        )

    def _learnt_reward(self, reward: np.ndarray, terminated: np.ndarray) -> np.ndarray:
        config = self._config
        if config.reward_shift:
            reward = reward + np.float32(config.reward_shift)
        if config.terminal_reward is not None:
            reward = np.where(terminated, np.float32(config.terminal_reward), reward)
        reward = reward * np.float32(config.reward_scale)
        return reward if config.reward_clip is None else np.clip(reward, -config.reward_clip, config.reward_clip)
