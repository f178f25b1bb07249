"""Evaluation in pools: whole games from the same starts, each environment's first.

A policy that has learnt little can run an Atari game in circles up to its limit of half an hour, and one such game
holds up all others. One in which five minutes have passed without a point counts as stuck and is over, with its score
so far: the rule of Toromanoff et al. 2019 (SABER, arXiv 1908.04683).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dqn_jax.envs import make_pool
from dqn_jax.envs.pool_tasks import is_atari
from dqn_jax.lanes.evaluation import Evaluation
from dqn_jax.lanes.pool import PoolLoop
from dqn_jax.lanes.pool_layout import Blocks, PoolLayout
from dqn_jax.prng import make_key
from dqn_jax.types import Params

_STUCK_FRAMES = 18_000  # five minutes


def evaluate_pool(loop: PoolLoop, params: Params, *, episodes: int, epsilon: float, seed: int) -> Evaluation:
    """Play each environment's first whole game with each of L networks, all from the same starts.

    Args:
      loop: whose environment and agent are used.
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
    blocks = PoolLayout(lanes, block_size, devices).place(params)
    played = evaluate_blocks(loop, blocks, episodes=episodes, epsilon=epsilon, seed=seed)
    assert played is not None  # nobody stops it
    returns: Any = np.concatenate([one.returns for one in played])
    lengths: Any = np.concatenate([one.lengths for one in played])
    return Evaluation(returns, lengths)


def evaluate_blocks(
    loop: PoolLoop,
    blocks: Blocks,
    *,
    episodes: int,
    epsilon: float,
    seed: int,
    stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[int, int], None] = lambda ended, games: None,
) -> list[Evaluation] | None:
    """As `evaluate_pool`, of networks in blocks; the devices that they are on play side by side.

    Asked `stop` after every step, it may end without a result, None. `on_step` is told how many games have ended.
    """
    games = [_Games(loop, params, episodes, seed) for params in blocks]
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
    return [Evaluation(block.returns, block.lengths) for block in games]


class _Games:
    """First games of a block of L networks, in a pool of their own."""

    def __init__(self, loop: PoolLoop, params: Params, episodes: int, seed: int):
        lanes = len(jax.tree.leaves(params)[0])
        self._loop, self._params, self._shape = loop, params, (lanes, episodes)
        self._device = jax.tree.leaves(params)[0].device
        obs = np.zeros((*self._shape, *loop.spec.obs_shape), loop.spec.obs_dtype)
        self._obs: Any = jax.device_put(obs, self._device)
        self._pool = make_pool(loop.config, episodes, [seed] * lanes, evaluation=True)
        self._output = self._pool.reset()
        self._score: Any = np.zeros(self._shape, np.float32)
        self._idle = np.zeros(self._shape, np.int32)  # steps since it changed
        self._patience = _STUCK_FRAMES // loop.config.action_repeat if is_atari(loop.spec.name) else np.inf
        self.done = np.zeros(self._shape, bool)
        self.returns: Any = np.zeros(self._shape, np.float32)
        self.lengths: Any = np.zeros(self._shape, np.int32)

    def act(self, epsilon: Any, key: Any) -> None:
        """Begin to choose actions."""
        frame = self._output.frame.reshape(*self._shape, *self._loop.frame_shape)
        first = self._output.first.reshape(self._shape)
        key = jax.device_put(key, self._device)
        self._obs, self._actions = self._loop.play(self._params, self._obs, frame, first, epsilon, key)

    def step(self) -> None:
        """Take them, and note the games that end; after the last one the pool is closed."""
        self._pool.send(np.asarray(self._actions).reshape(-1))
        self._output = output = self._pool.recv()
        score = output.episode_return.reshape(self._shape)
        self._idle = np.where(score == self._score, self._idle + 1, 0)
        self._score = score
        over = output.game_over.reshape(self._shape) | (self._idle >= self._patience)
        ended = over & ~self.done
        self.returns[ended] = score[ended]
        self.lengths[ended] = output.episode_length.reshape(self._shape)[ended]
        self.done |= ended
        if self.done.all():
            self.close()

    def close(self) -> None:
        """End the pool."""
        self._pool.close()
