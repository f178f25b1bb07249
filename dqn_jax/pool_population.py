"""A population whose environments are in a host pool; to `train` it looks like any other.

While the pool's threads step the environments, the device learns: receive, act, send, learn. Only the newest frame of
each environment goes to the device, and one action comes back.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax.agent import UpdateInfo
from dqn_jax.config import Config, ConfigError, HParams
from dqn_jax.devices import free_memory, size_text
from dqn_jax.envs import Pool, PoolOutput, make_pool
from dqn_jax.evaluate import Evaluation
from dqn_jax.loop import ChunkMetrics, WarmupMetrics, trainings_due
from dqn_jax.pool_loop import PoolLaneState, PoolLoop
from dqn_jax.population import stack_hparams
from dqn_jax.prng import key_data, make_key, wrap_key_data
from dqn_jax.types import FrameRow, Params

Blocks = list[Any]  # trees with leaves [block_size, ...], one after another


class PoolLayout(NamedTuple):
    """L lanes in blocks that act and learn under one `vmap`: all of them, or on CPU each on its own.

    Batched over lanes, a convolution has weights of its own for each, which is slow on CPU.
    """

    lanes: int
    block_size: int

    def place(self, tree: Any) -> Blocks:
        """Put leaves `[L, ...]` from the host on the device."""
        cuts = range(0, self.lanes, self.block_size)
        return [jax.tree.map(lambda x, cut=cut: jnp.asarray(x[cut : cut + self.block_size]), tree) for cut in cuts]

    def fetch(self, tree: Any, lanes: np.ndarray) -> Any:
        """Leaves `[n, ...]` of the lanes `[n]`, on the host, of blocks or of leaves `[L, ...]`; keys stay keys."""

        def get(*parts: Any) -> Any:
            if jax.dtypes.issubdtype(parts[0].dtype, jax.dtypes.prng_key):
                return wrap_key_data(np.concatenate([np.asarray(key_data(x)) for x in parts])[lanes])
            whole = np.asarray(parts[0]) if len(parts) == 1 else np.concatenate([np.asarray(x) for x in parts])
            return whole[lanes]

        return jax.tree.map(get, *tree) if isinstance(tree, list) else jax.tree.map(get, tree)

    def active(self, lanes: np.ndarray) -> np.ndarray:
        """The lanes `[n]` that a chunk advances."""
        return lanes


class Timeline:
    """Where the host's seconds went."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Count from here."""
        self.environment = 0.0  # waiting for the pool
        self.device = 0.0  # waiting for actions: for what is still being learnt, the frames' way there, and acting
        self.host = 0.0  # all else


