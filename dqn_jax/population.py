"""Many lanes at once: one donating program per chunk, lanes sharded over all devices.

On each device the lanes run in blocks: within a block they are batched by `vmap`, and the blocks follow
one another. On CPU, networks whose arithmetic fills a core run lane by lane, which keeps weights and
replay in its cache (64 lanes in one batch ran at 0.7 times that speed); tiny ones, bound by XLA's cost per
operation, gain 1.5 times from blocks of four. The size of a block follows from the configuration alone, so
that a lane gets the same bits whatever the population's size. On an accelerator a device's whole share is
one block.
"""

from __future__ import annotations

import concurrent.futures
import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dqn_jax.config import INTEGER_HPARAMS, Config, ConfigError, HParams, own_rhythm
from dqn_jax.loop import ChunkMetrics, LaneState, Loop, WarmupMetrics
from dqn_jax.prng import make_key
from dqn_jax.types import Params

LANES = PartitionSpec("lanes")
_TINY_BLOCK = 4
_TINY_WORK = 200_000  # weights times batch: below it, blocks pay on CPU


class Layout(NamedTuple):
    """How L lanes are laid out: `padded = devices * blocks * block_size >= lanes`."""

    lanes: int
    padded: int
    block_size: int
    mesh: Mesh

    @property
    def lane_at(self) -> np.ndarray:
        """`[padded]`, the lane that each place holds. Padding repeats the last; its results are dropped."""
        return np.minimum(np.arange(self.padded), self.lanes - 1)

    @property
    def sharding(self) -> NamedSharding:
        """Of an array with the lanes first."""
        return NamedSharding(self.mesh, LANES)

    def place(self, tree: Any) -> Any:
        """Put leaves `[lanes, ...]` from the host on the devices, padding repeated."""
        return jax.tree.map(lambda x: jax.device_put(x[self.lane_at], self.sharding), tree)


class Population(NamedTuple):
    """The compiled programs of a population, and its fixed inputs."""

    layout: Layout
    hparams: HParams  # leaves [padded]
    start: Any  # () -> (lanes, warm-up metrics), leaves [padded, ...]
    chunk: Any  # (env_steps, lanes, hparams) -> (lanes, metrics); donates the lanes
    compile_seconds: float
    lane_shapes: LaneState  # the state as shapes, leaves [padded, ...]


def stack_hparams(hparams: HParams, lanes: int) -> HParams:
    """One value per lane: leaves `[lanes]`, float32 (int32 for counts); None stays None.

    Raises:
      ConfigError: if a hyperparameter has values for another number of lanes.
    """

    def stack(field: str, value: Any) -> Any:
        if value is None:
            return None
        array = np.asarray(value, np.int32 if field in INTEGER_HPARAMS else np.float32)
        if array.ndim > 1 or (array.ndim == 1 and array.shape[0] != lanes):
            raise ConfigError(f"{field}: {array.size} values for {lanes} lanes; give one value, or one for each lane.")
        return np.broadcast_to(array, (lanes,)).copy()

    return HParams(**{field: stack(field, value) for field, value in hparams._asdict().items()})


