"""Where the lanes of a population over pools are: in blocks, on devices."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from dqn_jax.lanes.pool import PoolLaneState
from dqn_jax.prng import key_data, wrap_key_data

Blocks = list[Any]
"""Trees with leaves `[block_size, ...]`, one after another."""


class PoolLayout(NamedTuple):
    """Up to L lanes in blocks of one size, dealt out to the devices in turn; replays may all be in the host's memory.

    Batched over lanes, a convolution has weights of its own for each, which is slow on CPU: there every lane is a
    block. On an accelerator there is one block for each device.
    """

    lanes: int
    block_size: int
    devices: tuple[jax.Device, ...]
    host: jax.Device | None = None  # where replays are, if not with their lanes

    def device_of(self, block: int) -> jax.Device:
        """Where a block is."""
        return self.devices[block % len(self.devices)]

    def place(self, tree: Any) -> Blocks:
        """Put leaves `[l, ...]` from the host, `l <= lanes`, on the devices; a last block is filled with lane l - 1."""
        lanes = len(jax.tree.leaves(tree)[0])

        def block(number: int) -> Any:
            first, end = number * self.block_size, (number + 1) * self.block_size
            # Replays are large: a slice is no copy.
            own: Any = slice(first, end) if end <= lanes else np.minimum(np.arange(first, end), lanes - 1)
            where: Any = self.device_of(number)
            if self.host is not None and isinstance(tree, PoolLaneState):
                where = PoolLaneState(*[where] * len(tree))._replace(replay=self.host)
            return jax.device_put(jax.tree.map(lambda x: x[own], tree), where)

        return [block(number) for number in range(-(-lanes // self.block_size))]

    def fetch(self, tree: Any, lanes: np.ndarray) -> Any:
        """Leaves `[n, ...]` of the lanes `[n]`, on the host, of blocks or of leaves `[L, ...]`; keys stay keys."""
        if not isinstance(tree, list):
            return jax.tree.map(lambda x: np.asarray(x)[lanes], tree)
        blocks = np.unique(lanes // self.block_size)
        places = np.searchsorted(blocks, lanes // self.block_size) * self.block_size + lanes % self.block_size

        def get(*parts: Any) -> Any:
            if jax.dtypes.issubdtype(parts[0].dtype, jax.dtypes.prng_key):
                return wrap_key_data(get(*(key_data(x) for x in parts)))
            # One block in its order is given as it is, without a copy.
            whole = np.asarray(parts[0]) if len(parts) == 1 else np.concatenate([np.asarray(x) for x in parts])
            return whole if np.array_equal(places, np.arange(len(whole))) else whole[places]

        return jax.tree.map(get, *(tree[block] for block in blocks))

    def active(self, lanes: np.ndarray) -> np.ndarray:
        """The lanes `[n]` that a chunk advances."""
        return lanes
