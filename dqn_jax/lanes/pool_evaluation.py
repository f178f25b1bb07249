"""Evaluation in pools: whole games from the same starts, each environment's first.

A policy that has learnt little can run an Atari game in circles up to its limit of half an hour, and one such game
holds up all others. One in which five minutes have passed without a point counts as stuck and is over, with its score
so far: the rule of Toromanoff et al. 2019 (SABER, arXiv 1908.04683).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax.agent import Agent, make_agent
from dqn_jax.config import Config
from dqn_jax.envs import make_pool
from dqn_jax.envs.pool_tasks import is_atari
from dqn_jax.lanes.evaluation import Evaluation
from dqn_jax.lanes.lane import host_array
from dqn_jax.lanes.layout import BlockLayout, Blocks
from dqn_jax.prng import make_key
from dqn_jax.replay import stack_push
from dqn_jax.types import EnvSpec, Key, Obs, Params

_STUCK_FRAMES = 18_000  # five minutes


class PoolChoose(Protocol):
    """Actions of L networks (leaves `[L, ...]`), each in E environments; donates `obs`.

    Args:
      params: the networks.
      obs: `[L, E, *obs_shape]`, what was acted on last.
      frame: `[L, E, *frame_shape]`, the newest frames.
      first: `[L, E]`, bool, whether they begin an episode.
      epsilon: `[]`, exploration.
      key: of one step.

    Returns:
      What is acted on, `[L, E, *obs_shape]`, and the actions, `[L, E]` int32.
    """

    def __call__(
        self, params: Params, obs: Obs, frame: np.ndarray, first: np.ndarray, epsilon: np.float32, key: Key
    ) -> tuple[Obs, jax.Array]: ...


class PoolPlayer(NamedTuple):
    """What it takes to play games in pools: no replay, no population."""

    config: Config
    spec: EnvSpec
    frame_shape: tuple[int, ...]  # of what the pool gives, before stacking
    agent: Agent
    choose: PoolChoose


def make_player(config: Config) -> PoolPlayer:
    """Find out what the pool of `config` gives, and build an agent for it.

    Raises:
      ConfigError: as `make_pool` and `make_agent`.
    """
    pool = make_pool(config, 1, [0], evaluation=True)  # its spaces are known once it exists
    spec, frame_shape = pool.spec, pool.frame_shape
    pool.close()
    agent = make_agent(config, spec)

    def one(
        params: Params, obs: Obs, frame: jax.Array, first: jax.Array, epsilon: jax.Array, key: Key
    ) -> tuple[Obs, jax.Array]:
        obs = stack_push(obs, frame, first)
        return obs, agent.play(params, obs, epsilon, key)

    def choose(
        params: Params, obs: Obs, frame: jax.Array, first: jax.Array, epsilon: jax.Array, key: Key
    ) -> tuple[Obs, jax.Array]:
        own = params, obs, frame, first
        if obs.shape[0] == 1:  # batched over networks, convolutions are slow on CPU
            alone = jax.tree.map(lambda x: x.reshape(x.shape[1:]), (*own, epsilon[None], key[None]))
            return jax.tree.map(lambda x: x[None], one(*alone))
        return jax.vmap(one, in_axes=(0, 0, 0, 0, None, None))(*own, epsilon, key)

    return PoolPlayer(config, spec, frame_shape, agent, jax.jit(choose, donate_argnums=1))


def evaluate_pool(player: PoolPlayer, params: Params, *, episodes: int, epsilon: float, seed: int) -> Evaluation:
    """Play each environment's first whole game with each of L networks, all from the same starts.

    Args:
      player: whose environment and agent are used.
      params: networks, leaves `[L, ...]`.
      episodes: games of each, E, side by side.
      epsilon: exploration.
      seed: of the games.

    Returns:
      Returns `[L, E]`, raw; lengths `[L, E]` in emulator frames.
    """
    lanes = len(jax.tree.leaves(params)[0])
    devices = tuple(jax.local_devices())
    block_size = 1 if devices[0].platform == "cpu" else lanes
    blocks = BlockLayout(lanes, block_size, devices).place(params)
    played = evaluate_blocks(player, blocks, episodes=episodes, epsilon=epsilon, seed=seed)
    assert played is not None  # nobody stops it
    return jax.tree.map(lambda *parts: np.concatenate(parts), *played)


def evaluate_blocks(
    player: PoolPlayer,
    blocks: Blocks[Params],
    *,
    episodes: int,
    epsilon: float,
    seed: int,
    stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[int, int], None] = lambda ended, games: None,
) -> list[Evaluation] | None:
    """As `evaluate_pool`, of networks in blocks; the devices that they are on play side by side.

    Asked `stop` after every step, it may end without a result, None. `on_step` is told how many games have ended, and
    of how many.
    """
    games = [_Games(player, params, episodes, seed) for params in blocks]
    key, step = make_key(seed), 0
    while playing := [block for block in games if not block.done.all()]:
        if stop():
            for block in playing:
                block.close()
            return None
        on_step(sum(int(block.done.sum()) for block in games), sum(block.done.size for block in games))
        step_key = jax.random.fold_in(key, step)
        for block in playing:
            block.act(np.float32(epsilon), step_key)
        for block in playing:
            block.step()
        step += 1
    return [block.evaluation() for block in games]


class _Games:
    """First games of a block of L networks, in a pool of their own."""

    def __init__(self, player: PoolPlayer, params: Params, episodes: int, seed: int):
        lanes = len(jax.tree.leaves(params)[0])
        self._player, self._params, self._shape = player, params, (lanes, episodes)
        self._device = jax.tree.leaves(params)[0].device
        obs = np.zeros((*self._shape, *player.spec.obs_shape), player.spec.obs_dtype)
        self._obs = jax.device_put(jnp.asarray(obs), self._device)
        self._pool = make_pool(player.config, episodes, [seed] * lanes, evaluation=True)
        self._output = self._pool.reset()
        self._score = np.zeros(self._shape, np.float32)
        self._idle = np.zeros(self._shape, np.int32)  # steps since it changed
        self._patience = _STUCK_FRAMES // player.config.action_repeat if is_atari(player.spec.name) else np.inf
        self.done = np.zeros(self._shape, bool)
        self._returns = np.zeros(self._shape, np.float32)
        self._lengths = np.zeros(self._shape, np.int32)

    def act(self, epsilon: np.float32, key: Key) -> None:
        """Begin to choose actions, without waiting for them."""
        frame = self._output.frame.reshape(*self._shape, *self._player.frame_shape)
        first = self._output.first.reshape(self._shape)
        key = jax.device_put(key, self._device)
        self._obs, self._actions = self._player.choose(self._params, self._obs, frame, first, epsilon, key)

    def step(self) -> None:
        """Take them, and note the games that end; after the last one the pool is closed."""
        self._pool.send(np.asarray(self._actions).reshape(-1))
        self._output = output = self._pool.recv()
        score = output.episode_return.reshape(self._shape)
        self._idle = np.where(score == self._score, self._idle + 1, 0)
        self._score = score
        over = output.game_over.reshape(self._shape) | (self._idle >= self._patience)
        ended = over & ~self.done
        self._returns[ended] = score[ended]
        self._lengths[ended] = output.episode_length.reshape(self._shape)[ended]
        self.done |= ended
        if self.done.all():
            self.close()

    def evaluation(self) -> Evaluation:
        """What has been noted: leaves `[L, E]`, on the host."""
        return Evaluation(host_array(self._returns), host_array(self._lengths))

    def close(self) -> None:
        """End the pool, its threads and emulators."""
        self._pool.close()
