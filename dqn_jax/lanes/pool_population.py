"""A population whose environments are in host pools; to `train` and sweeps it looks like any other.

While a pool's threads step its environments, the device learns: receive, act, send, learn. Only the newest frame of
each environment goes to the device, and one action comes back. Lanes go in blocks. Those of a block share a pool, and
act and learn together under `vmap`; blocks take turns, and the devices that they are spread over work side by side.
"""

from __future__ import annotations

import concurrent.futures
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from dqn_jax.agent import UpdateInfo
from dqn_jax.config import Config, ConfigError, HParams, RunError, asynchronous, envs_per_step, own_rhythm
from dqn_jax.devices import free_memory, host_device, size_text
from dqn_jax.envs import Pool, PoolOutput, make_pool
from dqn_jax.lanes.device import ChunkMetrics, WarmupMetrics, trainings_due
from dqn_jax.lanes.lane import UNWATCHED, Watch, ring_rows, without_rows
from dqn_jax.lanes.pool import PoolLaneState, PoolLoop, PoolParts
from dqn_jax.lanes.pool_evaluation import evaluate_blocks
from dqn_jax.lanes.pool_layout import Blocks, PoolLayout
from dqn_jax.lanes.population import first_hparams, stack_hparams, temporary_bytes
from dqn_jax.prng import make_key
from dqn_jax.types import FrameRow, Params

_SECONDS_BETWEEN = 1.0  # calls of `on_step`