def make_layout(config: Config, lanes: int, weights: int, devices: Sequence[jax.Device] | None = None) -> Layout:
    """Spread `lanes` evenly over the devices, in whole blocks.

    Args:
      config: gives the block size, or leaves it to this function.
      lanes: number of lanes.
      weights: number of weights of one lane's network.
      devices: to spread over (default: all).
    """
    devices = list(devices if devices is not None else jax.devices())[:lanes]
    per_device = -(-lanes // len(devices))
    block_size = config.lane_block
    if own_rhythm(config):
        block_size = 1
    elif block_size == 0 and devices[0].platform == "cpu":
        block_size = _TINY_BLOCK if weights * config.batch_size < _TINY_WORK else 1
    elif block_size == 0:
        block_size = per_device
    blocks = -(-per_device // block_size)
    return Layout(lanes, len(devices) * blocks * block_size, block_size, Mesh(np.array(devices), ("lanes",)))


def make_population(
    config: Config,
    loop: Loop,
    hparams: HParams,
    seeds: Sequence[int],
    devices: Sequence[jax.Device] | None = None,
    weights: Params | None = None,
) -> Population:
    """Compile the programs for one lane per seed.

    Args:
      config: static part, shared by all lanes.
      loop: `make_loop(config)`.
      hparams: traced part; scalars, or `[lanes]` arrays.
      seeds: one per lane.
      devices: to shard over (default: all).
      weights: networks to start from instead of fresh ones, leaves `[lanes, ...]`.
    """
    stacked = stack_hparams(hparams, len(seeds))
    agent = jax.eval_shape(lambda: loop.agent.init(make_key(0), jax.tree.map(lambda x: x[0], stacked)))
    layout = make_layout(config, len(seeds), sum(x.size for x in jax.tree.leaves(agent.params)), devices)
    lane_hparams, lane_seeds, lane_weights = layout.place((stacked, np.asarray(seeds, np.int32), weights))

    def blocks_of(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(-1, layout.block_size, *x.shape[1:]), tree)

    def flat(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), tree)

    def batched(function: Any) -> Any:
        if layout.block_size > 1:
            return jax.vmap(function)
        return lambda *a: jax.tree.map(lambda x: x[None], function(*jax.tree.map(lambda x: x[0], a)))

    def start(seeds: jax.Array, hparams: HParams, weights: Params | None) -> tuple[LaneState, WarmupMetrics]:
        return flat(jax.lax.map(lambda a: batched(loop.start)(*a), blocks_of((seeds, hparams, weights))))

    def chunk(env_steps: jax.Array, lanes: LaneState, hparams: HParams) -> tuple[LaneState, ChunkMetrics]:
        def one_block(stored: LaneState, inputs: Any) -> tuple[LaneState, tuple[Any, ChunkMetrics]]:
            # Carried and written back in place: the replays, by far the largest part, are held once. The keys
            # go in and out by the side, where jax's checker can see that none is used twice.
            i, keys, block_hparams = inputs
            block = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), stored)
            advance = batched(lambda lane, h: loop.chunk(env_steps, lane, h))
            block, metrics = advance(block._replace(key=keys), block_hparams)
            keys, block = block.key, block._replace(key=None)
            stored = jax.tree.map(lambda x, new: jax.lax.dynamic_update_index_in_dim(x, new, i, 0), stored, block)
            return stored, (keys, metrics)

        lanes, hparams = blocks_of((lanes, hparams))
        indices = jnp.arange(lanes.episodes.shape[0])
        without_keys: Any = None
        stored, (keys, metrics) = jax.lax.scan(
            one_block, lanes._replace(key=without_keys), (indices, lanes.key, hparams)
        )
        return flat((stored._replace(key=keys), metrics))

    # No collectives: every device runs its own lanes at its own pace.
    shard = functools.partial(jax.shard_map, mesh=layout.mesh, out_specs=LANES, check_vma=False)
    jit_start = jax.jit(shard(start, in_specs=(LANES, LANES, LANES)))
    jit_chunk = jax.jit(shard(chunk, in_specs=(PartitionSpec(), LANES, LANES)), donate_argnums=1)
    began = time.perf_counter()
    example = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout.sharding),
        jax.eval_shape(jit_start, lane_seeds, lane_hparams, lane_weights)[0],
    )
    inputs = lane_seeds, lane_hparams, lane_weights
    lowered = jit_start.lower(*inputs), jit_chunk.lower(jnp.int32(0), example, lane_hparams)
    with concurrent.futures.ThreadPoolExecutor() as pool:  # the two compile side by side
        compiled_start, compiled_chunk = pool.map(lambda program: program.compile(), lowered)
    seconds = time.perf_counter() - began
    return Population(
        layout, lane_hparams, functools.partial(compiled_start, *inputs), compiled_chunk, seconds, example
    )
