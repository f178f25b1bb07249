"""What memories of every kind share: rings of rows, places in them, and draws of places."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dqn_jax.config import HParams, Sampling
from dqn_jax.prng import random_index
from dqn_jax.types import Key, PyTree


class ReplayState(NamedTuple):
    """The state of every memory. A checkpoint appends the rows of `storage`, and writes the rest, which is small."""

    storage: PyTree  # leaves [R, N, ...]: a row for each vector step of N environments
    # [], or [N] where environments step asynchronously, int32: rows written since it was empty. Where the next one
    # goes is its remainder.
    rows_added: jax.Array
    priorities: PyTree = ()  # what `Memory.reprioritize` changes; () where there are none


def check_sizes(*, capacity: int, batch_size: int, **others: int) -> None:
    """Check what a memory is made of.

    Raises:
      ValueError: if a size is not positive, or a batch is larger than the ring.
    """
    for name, value in {"capacity": capacity, "batch_size": batch_size, **others}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if batch_size > capacity:
        raise ValueError(f"batch_size {batch_size} is larger than capacity {capacity}")


def empty_ring(row: PyTree, rows: int) -> PyTree:
    """Zeros `[rows, N, ...]` for rows shaped and typed as `row` (leaves `[N, ...]`)."""
    return jax.tree.map(lambda x: jnp.zeros((rows, *jnp.shape(x)), jnp.result_type(x)), row)


def write(storage: PyTree, row: PyTree, position: jax.Array) -> PyTree:
    """A ring (leaves `[R, N, ...]`) with `row` (leaves `[N, ...]`) at `position` (`[]`, int32), in place."""
    return jax.tree.map(
        lambda ring, x: jax.lax.dynamic_update_index_in_dim(ring, x.astype(ring.dtype), position, 0), storage, row
    )


def take(ring: jax.Array, place: jax.Array) -> jax.Array:
    """`[*place.shape, ...]`, what a ring `[R, N, ...]` holds at each place (int32): row * N + environment.

    Flattening the two leading axes is free, and one flat index makes one gather.
    """
    flat = ring.reshape(ring.shape[0] * ring.shape[1], *ring.shape[2:])
    return flat.at[place].get(mode="promise_in_bounds")


def keep_priorities(priorities: PyTree, place: jax.Array, td_error: jax.Array, hparams: HParams) -> PyTree:
    """`Memory.reprioritize` where TD errors change nothing."""
    del place, td_error, hparams
    return priorities


def clear(state: ReplayState, when: jax.Array | bool) -> ReplayState:
    """`Memory.clear`: rows that are no longer counted are never drawn."""
    return state._replace(rows_added=jnp.where(when, 0, state.rows_added))


def draw(key: Key, sampling: Sampling, *, count: int, stored: jax.Array) -> jax.Array:
    """`count` of `stored` elements that are numbered by age, the oldest 0: `[count]` int32.

    Args:
      key: random key.
      sampling: how: "with_replacement", uniformly. "without_replacement", uniformly, all different, in random order;
        while fewer are stored, with replacement. "latest", the newest, oldest of them first; while fewer are stored,
        all of them, over and over.
      count: elements to draw.
      stored: `[]`, int32, how many there are, at least one.
    """
    if sampling == "latest":
        newest = jnp.minimum(stored, count)
        return stored - newest + jnp.arange(count) % newest
    if sampling == "without_replacement":
        repeated_key, distinct_key = jax.random.split(key)
        enough = stored >= count
        distinct = distinct_indices(distinct_key, count, jnp.maximum(stored, count))
        return jnp.where(enough, distinct, random_index(repeated_key, (count,), stored))
    return random_index(key, (count,), stored)


def distinct_indices(key: Key, count: int, size: jax.Array) -> jax.Array:
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
