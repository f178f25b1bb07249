"""What rings of every kind share: sizes that are possible, and draws of distinct places."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dqn_jax.prng import random_index
from dqn_jax.types import Key


def check_sizes(*, capacity: int, batch_size: int, **others: int) -> None:
    """Check what a replay is made of.

    Raises:
      ValueError: if a size is not positive, or a batch is larger than the buffer.
    """
    for name, value in {"capacity": capacity, "batch_size": batch_size, **others}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if batch_size > capacity:
        raise ValueError(f"batch_size {batch_size} is larger than capacity {capacity}")


def _distinct_indices(key: Key, count: int, size: jax.Array) -> jax.Array:
    """`[count]` int32 from `[0, size)`, all different, in uniformly random order; `size` is at least `count`.

    The first `count` swaps of a Fisher-Yates shuffle of all positions. Only positions touched so far are
    remembered, so that it takes no memory or time for the others.
    """
    places = jnp.arange(count)
    swapped_with = places + random_index(key, (count,), size - places)

    def content(position: jax.Array, moved: jax.Array, swaps: jax.Array) -> jax.Array:
        """What lies at `position` after `swaps` swaps: itself, or what the last swap with it put there."""
        last = jnp.max(jnp.where((swapped_with == position) & (places < swaps), places, -1))
        return jnp.where(last < 0, position, moved[last])

    def swap(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        drawn, moved = carry
        drawn = drawn.at[i].set(content(swapped_with[i], moved, i))
        return drawn, moved.at[i].set(content(i, moved, i))

    return jax.lax.fori_loop(0, count, swap, (places, places))[0]
