"""Many lanes at once: one donating program per chunk, lanes sharded over all devices.

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
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dqn_jax.agent import Agent
from dqn_jax.config import SETTINGS, Config, ConfigError, HParams, own_rhythm
from dqn_jax.lanes.device import ChunkMetrics, LaneState, Loop, WarmupMetrics
from dqn_jax.lanes.lane import ring_rows, without_rows
from dqn_jax.prng import key_data, make_key, wrap_key_data
from dqn_jax.types import Params

LANES = PartitionSpec("lanes")
_TINY_BLOCK = 4
_TINY_WORK = 200_000  # weights times batch: below it, blocks pay on CPU
_ACCELERATOR_BLOCK = 1024


class Active(NamedTuple):
    """Which lanes a program advances."""

    # [padded], int32: each device's own slots, block after block. What fills up the last block is a slot of it plus
    # `share`: that lane is run again, so that a block never waits for a filler, and the result is dropped.
    slots: jax.Array
    blocks: jax.Array  # [devices], int32: how many blocks each device runs


class Layout(NamedTuple):
    """How up to L lanes are laid out: on each device `share = blocks * block_size` slots, together `padded >= lanes`.

    Lanes are dealt out to the devices in turn, so that any first few are spread evenly.
    """

    lanes: int
    padded: int
    block_size: int
    mesh: Mesh

    @property
    def share(self) -> int:
        """Slots of one device."""
        return self.padded // self.mesh.size

    @property
    def devices(self) -> tuple[jax.Device, ...]:
        """That lanes are spread over."""
        return tuple(self.mesh.devices.flat)

    @property
    def sharding(self) -> NamedSharding:
        """Of an array with the slots first."""
        return NamedSharding(self.mesh, LANES)

    def slot_of(self, lanes: np.ndarray) -> np.ndarray:
        """`[n]`, the slot (of all devices' slots in order) of each of the lanes `[n]`."""
        return lanes % self.mesh.size * self.share + lanes // self.mesh.size

    def place(self, tree: Any) -> Any:
        """Put leaves `[l, ...]` from the host, `l <= lanes`, on the devices; in slots beyond, the last is repeated."""

        def put(x: Any) -> jax.Array:
            lane_at = np.full(self.padded, len(x) - 1)
            lane_at[self.slot_of(np.arange(len(x)))] = np.arange(len(x))
            return jax.device_put(x[lane_at], self.sharding)

        return jax.tree.map(put, tree)

    def fetch(self, tree: Any, lanes: np.ndarray) -> Any:
        """Leaves `[n, ...]` of the lanes `[n]`, on the host, of leaves `[padded, ...]`; keys stay keys."""
        slots = self.slot_of(lanes)

        def get(x: Any) -> Any:
            if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
                return wrap_key_data(np.asarray(key_data(x))[slots])
            return np.asarray(x)[slots]

        return jax.tree.map(get, tree)

    def active(self, lanes: np.ndarray) -> Active:
        """The lanes `[n]` (their numbers) as the input of a program; devices with fewer run fewer blocks."""
        slots = np.full((self.mesh.size, self.share), self.share, np.int32)
        blocks = np.zeros(self.mesh.size, np.int32)
        for device in range(self.mesh.size):
            own = np.sort(lanes[lanes % self.mesh.size == device]) // self.mesh.size
            slots[device, : len(own)] = own
            slots[device, len(own) :] += own[-1] if len(own) else 0
            blocks[device] = -(-len(own) // self.block_size)
        return Active(jax.device_put(slots.reshape(-1), self.sharding), jax.device_put(blocks, self.sharding))


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


class Population(NamedTuple):
    """The compiled programs for up to `layout.lanes` lanes of one configuration."""

    layout: Layout
    start: PopulationStart
    chunk: PopulationChunk
    compile_seconds: float  # tracing included
    lane_shapes: LaneState  # the state as shapes, leaves [padded, ...]
    temporary_bytes: int  # what the programs need on each device beside their inputs and outputs

    @property
    def evaluation_seconds(self) -> float:
        """It is part of the program."""
        return 0.0

    @property
    def unfinished(self) -> dict[str, np.ndarray]:
        """A program goes on to its end."""
        return {}

    def go_on(self, unfinished: dict[str, np.ndarray]) -> None:
        """There is nothing to go on from."""

    def networks(self, lanes: LaneState) -> Params:
        """The online networks, leaves `[padded, ...]`."""
        return lanes.agent.params

    def without_rows(self, lanes: LaneState) -> LaneState:
        """As `lane.without_rows`, leaves `[padded, ...]`."""
        return without_rows(lanes)

    def rows(self, lanes: LaneState, first: int, count: int, among: np.ndarray) -> Any:
        """`count` rows of all replays from number `first` on, leaves `[padded, count, ...]`."""
        return ring_rows(lanes.replay.storage, jnp.int32(first), count)

    def close(self) -> None:
        """End what runs beside the programs: nothing here."""


def stack_hparams(hparams: HParams, lanes: int) -> HParams:
    """One value per lane: leaves `[lanes]`, float32 (int32 for counts); None stays None.

    Raises:
      ConfigError: if a hyperparameter has values for another number of lanes.
    """

    def stack(field: str, value: Any) -> Any:
        if value is None:
            return None
        array = np.asarray(value, np.int32 if SETTINGS[field].counts else np.float32)
        if array.ndim > 1 or (array.ndim == 1 and array.shape[0] != lanes):
            raise ConfigError(f"{field}: {array.size} values for {lanes} lanes; give one value, or one for each lane.")
        return np.broadcast_to(array, (lanes,)).copy()

    return HParams(**{field: stack(field, value) for field, value in hparams._asdict().items()})


def first_hparams(hparams: HParams) -> HParams:
    """Those of the first lane: which there are, without the number of lanes."""
    firsts: list[Any] = [None if value is None else np.ravel(value)[0] for value in hparams]
    return HParams(*firsts)


def make_layout(config: Config, lanes: int, weights: int, devices: Sequence[jax.Device] | None = None) -> Layout:
    """Spread `lanes` evenly over the devices, in whole blocks.

    Args:
      config: gives the block size, or leaves it to this function.
      lanes: number of lanes.
      weights: number of weights of one lane's network.
      devices: to spread over (default: all).
    """
    devices = list(devices if devices is not None else jax.local_devices())[:lanes]
    per_device = -(-lanes // len(devices))
    block_size = config.lane_block
    if own_rhythm(config):
        block_size = 1
    elif block_size == 0 and devices[0].platform == "cpu":
        block_size = _TINY_BLOCK if weights * config.batch_size < _TINY_WORK else 1
    elif block_size == 0:
        block_size = -(-per_device // -(-per_device // _ACCELERATOR_BLOCK))  # as few as possible, of one size
    blocks = -(-per_device // block_size)
    return Layout(lanes, len(devices) * blocks * block_size, block_size, Mesh(np.array(devices), ("lanes",)))


def count_weights(agent: Agent, hparams: HParams) -> int:
    """Number of weights of one lane's network."""
    state = jax.eval_shape(lambda: agent.init(make_key(0), hparams))
    return sum(x.size for x in jax.tree.leaves(state.params))


def make_population(
    config: Config,
    loop: Loop,
    hparams: HParams,
    lanes: int,
    devices: Sequence[jax.Device] | None = None,
    *,
    from_weights: bool = False,
) -> Population:
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
    example = jax.tree.map(lambda x: x[0], stack_hparams(first_hparams(hparams), 1))
    layout = make_layout(config, lanes, count_weights(loop.agent, example), devices)
    share, size = layout.share, layout.block_size

    def read(tree: Any, slots: jax.Array) -> Any:
        """`[block_size, ...]` of `[share, ...]`."""
        if size == 1:
            return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, slots[0]), tree)
        return jax.tree.map(lambda x: x.at[slots % share].get(mode="promise_in_bounds"), tree)

    def write(tree: Any, new: Any, slots: jax.Array) -> Any:
        if size == 1:
            return jax.tree.map(lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, slots[0], 0), tree, new)
        return jax.tree.map(lambda x, y: x.at[slots].set(y, mode="drop"), tree, new)

    def batched(function: Any) -> Any:
        if size > 1:
            return jax.vmap(function)
        return lambda *a: jax.tree.map(lambda x: x[None], function(*jax.tree.map(lambda x: x[0], a)))

    def in_blocks(function: Any, active: Active, carry: Any, inputs: Any) -> Any:
        """`carry` and `inputs` have leaves `[share, ...]`; `function(carry, inputs) -> carry` is of one lane.

        The carry is written back in place: the replays, by far the largest part, are held once.
        """

        def block(i: jax.Array, carry: Any) -> Any:
            slots = jax.lax.dynamic_slice_in_dim(active.slots, i * size, size)
            return write(carry, batched(function)(read(carry, slots), read(inputs, slots)), slots)

        return jax.lax.fori_loop(0, active.blocks[0], block, carry)

    # Between blocks keys are plain data: jax's checker follows each within its lane, where it could be used twice.
    def plain(lane: LaneState) -> LaneState:
        return lane._replace(key=key_data(lane.key))

    def keyed(lane: LaneState) -> LaneState:
        return lane._replace(key=wrap_key_data(lane.key))

    def empty(shapes: Any) -> Any:
        return jax.tree.map(lambda x: jnp.zeros((share, *x.shape), x.dtype), shapes)

    def start_lane(seed: jax.Array, hparams: HParams, weights: Params | None) -> tuple[LaneState, WarmupMetrics]:
        lane, metrics = loop.start(seed, hparams, weights)
        return plain(lane), metrics

    def start(seeds: jax.Array, hparams: HParams, weights: Params | None, active: Active) -> Any:
        carry = in_blocks(lambda _, inputs: start_lane(*inputs), active, empty(start_shapes), (seeds, hparams, weights))
        return keyed(carry[0]), carry[1]

    def chunk_lane(env_steps: jax.Array, lane: LaneState, hparams: HParams) -> tuple[LaneState, ChunkMetrics]:
        lane, metrics = loop.chunk(env_steps, keyed(lane), hparams)
        return plain(lane), metrics

    def chunk(env_steps: jax.Array, lanes: LaneState, hparams: HParams, active: Active) -> Any:
        carry = in_blocks(
            lambda carry, hparams: chunk_lane(env_steps, carry[0], hparams),
            active,
            (plain(lanes), empty(chunk_shapes[1])),
            hparams,
        )
        return keyed(carry[0]), carry[1]

    seed = jax.ShapeDtypeStruct((), jnp.int32)
    weights = None
    if from_weights:
        weights = jax.eval_shape(lambda: loop.agent.init(make_key(0), example).params)
    start_shapes = jax.eval_shape(start_lane, seed, example, weights)
    chunk_shapes = jax.eval_shape(chunk_lane, seed, start_shapes[0], example)

    # No collectives: every device runs its own lanes at its own pace.
    shard = functools.partial(jax.shard_map, mesh=layout.mesh, out_specs=LANES, check_vma=False)
    jit_start = jax.jit(shard(start, in_specs=(LANES, LANES, LANES, LANES)))
    jit_chunk = jax.jit(shard(chunk, in_specs=(PartitionSpec(), LANES, LANES, LANES)), donate_argnums=1)

    def spread(shapes: Any) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((layout.padded, *x.shape), x.dtype, sharding=layout.sharding), shapes
        )

    all_active = layout.active(np.arange(lanes))
    lane_shapes = spread(jax.eval_shape(keyed, start_shapes[0]))
    lowered = (
        jit_start.lower(spread(seed), spread(example), spread(weights), all_active),
        jit_chunk.lower(jnp.int32(0), lane_shapes, spread(example), all_active),
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:  # the two compile side by side
        compiled_start, compiled_chunk = pool.map(lambda program: program.compile(), lowered)

    def start_lanes(seeds: Sequence[int], hparams: HParams, weights: Params | None = None) -> Any:
        inputs = np.asarray(seeds, np.int32), stack_hparams(hparams, len(seeds)), weights
        return compiled_start(*layout.place(inputs), layout.active(np.arange(len(seeds))))

    return Population(
        layout,
        start_lanes,
        compiled_chunk,
        time.perf_counter() - began,
        lane_shapes,
        max(temporary_bytes(program) for program in (compiled_start, compiled_chunk)),
    )


def temporary_bytes(program: Any) -> int:
    """What a compiled program needs on each device beside its inputs and outputs, where it says."""
    analysis = program.memory_analysis()
    return int(analysis.temp_size_in_bytes) if analysis is not None else 0
