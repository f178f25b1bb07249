"""Many lanes on the device at once: one donating program per chunk, lanes sharded over all devices.

On each device the lanes run in blocks: within a block they are batched by `vmap`, and the blocks follow
one another. On CPU, networks whose arithmetic fills a core run lane by lane, which keeps weights and
replay in its cache (64 lanes in one batch ran at 0.7 times that speed); tiny ones, bound by XLA's cost per
operation, gain 1.5 times from blocks of four. The size of a block follows from the configuration alone, so
that a lane gets the same bits whatever the population's size. On an accelerator blocks are large, up to a
thousand lanes, and follow their number: bits may depend on it there (`lane_block` sets one size for all).

Which lanes a program advances, and so how many blocks it runs, is an input. Lanes that have finished leave
the blocks and cost nothing, without another program and without moving anybody's memory.
"""

from __future__ import annotations

import concurrent.futures
import functools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from dqn_jax.config import Config, HParams
from dqn_jax.lanes.device import Loop
from dqn_jax.lanes.lane import (
    ChunkMetrics,
    LaneState,
    WarmupMetrics,
    one_lane,
    ring_rows,
    stack_hparams,
    temporary_bytes,
    weight_shapes,
    without_rows,
)
from dqn_jax.lanes.layout import LANES, Active, ShardedLayout, make_layout
from dqn_jax.prng import key_data, make_key, wrap_key_data
from dqn_jax.types import Params, PyTree

Carry = TypeVar("Carry")
Inputs = TypeVar("Inputs")
Tree = TypeVar("Tree")


class PopulationStart(Protocol):
    """Fresh lanes from `seeds` (`[l]`), `hparams` (leaves `[l]`) and, if given, `weights` (leaves `[l, ...]`)."""

    def __call__(
        self, seeds: Sequence[int], hparams: HParams, weights: Params | None = None
    ) -> tuple[LaneState, WarmupMetrics]: ...


class PopulationChunk(Protocol):
    """Advance the active lanes by one chunk; donates `lanes`. Metrics of others are zero.

    `hparams` are placed (leaves `[padded]`); lanes and metrics have leaves `[padded, ...]`.
    """

    def __call__(
        self, env_steps: jax.Array, lanes: LaneState, hparams: HParams, active: Active
    ) -> tuple[LaneState, ChunkMetrics]: ...


class DevicePopulation(NamedTuple):
    """The compiled programs for up to `layout.lanes` lanes of one configuration."""

    layout: ShardedLayout
    start: PopulationStart
    chunk: PopulationChunk
    compile_seconds: float  # tracing included
    lane_shapes: LaneState  # the state as shapes, leaves [padded, ...]
    temporary_bytes: int  # what the programs need on each device beside their inputs and outputs

    @property
    def evaluation_seconds(self) -> float:
        """Nothing that could be told apart: it is part of the program."""
        return 0.0

    @property
    def unfinished(self) -> dict[str, np.ndarray]:
        """Nothing: a program goes on to its end."""
        return {}

    def go_on(self, unfinished: dict[str, np.ndarray]) -> None:
        """Do nothing: no chunk is ever stopped within."""

    def networks(self, lanes: LaneState) -> Params:
        """The networks that are played, leaves `[padded, ...]`."""
        return lanes.agent.played

    def without_rows(self, lanes: LaneState) -> LaneState:
        """The lanes with () for the rows of their replays, leaves `[padded, ...]`."""
        return without_rows(lanes)

    def rows(self, lanes: LaneState, first: int, count: int, among: np.ndarray) -> PyTree:
        """`count` rows of all replays from number `first` on, leaves `[padded, count, ...]`."""
        return ring_rows(lanes.replay.storage, jnp.int32(first), count)

    def close(self) -> None:
        """Do nothing: beside the programs nothing runs."""