class Timeline:
    """Where the host's seconds go, between one `lap` and the next.

    Attributes:
      seconds: by what they were spent on: "environment", waiting for the pool; "learning", for what is still being
        learnt; "transfer", for the frames' way to the device; "acting", for actions; "host", all else.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("environment", "learning", "transfer", "acting", "host"), 0.0)
        self._last = time.perf_counter()

    def lap(self, what: str, wait_for: Any = None) -> None:
        """Put down what has passed since the last time, after waiting for arrays that are on their way."""
        jax.block_until_ready(wait_for)
        now = time.perf_counter()
        self.seconds[what] += now - self._last
        self._last = now


class _Programs(NamedTuple):
    """Those of a device, compiled for a block."""

    start: Any
    act: Any
    learn: Any
    store: Any = None  # (replay, row, envs), where replays are in the host's memory


class PoolPopulation:
    """The compiled programs for up to L lanes, and their pools; used as `population.Population` is.

    A lane does not depend on its neighbours: on CPU to the last bit, on an accelerator for blocks of one size (they
    follow the number of lanes, but for `lane_block`). A block in which no lane is at work any more costs nothing.
    """

    def __init__(
        self,
        loop: PoolLoop,
        hparams: HParams,
        lanes: int,
        devices: Sequence[jax.Device] | None = None,
        *,
        from_weights: bool = False,
        watch: Watch = UNWATCHED,
    ):
        """Compile.

        Args:
          loop: `make_pool_loop(config)`.
          hparams: says which hyperparameters there are (not None); their values are given when lanes start.
          lanes: the most lanes at once.
          devices: to spread over (default: all).
          from_weights: whether lanes start from given networks.
          watch: what is told and asked while a chunk goes on.

        Raises:
          ConfigError: if the replays do not fit into memory.
        """
        began = time.perf_counter()
        devices = tuple(devices if devices is not None else jax.local_devices())[:lanes]
        alone = devices[0].platform == "cpu" or own_rhythm(loop.config)
        each = loop.config.lane_block or (1 if alone else -(-lanes // len(devices)))
        self.loop = loop
        host = host_device() if loop.config.replay_memory == "host" else None
        self.layout = layout = PoolLayout(lanes, each, devices[: -(-lanes // each)], host)
        self.timeline: Timeline | None = None  # set to one to have it kept; the host then waits for every part in turn
        self.watch = watch
        self.unfinished: dict[str, np.ndarray] = {}  # what was noted of a chunk that was stopped within
        self.evaluation_seconds = 0.0  # that the last one took
        self.pools: dict[int, Pool] = {}  # of the blocks at work
        example = jax.tree.map(lambda x: x[0], stack_hparams(first_hparams(hparams), 1))
        seed = jax.ShapeDtypeStruct((), jnp.int32)
        weights = jax.eval_shape(lambda h: loop.agent.init(make_key(0), h).params, example) if from_weights else None
        lane = jax.eval_shape(loop.start, seed, example, weights)
        self.lane_shapes: PoolLaneState = _shapes((lanes,), lane)
        _check_memory(self.lane_shapes, loop.config, layout)

        def of_envs(dtype: Any, shape: tuple[int, ...] = ()) -> Any:
            return jax.ShapeDtypeStruct((envs_per_step(loop.config), *shape), dtype)

        flag = of_envs(bool)
        frame = of_envs(loop.spec.obs_dtype, loop.frame_shape)
        row = FrameRow(frame, of_envs(jnp.int32), of_envs(jnp.float32), flag, flag, flag)
        envs = of_envs(jnp.int32) if asynchronous(loop.config) else None

        programs = []

        def program(function: Callable[..., Any], *shapes: Any, shared: int = 0, donate: tuple[int, ...] = ()) -> Any:
            lowered = jax.jit(self._over_lanes(function, shared), donate_argnums=donate).lower(*shapes)
            programs.append(lowered.compile())
            return programs[-1]

        def compiled(device: jax.Device) -> _Programs:
            own = functools.partial(_shapes, (each,), sharding=SingleDeviceSharding(device))
            count = _shapes((), seed, SingleDeviceSharding(device))
            given = own(row), own(flag), own(envs), own(example)
            if host is None:
                return _Programs(
                    program(loop.start, own(seed), own(example), own(weights)),
                    program(loop.act, count, own(lane), *given, shared=1, donate=(1,)),
                    program(loop.learn, count, own(lane), own(example), shared=1, donate=(1,)),
                )
            parts, bare = loop.parts, own(lane._replace(replay=()))
            there = functools.partial(_shapes, (each,), sharding=SingleDeviceSharding(host))
            count_there = _shapes((), seed, SingleDeviceSharding(host))
            stored, key, discount = there(lane.replay), there(lane.key), there(example.discount)
            batch = jax.eval_shape(parts.draw, seed, lane.replay, lane.key, example.discount)
            sums = jax.ShapeDtypeStruct((len(UpdateInfo._fields),), jnp.float32)
            return _apart(
                loop,
                device,
                host,
                PoolParts(
                    fresh=program(parts.fresh, own(seed), own(example), own(weights)),
                    empty=program(parts.empty, there(seed)),
                    choose=program(parts.choose, count, bare, *given, shared=1, donate=(1,)),
                    add=program(parts.add, stored, there(row), there(envs), donate=(0,)),
                    begin=program(parts.begin, count, bare, shared=1, donate=(1,)),
                    draw=program(parts.draw, count_there, stored, key, discount, shared=1),
                    fit=program(parts.fit, own(lane.agent), own(sums), own(batch), own(example), donate=(0, 1)),
                ),
            )

        with concurrent.futures.ThreadPoolExecutor() as pool:
            self._programs = dict(zip(layout.devices, pool.map(compiled, layout.devices), strict=True))
        self.temporary_bytes = max(temporary_bytes(one) for one in programs)
        self.compile_seconds = time.perf_counter() - began

    def _over_lanes(self, function: Callable[..., Any], shared: int = 0) -> Callable[..., Any]:
        """`function` of one lane as one of a block; the first `shared` arguments are the same for all."""
        if self.layout.block_size > 1:
            return lambda *a: jax.vmap(functools.partial(function, *a[:shared]))(*a[shared:])

        def one(*arguments: Any) -> Any:
            own = jax.tree.map(lambda x: x.reshape(x.shape[1:]), arguments[shared:])
            return jax.tree.map(lambda x: x[None], function(*arguments[:shared], *own))

        return one

    def _of(self, block: int) -> _Programs:
        return self._programs[self.layout.device_of(block)]

    def start(
        self, seeds: Sequence[int], hparams: HParams, weights: Params | None = None
    ) -> tuple[Blocks, WarmupMetrics]:
        """Fresh lanes from `seeds` (`[l]`), `hparams` (leaves `[l]`) and, if given, `weights`, and their warm-up."""
        self.close()
        inputs = self.layout.place((np.asarray(seeds, np.int32), stack_hparams(hparams, len(seeds)), weights))
        lanes = [self._of(b).start(*block) for b, block in enumerate(inputs)]
        placed = [block[1] for block in inputs]
        iterations = self.loop.warmup_steps // envs_per_step(self.loop.config)
        records = Records(len(lanes), self.layout.block_size, iterations, envs_per_step(self.loop.config))
        self.advance(0, records, lanes, placed, range(len(lanes)), learning=False)
        if records.taken < iterations:
            self.close()
            raise RunError(
                f"max_minutes: they were over within the {self.loop.warmup_steps:,} environment steps before learning; "
                "allow more, or lower min_replay."
            )
        return lanes, WarmupMetrics(records.epsilon, records.episode_return)

    def chunk(
        self, env_steps: Any, lanes: Blocks, hparams: Blocks, active: np.ndarray
    ) -> tuple[Blocks, ChunkMetrics | None]:
        """Advance the lanes `active` (`[n]`, their numbers) to the end of their chunk, then evaluate; donates `lanes`.

        Metrics have leaves `[L, ...]`; those of others, and of lanes that only share a block with active ones, say
        nothing. There are none where it was stopped: then `unfinished` (arrays `[L, ...]`, and how far it came) is with
        the lanes what the same chunk goes on from, here or in a population whose `unfinished` it becomes.
        """
        config = self.loop.config
        step = envs_per_step(config)
        lanes = list(lanes)
        at_work = np.unique(active // self.layout.block_size).tolist()
        self._close(self.pools.keys() - set(at_work))
        into = (
            int(env_steps) - self.loop.warmup_steps
        ) % self.loop.steps_per_chunk  # one that was cut ended off the grid
        iterations = (self.loop.steps_per_chunk - into) // step
        records = Records(len(lanes), self.layout.block_size, iterations, step)
        records.restore(self.unfinished)
        self.advance(int(env_steps), records, lanes, hparams, at_work, learning=True)
        played = None
        if not self.watch.stop():
            began = time.perf_counter()
            params = [lanes[b].agent.params for b in at_work]
            played = evaluate_blocks(
                self.loop,
                params,
                episodes=config.eval_episodes,
                epsilon=config.eval_epsilon,
                seed=config.eval_seed,
                stop=self.watch.stop,
                on_step=_now_and_then(self.watch.on_game, int(env_steps) + records.taken * step),
            )
        if played is None:
            self.unfinished = records.arrays(self.layout.lanes)
            return lanes, None
        self.unfinished = {}
        self.evaluation_seconds = time.perf_counter() - began
        shape = (records.finite.shape[0], config.eval_episodes)
        returns: Any = np.full(shape, np.nan, np.float32)
        lengths: Any = np.zeros(shape, np.int32)
        for b, networks, evaluation in zip(at_work, params, played, strict=True):
            own = records.lanes_of(b)
            records.finite[own] &= _all_finite(networks)
            returns[own], lengths[own] = evaluation.returns, evaluation.lengths
        info = UpdateInfo(*records.means().T)
        return (
            lanes,
            ChunkMetrics(
                loss=info.loss,
                td_error=info.td_error,
                q_mean=info.q_mean,
                finite=records.finite,  # type: ignore[arg-type]
                epsilon=records.epsilon[:, : records.taken],
                updates=records.updates[:, : records.taken],
                episode_return=records.episode_return[:, : records.taken],
                eval_returns=returns,
                eval_lengths=lengths,
            ),
        )

    def advance(
        self,
        env_steps: int,
        records: Records,
        lanes: Blocks,
        hparams: Blocks,
        at_work: Sequence[int],
        *,
        learning: bool,
    ) -> None:
        """The vector steps of the blocks `at_work` that `records` has room for, in place, unless it is ended early.

        Their pools are left stepping their last actions. `env_steps` are those before the first of the records.
        """
        config, loop = self.loop.config, self.loop
        step = envs_per_step(config)
        sums: dict[int, Any] = dict.fromkeys(at_work, 0.0)
        learnt = {b: np.asarray(lanes[b].agent.updates) for b in at_work}
        made, heard = 0, time.perf_counter()
        for i in range(records.taken, records.iterations):
            if self.watch.stop() or (records.taken and self.watch.seconds_left() <= self.evaluation_seconds):
                break
            steps = env_steps + i * step
            trainings = trainings_due(config, steps - loop.warmup_steps) if learning else 0
            made += trainings * config.updates_per_train
            for b in at_work:
                self._lap("host")
                output = self._receive(b, lanes[b], steps)
                self._lap("environment")
                lanes[b], actions, epsilon = self.act_on(b, output, steps, lanes[b], hparams[b])
                self.pools[b].send(actions)
                if trainings:  # the pool steps meanwhile, and so do other blocks
                    lanes[b], new = self.learn(b, trainings, lanes[b], hparams[b])
                    sums[b] = sums[b] + new
                records.add(b, i, output, epsilon, learnt[b] + made)
            records.taken = i + 1
            if time.perf_counter() - heard >= _SECONDS_BETWEEN:
                heard = time.perf_counter()
                self.watch.on_step(steps + step)
        if made:
            records.made += made
            for b in at_work:
                totals, own = np.asarray(sums[b]), records.lanes_of(b)
                records.finite[own] &= np.isfinite(totals).all(axis=1)
                records.sums[own] += totals

    def _receive(self, block: int, lanes: PoolLaneState, env_steps: int) -> PoolOutput:
        if block in self.pools:
            return self.pools[block].recv()
        # A run that is resumed starts fresh games, and not those that it began with.
        words = [np.random.SeedSequence([int(seed), env_steps]) for seed in np.asarray(lanes.seed)]
        seeds = [int(word.generate_state(1)[0]) for word in words]
        self.pools[block] = make_pool(self.loop.config, self.loop.config.num_envs, seeds)
        return self.pools[block].reset()

    def act_on(
        self, block: int, output: PoolOutput, env_steps: int, lanes: PoolLaneState, hparams: HParams
    ) -> tuple[PoolLaneState, np.ndarray, np.ndarray]:
        """Store a row of a block and act on it: its lanes, actions of all environments, exploration `[block_size]`."""
        config = self.loop.config
        shape = (self.layout.block_size, envs_per_step(config))

        def of_lanes(x: np.ndarray) -> Any:
            return x.reshape(*shape, *x.shape[1:])

        action: Any = np.zeros(shape, np.int32)  # chosen in the program
        given = (output.reward, output.terminated, output.truncated, output.first)
        row = FrameRow(of_lanes(output.frame), action, *map(of_lanes, given))
        envs = of_lanes(output.env_id) if asynchronous(config) else None
        inputs: Any = row, of_lanes(output.game_over), envs
        if self.timeline is not None:  # else the program itself fetches them, which takes less of the host's time
            inputs = jax.device_put(inputs, self.layout.device_of(block))
            self._lap("host")
            self._lap("learning", lanes.agent)
            self._lap("transfer", inputs)
        programs = self._of(block)
        lanes, actions, epsilon = programs.act(np.int32(env_steps), lanes, *inputs, hparams)
        action, explored = np.asarray(actions), np.asarray(epsilon)
        if programs.store is not None:
            lanes = lanes._replace(replay=programs.store(lanes.replay, row._replace(action=action), envs))
        self._lap("acting")
        return lanes, action.reshape(-1), explored

    def _lap(self, what: str, wait_for: Any = None) -> None:
        if self.timeline is not None:
            self.timeline.lap(what, wait_for)

    def learn(
        self, block: int, trainings: int, lanes: PoolLaneState, hparams: HParams
    ) -> tuple[PoolLaneState, jax.Array]:
        """Begin to train a block so many times: its lanes, and sums of `UpdateInfo` `[block_size, 3]`."""
        return self._of(block).learn(np.int32(trainings), lanes, hparams)

    def go_on(self, unfinished: dict[str, np.ndarray]) -> None:
        """Let the next chunk go on from what was noted of it."""
        self.unfinished = unfinished

    def networks(self, lanes: Blocks) -> Blocks:
        """The online networks, block by block."""
        return [block.agent.params for block in lanes]

    def without_rows(self, lanes: Blocks) -> Blocks:
        """As `lane.without_rows`, block by block."""
        return [without_rows(block) for block in lanes]

    def rows(self, lanes: Blocks, first: int, count: int, among: np.ndarray) -> Blocks:
        """`count` rows of replays from number `first` on, of the blocks in which the lanes `among` `[n]` are."""
        wanted = set((among // self.layout.block_size).tolist())
        own = jnp.int32(first)
        return [ring_rows(block.replay.storage, own, count) if b in wanted else None for b, block in enumerate(lanes)]

    def close(self) -> None:
        """End the pools. Lanes that go on afterwards do so in fresh games."""
        self._close(set(self.pools))

    def _close(self, blocks: set[int]) -> None:
        for block in blocks:
            self.pools.pop(block).close()


def _apart(loop: PoolLoop, device: jax.Device, host: jax.Device, parts: PoolParts) -> _Programs:
    """The programs of a device whose replays are on `host`. It draws the next batch while the device learns from one.

    `parts` are compiled: `empty`, `add` and `draw` for the host, the others for the device.
    """

    def start(seed: jax.Array, hparams: HParams, weights: Params | None) -> PoolLaneState:
        return parts.fresh(seed, hparams, weights)._replace(replay=parts.empty(jax.device_put(seed, host)))

    def act(env_steps: Any, lane: PoolLaneState, *given: Any) -> tuple[PoolLaneState, jax.Array, jax.Array]:
        own, actions, epsilon = parts.choose(env_steps, lane._replace(replay=()), *given)
        return own._replace(replay=lane.replay), actions, epsilon

    def learn(trainings: Any, lane: PoolLaneState, hparams: HParams) -> tuple[PoolLaneState, jax.Array]:
        own, learn_key, sums = parts.begin(trainings, lane._replace(replay=()))
        key, discount = jax.device_put((learn_key, hparams.discount), host)
        learner = own.agent
        for update in range(int(trainings) * loop.config.updates_per_train):
            batch = parts.draw(np.int32(update), lane.replay, key, discount)
            learner, sums = parts.fit(learner, sums, jax.device_put(batch, device), hparams)
        return own._replace(agent=learner, replay=lane.replay), sums

    return _Programs(start, act, learn, parts.add)


def _shapes(axes: tuple[int, ...], tree: Any, sharding: Any = None) -> Any:
    """Shapes with further leading axes."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*axes, *x.shape), x.dtype, sharding=sharding), tree)