class PoolPopulation:
    """The compiled programs for L lanes, and the pool that they share; used as `population.Population` is.

    The lanes' games differ by their seeds alone: a lane does not depend on its neighbours.
    """

    def __init__(self, loop: PoolLoop, hparams: HParams, seeds: Sequence[int], *, from_weights: bool = False):
        lanes = len(seeds)
        block = 1 if jax.default_backend() == "cpu" else lanes
        self.loop = loop
        self.layout = PoolLayout(lanes, block)
        self.timeline = Timeline()
        self._seeds = tuple(int(seed) for seed in seeds)
        self.pool: Pool | None = None
        began = time.perf_counter()

        def shaped(shape: tuple[int, ...], dtype: Any) -> Any:
            return jax.ShapeDtypeStruct(shape, dtype)

        example = jax.tree.map(lambda x: shaped((block, *x.shape[1:]), x.dtype), stack_hparams(hparams, lanes))
        seed, count = shaped((block,), jnp.int32), shaped((), jnp.int32)
        weights = None
        if from_weights:
            weights = jax.eval_shape(jax.vmap(lambda seed, h: loop.agent.init(make_key(seed), h).params), seed, example)
        start = self._over_lanes(loop.start)
        state = jax.eval_shape(start, seed, example, weights)
        self.lane_shapes: PoolLaneState = jax.tree.map(lambda x: shaped((lanes, *x.shape[1:]), x.dtype), state)
        _check_memory(self.lane_shapes, loop.config, lanes)
        envs = (block, loop.config.num_envs)
        flag = shaped(envs, bool)
        row = FrameRow(
            frame=shaped((*envs, *loop.frame_shape), loop.spec.obs_dtype),
            action=shaped(envs, jnp.int32),
            reward=shaped(envs, jnp.float32),
            terminated=flag,
            truncated=flag,
            first=flag,
        )
        self._start = jax.jit(start).lower(seed, example, weights).compile()
        act = jax.jit(self._over_lanes(loop.act, shared=1), donate_argnums=1)
        self._act = act.lower(count, state, row, flag, example).compile()
        learn = jax.jit(self._over_lanes(loop.learn, shared=1), donate_argnums=1)
        self.learn = learn.lower(count, state, example).compile()
        self.compile_seconds = time.perf_counter() - began

    def _over_lanes(self, function: Callable[..., Any], shared: int = 0) -> Callable[..., Any]:
        """`function` of one lane as one of a block; the first `shared` arguments are the same for all."""
        if self.layout.block_size > 1:
            return lambda *a: jax.vmap(functools.partial(function, *a[:shared]))(*a[shared:])

        def one(*arguments: Any) -> Any:
            own = jax.tree.map(lambda x: x.reshape(x.shape[1:]), arguments[shared:])
            return jax.tree.map(lambda x: x[None], function(*arguments[:shared], *own))

        return one

    def start(
        self, seeds: Sequence[int], hparams: HParams, weights: Params | None = None
    ) -> tuple[Blocks, WarmupMetrics]:
        """Fresh lanes from `seeds` (`[L]`), `hparams` (leaves `[L]`) and, if given, `weights`, and their warm-up."""
        inputs = self.layout.place((np.asarray(seeds, np.int32), stack_hparams(hparams, len(seeds)), weights))
        lanes = [self._start(*block) for block in inputs]
        placed = [block[1] for block in inputs]
        iterations = self.loop.warmup_steps // self.loop.config.num_envs
        records = self.advance(0, iterations, lanes, placed, learning=False)
        return lanes, WarmupMetrics(records.epsilon, records.episode_return)

    def chunk(self, env_steps: Any, lanes: Blocks, hparams: Blocks, active: np.ndarray) -> tuple[Blocks, ChunkMetrics]:
        """Advance the lanes by one chunk, then evaluate; donates `lanes`."""
        iterations = self.loop.steps_per_chunk // self.loop.config.num_envs
        lanes = list(lanes)
        records = self.advance(int(env_steps), iterations, lanes, hparams, learning=True)
        finite: Any = records.finite & np.concatenate([_all_finite(block.agent.params) for block in lanes])
        config = self.loop.config
        played = [
            evaluate_pool(
                self.loop,
                block.agent.params,
                episodes=config.eval_episodes,
                epsilon=config.eval_epsilon,
                seed=config.eval_seed,
            )
            for block in lanes
        ]
        info = UpdateInfo(*records.means.T)
        returns: Any = np.concatenate([one.returns for one in played])
        lengths: Any = np.concatenate([one.lengths for one in played])
        return lanes, ChunkMetrics(
            loss=info.loss,
            td_error=info.td_error,
            q_mean=info.q_mean,
            finite=finite,
            epsilon=records.epsilon,
            updates=records.updates,
            episode_return=records.episode_return,
            eval_returns=returns,
            eval_lengths=lengths,
        )

    def advance(self, env_steps: int, iterations: int, lanes: Blocks, hparams: Blocks, *, learning: bool) -> _Records:
        """So many vector steps of all lanes, in place; the pool is left stepping its last actions."""
        config, loop = self.loop.config, self.loop
        records = _Records(self.layout.lanes, iterations, config.num_envs)
        sums: Blocks = [0.0] * len(lanes)
        made = 0
        learnt = np.concatenate([np.asarray(block.agent.updates) for block in lanes])
        for i in range(iterations):
            steps = env_steps + i * config.num_envs
            began = time.perf_counter()
            output = self._receive(env_steps)
            received = time.perf_counter()
            actions, epsilons = self.act_on(output, steps, lanes, hparams)
            assert self.pool is not None
            self.pool.send(actions)
            acted = time.perf_counter()
            trainings = trainings_due(config, steps - loop.warmup_steps) if learning else 0
            if trainings:
                made += trainings * config.updates_per_train
                for b, block in enumerate(lanes):  # the pool steps meanwhile
                    lanes[b], new = self.learn(np.int32(trainings), block, hparams[b])
                    sums[b] = sums[b] + new
            records.add(i, output, epsilons, learnt + made)
            self.timeline.environment += received - began
            self.timeline.device += acted - received
            self.timeline.host += time.perf_counter() - acted
        if made:
            totals = np.concatenate([np.asarray(x) for x in sums])
            records.finite, records.means = np.isfinite(totals).all(axis=1), totals / made
        return records

    def _receive(self, env_steps: int) -> PoolOutput:
        if self.pool is None:
            # A run that is resumed starts fresh games, and not those that it began with.
            seeds = [int(np.random.SeedSequence([seed, env_steps]).generate_state(1)[0]) for seed in self._seeds]
            self.pool = make_pool(self.loop.config, self.loop.config.num_envs, seeds)
            return self.pool.reset()
        return self.pool.recv()

    def act_on(
        self, output: PoolOutput, env_steps: int, lanes: Blocks, hparams: Blocks
    ) -> tuple[np.ndarray, np.ndarray]:
        """Store a row and act on it, in place: actions of all environments, and exploration `[L]`."""
        envs = self.loop.config.num_envs

        def of_block(x: np.ndarray, b: int) -> Any:
            size = self.layout.block_size * envs
            return x[b * size : (b + 1) * size].reshape(self.layout.block_size, envs, *x.shape[1:])

        frames = output.frame.reshape(-1, *self.loop.frame_shape)
        action: Any = np.zeros((self.layout.block_size, envs), np.int32)  # chosen in the program
        acted = []
        for b, block in enumerate(lanes):
            row = FrameRow(
                of_block(frames, b),
                action,
                *(of_block(x, b) for x in (output.reward, output.terminated, output.truncated, output.first)),
            )
            over = of_block(output.game_over, b)
            lanes[b], chosen, epsilon = self._act(np.int32(env_steps), block, row, over, hparams[b])
            acted.append((chosen, epsilon))
        actions = np.concatenate([np.asarray(chosen).reshape(-1) for chosen, _ in acted])
        return actions, np.concatenate([np.asarray(epsilon) for _, epsilon in acted])