def make_population(
    config: Config,
    loop: Loop,
    hparams: HParams,
    lanes: int,
    devices: Sequence[jax.Device] | None = None,
    *,
    from_weights: bool = False,
) -> DevicePopulation:
    """Compile the programs for up to `lanes` lanes.

    Args:
      config: static part, shared by all lanes.
      loop: `make_loop(config)`.
      hparams: says which hyperparameters there are (not None); their values are given when lanes start.
      lanes: the most lanes at once.
      devices: to shard over (default: all).
      from_weights: whether lanes start from given networks.
    """
    began = time.perf_counter()
    example = one_lane(hparams)
    layout = make_layout(config, lanes, weight_shapes(loop.agent, example), devices)

    def empty(shapes: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.zeros((layout.share, *x.shape), x.dtype), shapes)

    def start_lane(seed: jax.Array, hparams: HParams, weights: Params | None) -> tuple[LaneState, WarmupMetrics]:
        lane, metrics = loop.start(seed, hparams, weights)
        return _plain(lane), metrics

    def start(
        seeds: jax.Array, hparams: HParams, weights: Params | None, active: Active
    ) -> tuple[LaneState, WarmupMetrics]:
        inputs = (seeds, hparams, weights)
        carry = _in_blocks(layout, lambda _, own: start_lane(*own), active, empty(start_shapes), inputs)
        return _keyed(carry[0]), carry[1]

    def chunk_lane(env_steps: jax.Array, lane: LaneState, hparams: HParams) -> tuple[LaneState, ChunkMetrics]:
        lane, metrics = loop.chunk(env_steps, _keyed(lane), hparams)
        return _plain(lane), metrics

    def chunk(
        env_steps: jax.Array, lanes: LaneState, hparams: HParams, active: Active
    ) -> tuple[LaneState, ChunkMetrics]:
        def advance(carry: tuple[LaneState, ChunkMetrics], own: HParams) -> tuple[LaneState, ChunkMetrics]:
            return chunk_lane(env_steps, carry[0], own)

        carry = _in_blocks(layout, advance, active, (_plain(lanes), empty(chunk_shapes[1])), hparams)
        return _keyed(carry[0]), carry[1]

    seed: PyTree = jax.ShapeDtypeStruct((), jnp.int32)
    weights = None
    if from_weights:
        weights = jax.eval_shape(lambda: loop.agent.init(make_key(0), example).params)
    start_shapes = jax.eval_shape(start_lane, seed, example, weights)
    chunk_shapes = jax.eval_shape(chunk_lane, seed, start_shapes[0], example)

    # No collectives: every device runs its own lanes at its own pace.
    shard = functools.partial(jax.shard_map, mesh=layout.mesh, out_specs=LANES, check_vma=False)
    jit_start = jax.jit(shard(start, in_specs=(LANES, LANES, LANES, LANES)))
    jit_chunk = jax.jit(shard(chunk, in_specs=(PartitionSpec(), LANES, LANES, LANES)), donate_argnums=1)

    def spread(shapes: PyTree) -> PyTree:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((layout.padded, *x.shape), x.dtype, sharding=layout.sharding), shapes
        )

    all_active = layout.active(np.arange(lanes))
    lane_shapes = spread(jax.eval_shape(_keyed, start_shapes[0]))
    lowered = (
        jit_start.lower(spread(seed), spread(example), spread(weights), all_active),
        jit_chunk.lower(jnp.int32(0), lane_shapes, spread(example), all_active),
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:  # the two compile side by side
        compiled_start, compiled_chunk = pool.map(lambda program: program.compile(), lowered)

    def start_lanes(
        seeds: Sequence[int], hparams: HParams, weights: Params | None = None
    ) -> tuple[LaneState, WarmupMetrics]:
        inputs = np.asarray(seeds, np.int32), stack_hparams(hparams, len(seeds)), weights
        return compiled_start(*layout.place(inputs), layout.active(np.arange(len(seeds))))

    return DevicePopulation(
        layout,
        start_lanes,
        compiled_chunk,
        time.perf_counter() - began,
        lane_shapes,
        max(temporary_bytes(program) for program in (compiled_start, compiled_chunk)),
    )


def _in_blocks(
    layout: ShardedLayout, function: Callable[[Carry, Inputs], Carry], active: Active, carry: Carry, inputs: Inputs
) -> Carry:
    """`function` of the active lanes of one device, block after block.

    `carry` and `inputs` have leaves `[share, ...]`; `function(carry, inputs) -> carry` is of one lane. The carry is
    written back in place: the replays, by far the largest part, are held once.
    """
    share, size = layout.share, layout.block_size

    def read(tree: Tree, slots: jax.Array) -> Tree:
        """A block's leaves `[block_size, ...]` of leaves `[share, ...]`."""
        if size == 1:
            return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, slots[0]), tree)
        return jax.tree.map(lambda x: x.at[slots % share].get(mode="promise_in_bounds"), tree)

    def write(tree: Carry, new: Carry, slots: jax.Array) -> Carry:
        if size == 1:
            return jax.tree.map(lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, slots[0], 0), tree, new)
        return jax.tree.map(lambda x, y: x.at[slots].set(y, mode="drop"), tree, new)

    def batched(carry: Carry, inputs: Inputs) -> Carry:
        if size > 1:
            return jax.vmap(function)(carry, inputs)
        own = jax.tree.map(lambda x: x[0], (carry, inputs))
        return jax.tree.map(lambda x: x[None], function(*own))

    def block(i: jax.Array, carry: Carry) -> Carry:
        slots = jax.lax.dynamic_slice_in_dim(active.slots, i * size, size)
        return write(carry, batched(read(carry, slots), read(inputs, slots)), slots)

    return jax.lax.fori_loop(0, active.blocks[0], block, carry)


# Between blocks keys are plain data: jax's checker follows each within its lane, where it could be used twice.
def _plain(lane: LaneState) -> LaneState:
    return lane._replace(key=key_data(lane.key))


def _keyed(lane: LaneState) -> LaneState:
    return lane._replace(key=wrap_key_data(lane.key))
