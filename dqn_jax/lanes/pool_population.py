"""Many lanes whose environments are in host pools; to whoever trains and sweeps a population like any other.

While a pool's threads step its environments, the device learns: receive, act, send, learn. Only the newest frame of
each environment goes to the device, and one action comes back. Lanes go in blocks. Those of a block share a pool, and
act and learn together under `vmap`; blocks take turns, and the devices that they are spread over work side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dqn_jax.config import HParams, RunError, asynchronous, own_rhythm, updates_each_time
from dqn_jax.devices import host_device
from dqn_jax.envs import Pool, PoolOutput, make_pool
from dqn_jax.lanes.evaluation import Evaluation
from dqn_jax.lanes.lane import (
    UNWATCHED,
    ChunkMetrics,
    LaneState,
    WarmupMetrics,
    Watch,
    host_array,
    one_lane,
    ring_rows,
    stack_hparams,
    trainings_due,
    without_rows,
)
from dqn_jax.lanes.layout import BlockLayout, Blocks
from dqn_jax.lanes.pool import PoolLoop, Seen
from dqn_jax.lanes.pool_evaluation import evaluate_blocks
from dqn_jax.lanes.pool_programs import BlockPrograms, check_memory, compile_programs, spread
from dqn_jax.lanes.pool_records import Records, Timeline
from dqn_jax.types import FrameRow, Params, PyTree

_SECONDS_BETWEEN = 1.0  # what is told while a chunk goes on


class PoolPopulation:
    """The compiled programs for up to L lanes, and their pools; used as `population.DevicePopulation` is.

    A lane does not depend on its neighbours: on CPU to the last bit, on an accelerator for blocks of one size (they
    follow the number of lanes, but for `lane_block`). A block in which no lane is at work any more costs nothing.

    Attributes:
      loop: its functions.
      layout: where its lanes are.
      lane_shapes: the state of all lanes as shapes, leaves `[L, ...]`.
      watch: what is told and asked while a chunk goes on.
      unfinished: what was noted of a chunk that was stopped within.
      evaluation_seconds: that the last evaluation took.
      compile_seconds: that compiling took, tracing included.
      temporary_bytes: what the programs need on each device beside their inputs and outputs.
      pools: of the blocks at work.
      timeline: set to one to have it kept; the host then waits for every part in turn.
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
        host = host_device() if loop.config.replay_memory == "host" else None
        self.loop, self.watch = loop, watch
        self.layout = BlockLayout(lanes, each, devices[: -(-lanes // each)], host)
        self.timeline: Timeline | None = None
        self.unfinished: dict[str, np.ndarray] = {}
        self.evaluation_seconds = 0.0
        self.pools: dict[int, Pool] = {}
        example, seed = one_lane(hparams), jax.ShapeDtypeStruct((), np.int32)
        self.lane_shapes: LaneState = spread((lanes,), jax.eval_shape(lambda s, h: loop.start(s, h), seed, example))
        check_memory(self.lane_shapes.replay, loop.config, self.layout)
        self._programs, self.temporary_bytes = compile_programs(loop, self.layout, example, from_weights=from_weights)
        self.compile_seconds = time.perf_counter() - began

    def _of(self, block: int) -> BlockPrograms:
        return self._programs[self.layout.device_of(block)]

    def start(
        self, seeds: Sequence[int], hparams: HParams, weights: Params | None = None
    ) -> tuple[Blocks[LaneState], WarmupMetrics]:
        """Fresh lanes from `seeds` (`[l]`), `hparams` (leaves `[l]`) and, if given, `weights`, and their warm-up.

        Raises:
          RunError: if it is stopped within the warm-up.
        """
        self.close()
        rhythm = self.loop.rhythm
        inputs = self.layout.place(
            (host_array(np.asarray(seeds, np.int32)), stack_hparams(hparams, len(seeds)), weights)
        )
        lanes = [self._of(b).start(*block) for b, block in enumerate(inputs)]
        placed = [block[1] for block in inputs]
        records = Records(len(lanes), self.layout.block_size, rhythm.warmup_iterations, rhythm.step)
        self.advance(0, records, lanes, placed, range(len(lanes)), learning=False)
        if records.taken < records.iterations:
            self.close()
            raise RunError(
                f"max_minutes: they were over within the {rhythm.warmup_steps:,} environment steps before learning; "
                "allow more, or lower min_replay."
            )
        report = records.report()
        return lanes, WarmupMetrics(report.epsilon, report.episode_return)

    def chunk(
        self, env_steps: int | jax.Array, lanes: Blocks[LaneState], hparams: Blocks[HParams], active: np.ndarray
    ) -> tuple[Blocks[LaneState], ChunkMetrics | None]:
        """Advance the lanes `active` (`[n]`, their numbers) to the end of their chunk, then evaluate; donates `lanes`.

        Metrics have leaves `[L, ...]`; those of others, and of lanes that only share a block with active ones, say
        nothing. There are none where it was stopped: then `unfinished` (arrays `[L, ...]`, and how far it came) is with
        the lanes what the same chunk goes on from, here or in a population that is told to `go_on` from it.
        """
        rhythm, env_steps = self.loop.rhythm, int(env_steps)
        lanes = list(lanes)
        at_work = self.layout.blocks_of(active)
        self._close(self.pools.keys() - set(at_work))
        into = (env_steps - rhythm.warmup_steps) % rhythm.steps_per_chunk  # one that was cut ended off the grid
        iterations = (rhythm.steps_per_chunk - into) // rhythm.step
        records = Records(len(lanes), self.layout.block_size, iterations, rhythm.step)
        records.restore(self.unfinished)
        self.advance(env_steps, records, lanes, hparams, at_work, learning=True)
        networks = {b: lanes[b].agent.played for b in at_work}
        evaluation = None
        if not self.watch.stop():
            evaluation = self._evaluate(env_steps + records.taken * rhythm.step, networks, len(records.finite))
        if evaluation is None:
            self.unfinished = records.arrays(self.layout.lanes)
            return lanes, None
        self.unfinished = {}
        for b in at_work:
            records.finite[records.lanes_of(b)] &= _all_finite(networks[b])
        return lanes, ChunkMetrics.of(records.means(), host_array(records.finite), records.report(), evaluation)

    def _evaluate(self, env_steps: int, networks: dict[int, Params], lanes: int) -> Evaluation | None:
        """Of the blocks at work, leaves `[lanes, E]`: NaN and 0 for others. None where it was stopped."""
        config, began = self.loop.config, time.perf_counter()
        played = evaluate_blocks(
            self.loop.player,
            list(networks.values()),
            episodes=config.eval_episodes,
            epsilon=config.eval_epsilon,
            seed=config.eval_seed,
            stop=self.watch.stop,
            on_step=_now_and_then(self.watch.on_game, env_steps),
        )
        if played is None:
            return None
        self.evaluation_seconds = time.perf_counter() - began
        returns = np.full((lanes, config.eval_episodes), np.nan, np.float32)
        lengths = np.zeros((lanes, config.eval_episodes), np.int32)
        for b, evaluation in zip(networks, played, strict=True):
            own = self.layout.lanes_of(b)
            returns[own], lengths[own] = evaluation.returns, evaluation.lengths
        return Evaluation(host_array(returns), host_array(lengths))

    def advance(
        self,
        env_steps: int,
        records: Records,
        lanes: Blocks[LaneState],
        hparams: Blocks[HParams],
        at_work: Sequence[int],
        *,
        learning: bool,
    ) -> None:
        """The vector steps of the blocks `at_work` that `records` has room for, in place, unless it is ended early.

        Their pools are left stepping their last actions. `env_steps` are those before the first of the records.
        """
        config, rhythm = self.loop.config, self.loop.rhythm
        sums: dict[int, PyTree] = dict.fromkeys(at_work, 0.0)
        learnt = {b: np.asarray(lanes[b].agent.updates) for b in at_work}
        made, heard = 0, time.perf_counter()
        for i in range(records.taken, records.iterations):
            if self.watch.stop() or (records.taken and self.watch.seconds_left() <= self.evaluation_seconds):
                break
            steps = env_steps + i * rhythm.step
            trainings = trainings_due(config, steps - rhythm.warmup_steps) if learning else 0
            made += trainings * updates_each_time(config)
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
                self.watch.on_step(steps + rhythm.step)
        if made:
            records.made += made
            for b in at_work:
                records.add_sums(b, np.asarray(sums[b]))

    def _receive(self, block: int, lanes: LaneState, env_steps: int) -> PoolOutput:
        if block in self.pools:
            return self.pools[block].recv()
        # A run that is resumed starts fresh games, and not those that it began with.
        words = [np.random.SeedSequence([int(seed), env_steps]) for seed in np.asarray(lanes.seed)]
        seeds = [int(word.generate_state(1)[0]) for word in words]
        self.pools[block] = make_pool(self.loop.config, self.loop.config.num_envs, seeds)
        return self.pools[block].reset()

    def act_on(
        self, block: int, output: PoolOutput, env_steps: int, lanes: LaneState, hparams: HParams
    ) -> tuple[LaneState, np.ndarray, np.ndarray]:
        """Store a row of a block and act on it: its lanes, actions of all environments, exploration `[block_size]`."""
        given = seen = self._seen(output)
        if self.timeline is not None:  # else the program itself fetches them, which takes less of the host's time
            seen = jax.device_put(given, self.layout.device_of(block))
            self._lap("host")
            self._lap("learning", lanes.agent)
            self._lap("transfer", seen)
        programs = self._of(block)
        lanes, actions, epsilon = programs.act(np.int32(env_steps), lanes, seen, hparams)
        action, explored = np.asarray(actions), np.asarray(epsilon)
        if programs.store is not None:
            stored = programs.store(lanes.replay, given.row._replace(action=host_array(action)), given.envs)
            lanes = lanes._replace(replay=stored)
        self._lap("acting")
        return lanes, action.reshape(-1), explored

    def _seen(self, output: PoolOutput) -> Seen:
        """What a block's pool gave, by lane: leaves `[block_size, M, ...]`, on the host."""
        shape = (self.layout.block_size, self.loop.rhythm.step)

        def of_lanes(x: np.ndarray) -> jax.Array:
            return host_array(x.reshape(*shape, *x.shape[1:]))

        action = host_array(np.zeros(shape, np.int32))  # chosen in the program
        given = (output.reward, output.terminated, output.truncated, output.first)
        row = FrameRow(of_lanes(output.frame), action, *map(of_lanes, given))
        envs = of_lanes(output.env_id) if asynchronous(self.loop.config) else None
        return Seen(row, of_lanes(output.game_over), envs)

    def _lap(self, what: str, wait_for: PyTree = None) -> None:
        if self.timeline is not None:
            self.timeline.lap(what, wait_for)

    def learn(self, block: int, trainings: int, lanes: LaneState, hparams: HParams) -> tuple[LaneState, jax.Array]:
        """Begin to train a block so many times: its lanes, and sums of `UpdateInfo` `[block_size, 3]`."""
        return self._of(block).learn(np.int32(trainings), lanes, hparams)

    def go_on(self, unfinished: dict[str, np.ndarray]) -> None:
        """Let the next chunk go on from what was noted of it."""
        self.unfinished = unfinished

    def networks(self, lanes: Blocks[LaneState]) -> Blocks[Params]:
        """The networks that are played, block by block."""
        return [block.agent.played for block in lanes]

    def without_rows(self, lanes: Blocks[LaneState]) -> Blocks[LaneState]:
        """The lanes with () for the rows of their replays, block by block."""
        return [without_rows(block) for block in lanes]

    def rows(self, lanes: Blocks[LaneState], first: int, count: int, among: np.ndarray) -> Blocks[PyTree]:
        """`count` rows of replays from number `first` on, of the blocks in which the lanes `among` `[n]` are."""
        wanted, number = set(self.layout.blocks_of(among)), jnp.int32(first)
        return [
            ring_rows(block.replay.storage, number, count) if b in wanted else None for b, block in enumerate(lanes)
        ]

    def close(self) -> None:
        """End the pools. Lanes that go on afterwards do so in fresh games."""
        self._close(set(self.pools))

    def _close(self, blocks: set[int]) -> None:
        for block in blocks:
            self.pools.pop(block).close()


def _all_finite(params: Params) -> np.ndarray:
    """`[L]`, bool, for networks with leaves `[L, ...]`."""
    return np.all([np.isfinite(np.asarray(w)).reshape(len(w), -1).all(axis=1) for w in jax.tree.leaves(params)], axis=0)


def _now_and_then(tell: Callable[[int, int, int], None], env_steps: int) -> Callable[[int, int], None]:
    """`tell` after `env_steps`, but once in a while only."""
    heard = -np.inf

    def told(ended: int, games: int) -> None:
        nonlocal heard
        if time.perf_counter() - heard >= _SECONDS_BETWEEN:
            heard = time.perf_counter()
            tell(env_steps, ended, games)

    return told