def _all_finite(params: Params) -> np.ndarray:
    """`[L]`, bool, for networks with leaves `[L, ...]`."""
    return np.all([np.isfinite(np.asarray(w)).reshape(len(w), -1).all(axis=1) for w in jax.tree.leaves(params)], axis=0)


def _check_memory(shapes: PoolLaneState, config: Config, lanes: int) -> None:
    needed = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes.replay))
    free = free_memory(jax.local_devices()[:1])
    if needed > free:
        fits = int(config.replay_capacity * 0.9 * free / needed)
        each = f" for each of {lanes} seeds" if lanes > 1 else ""
        raise ConfigError(
            f"replay_capacity: {config.replay_capacity:,} transitions{each} take {size_text(needed)}, and "
            f"{size_text(free)} are free; about {fits:,} fit."
        )


class _Records:
    """What the metrics of a chunk are made of."""

    def __init__(self, lanes: int, iterations: int, num_envs: int):
        self.epsilon: Any = np.zeros((lanes, iterations), np.float32)
        self.updates: Any = np.zeros((lanes, iterations), np.int32)
        self.episode_return: Any = np.full((lanes, iterations, num_envs), np.nan, np.float32)
        self.means: Any = np.full((lanes, len(UpdateInfo._fields)), np.nan, np.float32)  # over the updates, if any
        self.finite = np.ones(lanes, bool)

    def add(self, i: int, output: PoolOutput, epsilon: np.ndarray, updates: np.ndarray) -> None:
        self.epsilon[:, i], self.updates[:, i] = epsilon, updates
        ended = np.where(output.game_over, output.episode_return, np.float32(np.nan))
        self.episode_return[:, i] = ended.reshape(len(self.epsilon), -1)


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
    pool = make_pool(loop.config, episodes, [seed] * lanes, evaluation=True)
    key = make_key(seed)
    shape = (lanes, episodes)
    obs = jnp.zeros((*shape, *loop.spec.obs_shape), loop.spec.obs_dtype)
    done = np.zeros(lanes * episodes, bool)
    returns: Any = np.zeros(done.shape, np.float32)
    lengths: Any = np.zeros(done.shape, np.int32)
    output, step = pool.reset(), 0
    while True:
        ended = output.game_over & ~done
        returns[ended], lengths[ended] = output.episode_return[ended], output.episode_length[ended]
        done |= ended
        if done.all():
            break
        frame = output.frame.reshape(*shape, *loop.frame_shape)
        first, step_key = output.first.reshape(shape), jax.random.fold_in(key, step)
        obs, actions = loop.play(params, obs, frame, first, np.float32(epsilon), step_key)
        pool.send(np.asarray(actions).reshape(-1))
        output, step = pool.recv(), step + 1
    pool.close()
    return Evaluation(returns.reshape(shape), lengths.reshape(shape))
