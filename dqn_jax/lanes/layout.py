"""Where the lanes of a population are: in blocks of one size, dealt out to the devices in turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dqn_jax.config import Config, own_rhythm, transitions_drawn
from dqn_jax.lanes.lane import LaneState
from dqn_jax.prng import key_data, wrap_key_data
from dqn_jax.types import PyTree

Tree = TypeVar("Tree")

LANES = PartitionSpec("lanes")
_TINY_BLOCK = 4
_TINY_WORK = 200_000  # weights times batch: below it, blocks pay on CPU
_ACCELERATOR_BLOCK = 1024

Blocks = list[Tree]
"""Trees with leaves `[block_size, ...]`, one after another."""


class Layout(Protocol):
    """Where up to L lanes are, for whoever puts them there and takes them back; what is placed is the population's."""

    @property
    def lanes(self) -> int:
        """The most lanes that there is room for, L."""

    @property
    def block_size(self) -> int:
        """Lanes that are batched by `vmap`."""

    @property
    def devices(self) -> tuple[jax.Device, ...]:
        """The devices that lanes are spread over, in their order."""

    def place(self, tree: PyTree) -> PyTree:
        """Put leaves `[l, ...]` from the host, `l <= lanes`, on the devices; what fills up a block is lane l - 1."""

    def fetch(self, tree: PyTree, lanes: np.ndarray) -> PyTree:
        """Leaves `[n, ...]` of the lanes `[n]` (their numbers), on the host, of what is placed; keys stay keys."""

    def active(self, lanes: np.ndarray) -> PyTree:
        """The lanes `[n]` that a chunk is to advance, as the population's programs take them."""


class Active(NamedTuple):
    """Which lanes a program advances on each device, and in how many blocks."""

    # [padded], int32: each device's own slots, block after block. What fills up the last block is a slot of it plus
    # `share`: that lane is run again, so that a block never waits for a filler, and the result is dropped.
    slots: jax.Array
    blocks: jax.Array  # [devices], int32: how many blocks each device runs


@dataclasses.dataclass(frozen=True)
class ShardedLayout:
    """Arrays with leaves `[padded, ...]` over all devices: on each `share = blocks * block_size` slots.

    Lanes are dealt out to the devices in turn, so that any first few are spread evenly.
    """

    lanes: int
    padded: int  # slots of all devices, at least `lanes`
    block_size: int
    mesh: Mesh

    @property
    def share(self) -> int:
        """How many slots one device has."""
        return self.padded // self.mesh.size

    @property
    def devices(self) -> tuple[jax.Device, ...]:
        """The devices that lanes are spread over, in their order."""
        return tuple(self.mesh.devices.flat)

    @property
    def sharding(self) -> NamedSharding:
        """Of an array with the slots first."""
        return NamedSharding(self.mesh, LANES)

    def slot_of(self, lanes: np.ndarray) -> np.ndarray:
        """`[n]`, the slot (of all devices' slots in order) of each of the lanes `[n]`."""
        return lanes % self.mesh.size * self.share + lanes // self.mesh.size

    def place(self, tree: Tree) -> Tree:
        """Put leaves `[l, ...]` from the host, `l <= lanes`, on the devices; in slots beyond, the last is repeated."""

        def put(x: np.ndarray) -> jax.Array:
            lane_at = np.full(self.padded, len(x) - 1)
            lane_at[self.slot_of(np.arange(len(x)))] = np.arange(len(x))
            return jax.device_put(x[lane_at], self.sharding)

        return jax.tree.map(put, tree)

    def fetch(self, tree: Tree, lanes: np.ndarray) -> Tree:
        """Leaves `[n, ...]` of the lanes `[n]`, on the host, of leaves `[padded, ...]`; keys stay keys."""
        slots = self.slot_of(lanes)

        def get(x: jax.Array) -> jax.Array | np.ndarray:
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