def _all_finite(params: Params) -> np.ndarray:
    """`[L]`, bool, for networks with leaves `[L, ...]`."""
    return np.all([np.isfinite(np.asarray(w)).reshape(len(w), -1).all(axis=1) for w in jax.tree.leaves(params)], axis=0)


def _check_memory(shapes: PoolLaneState, config: Config, layout: PoolLayout) -> None:
    lanes = layout.lanes
    room = -(-lanes // layout.block_size) * layout.block_size  # a last block is filled up
    needed = sum(math.prod((room, *x.shape[1:])) * x.dtype.itemsize for x in jax.tree.leaves(shapes.replay))
    free = free_memory(layout.devices if layout.host is None else [layout.host])
    if needed > free:
        fits = int(config.replay_capacity * 0.9 * free / needed)
        each = f" for each of {lanes} seeds" if lanes > 1 else ""
        raise ConfigError(
            f"replay_capacity: {config.replay_capacity:,} transitions{each} take {size_text(needed)}, and "
            f"{size_text(free)} are free; about {fits:,} fit."
        )


def _now_and_then(tell: Callable[[int, int, int], None], env_steps: int) -> Callable[[int, int], None]:
    """`tell` after `env_steps`, but once in a while only."""
    heard = -np.inf

    def told(ended: int, games: int) -> None:
        nonlocal heard
        if time.perf_counter() - heard >= _SECONDS_BETWEEN:
            heard = time.perf_counter()
            tell(env_steps, ended, games)

    return told


class Records:
    """What the metrics of a chunk are made of, block after block; with room for so many `iterations`."""

    def __init__(self, blocks: int, block_size: int, iterations: int, num_envs: int):
        lanes = blocks * block_size
        self._block_size = block_size
        self.iterations = iterations
        self.taken = 0
        self.epsilon: Any = np.zeros((lanes, iterations), np.float32)
        self.updates: Any = np.zeros((lanes, iterations), np.int32)
        self.episode_return: Any = np.full((lanes, iterations, num_envs), np.nan, np.float32)
        self.sums: Any = np.zeros((lanes, len(UpdateInfo._fields)), np.float32)  # over the updates
        self.made = 0  # of these
        self.finite = np.ones(lanes, bool)

    def lanes_of(self, block: int) -> slice:
        return slice(block * self._block_size, (block + 1) * self._block_size)

    def add(self, block: int, i: int, output: PoolOutput, epsilon: np.ndarray, updates: np.ndarray) -> None:
        own = self.lanes_of(block)
        self.epsilon[own, i], self.updates[own, i] = epsilon, updates
        ended = np.where(output.game_over, output.episode_return, np.float32(np.nan))
        self.episode_return[own, i] = ended.reshape(self._block_size, -1)

    def means(self) -> Any:
        """`[lanes, 3]`, over the updates; NaN without any."""
        return self.sums / self.made if self.made else np.full_like(self.sums, np.nan)

    def arrays(self, lanes: int) -> dict[str, np.ndarray]:
        """All of it, of the first so many lanes."""
        long = {name: getattr(self, name)[:lanes, : self.taken] for name in self._LONG}
        return {**long, "sums": self.sums[:lanes], "finite": self.finite[:lanes], "made": np.asarray(self.made)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays` gave, if anything; what fills up a last block is a lane like its last."""
        if not arrays:
            return
        rows = np.minimum(np.arange(len(self.sums)), len(arrays["sums"]) - 1)
        self.taken, self.made = arrays["epsilon"].shape[1], int(arrays["made"])
        for name in self._LONG:
            getattr(self, name)[:, : self.taken] = arrays[name][rows]
        self.sums, self.finite = arrays["sums"][rows], arrays["finite"][rows]

    _LONG = ("epsilon", "updates", "episode_return")