def make_layout(
    config: Config,
    lanes: int,
    weights: Sequence[jax.ShapeDtypeStruct],
    devices: Sequence[jax.Device] | None = None,
) -> ShardedLayout:
    """Spread `lanes` evenly over the devices, in whole blocks.

    Args:
      config: gives the block size, or leaves it to this function.
      lanes: number of lanes.
      weights: those of one lane's network, as shapes. A convolution's (height, width and features), batched over
        lanes, are as many as there are lanes: on CPU a block of four MinAtar agents took five times as long as each by
        itself.
      devices: to spread over (default: all).
    """
    devices = list(devices if devices is not None else jax.local_devices())
    if devices[0].platform != "cpu":
        devices = devices[:lanes]  # on CPU all of them: XLA compiles for another number to other bits
    per_device = -(-lanes // len(devices))
    block_size = config.lane_block
    if own_rhythm(config):
        block_size = 1
    elif block_size == 0 and devices[0].platform == "cpu":
        work = sum(x.size for x in weights) * transitions_drawn(config)
        tiny = work < _TINY_WORK and all(x.ndim < 4 for x in weights)
        block_size = _TINY_BLOCK if tiny else 1
    elif block_size == 0:
        block_size = -(-per_device // -(-per_device // _ACCELERATOR_BLOCK))  # as few as possible, of one size
    blocks = -(-per_device // block_size)
    return ShardedLayout(lanes, len(devices) * blocks * block_size, block_size, Mesh(np.array(devices), ("lanes",)))


@dataclasses.dataclass(frozen=True)
class BlockLayout:
    """Blocks one by one, dealt out to the devices in turn; replays may all be in the host's memory.

    Batched over lanes, a convolution has weights of its own for each, which is slow on CPU: there every lane is a
    block. On an accelerator there is one block for each device.
    """

    lanes: int
    block_size: int
    devices: tuple[jax.Device, ...]
    host: jax.Device | None = None  # where replays are, if not with their lanes

    def device_of(self, block: int) -> jax.Device:
        """The device on which a block is."""
        return self.devices[block % len(self.devices)]

    def blocks_of(self, lanes: np.ndarray) -> list[int]:
        """The blocks in which the lanes `[n]` are, each once, in their order."""
        return np.unique(lanes // self.block_size).tolist()

    def lanes_of(self, block: int) -> slice:
        """Which lanes a block holds; the last one may be filled up beyond `lanes`."""
        return slice(block * self.block_size, (block + 1) * self.block_size)

    def place(self, tree: Tree) -> Blocks[Tree]:
        """Put leaves `[l, ...]` from the host, `l <= lanes`, on the devices; a last block is filled with lane l - 1."""
        lanes = len(jax.tree.leaves(tree)[0])

        def block(number: int) -> Tree:
            own: slice | np.ndarray = self.lanes_of(number)  # replays are large: a slice is no copy
            if (number + 1) * self.block_size > lanes:
                own = np.minimum(np.arange(number * self.block_size, (number + 1) * self.block_size), lanes - 1)
            where: PyTree = self.device_of(number)
            if self.host is not None and isinstance(tree, LaneState):
                where = LaneState(*[where] * len(tree))._replace(replay=self.host)
            return jax.device_put(jax.tree.map(lambda x: x[own], tree), where)

        return [block(number) for number in range(-(-lanes // self.block_size))]

    def fetch(self, tree: PyTree, lanes: np.ndarray) -> PyTree:
        """Leaves `[n, ...]` of the lanes `[n]`, on the host, of blocks or of leaves `[L, ...]`; keys stay keys."""
        if not isinstance(tree, list):
            return jax.tree.map(lambda x: np.asarray(x)[lanes], tree)
        blocks = np.unique(lanes // self.block_size)
        places = np.searchsorted(blocks, lanes // self.block_size) * self.block_size + lanes % self.block_size

        def get(*parts: jax.Array) -> PyTree:
            if jax.dtypes.issubdtype(parts[0].dtype, jax.dtypes.prng_key):
                return wrap_key_data(get(*(key_data(x) for x in parts)))
            # One block in its order is given as it is, without a copy.
            whole = np.asarray(parts[0]) if len(parts) == 1 else np.concatenate([np.asarray(x) for x in parts])
            return whole if np.array_equal(places, np.arange(len(whole))) else whole[places]

        return jax.tree.map(get, *(tree[block] for block in blocks))

    def active(self, lanes: np.ndarray) -> np.ndarray:
        """The lanes `[n]` that a chunk advances."""
        return lanes
