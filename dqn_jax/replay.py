"""Uniform experience replay as pure functions: `Replay(init, add, sample)`.

The buffer is a ring of rows, one row per vector step with its `N` transitions, so that adding is one
contiguous in-place write and sampling is random integers: O(batch), whatever the capacity.
Observations keep their dtype (bytes stay bytes).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dqn_jax.prng import random_index
from dqn_jax.types import Key, Transition


class ReplayState(NamedTuple):
    """The stored transitions and how many rows were ever written."""

    storage: Transition  # leaves [rows, N, ...]
    rows_added: jax.Array  # [], int32, rows written since the start; the write position is its remainder


class ReplayInit(Protocol):
    """An empty buffer for transitions shaped and typed as `example` (one transition, no batch axis)."""

    def __call__(self, example: Transition) -> ReplayState: ...


class ReplayAdd(Protocol):
    """Write one row of `N` transitions (leaves `[N, ...]`), overwriting the oldest row when full."""

    def __call__(self, state: ReplayState, transitions: Transition) -> ReplayState: ...


class ReplaySample(Protocol):
    """`batch_size` transitions (leaves `[B, ...]`), uniform with replacement over those stored."""

    def __call__(self, state: ReplayState, key: Key) -> Transition: ...


class Replay(NamedTuple):
    """A replay buffer: three pure functions. `sample` must not be called on an empty buffer."""

    init: ReplayInit
    add: ReplayAdd
    sample: ReplaySample


def make_replay(capacity: int, batch_size: int, num_envs: int) -> Replay:
    """A uniform replay of at least `capacity` transitions, written `num_envs` at a time.

    The capacity is rounded up to whole rows of `num_envs`.

    Args:
      capacity: transitions kept before the oldest are overwritten.
      batch_size: transitions per sample.
      num_envs: transitions per `add`.

    Raises:
      ValueError: if an argument is not positive, or a batch is larger than the buffer.

    Reference: Lin 1992; Mnih et al. 2013 (arXiv 1312.5602), Algorithm 1.
    """
    for name, value in (("capacity", capacity), ("batch_size", batch_size), ("num_envs", num_envs)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if batch_size > capacity:
        raise ValueError(f"batch_size {batch_size} is larger than capacity {capacity}")
    rows = -(-capacity // num_envs)

    def init(example: Transition) -> ReplayState:
        storage = jax.tree.map(lambda x: jnp.zeros((rows, num_envs, *jnp.shape(x)), jnp.result_type(x)), example)
        return ReplayState(storage, jnp.zeros((), jnp.int32))

    def add(state: ReplayState, transitions: Transition) -> ReplayState:
        row = state.rows_added % rows
        storage = jax.tree.map(
            lambda buffer, x: jax.lax.dynamic_update_index_in_dim(buffer, x.astype(buffer.dtype), row, 0),
            state.storage,
            transitions,
        )
        return ReplayState(storage, state.rows_added + 1)

    def sample(state: ReplayState, key: Key) -> Transition:
        size = jnp.minimum(state.rows_added, rows) * num_envs
        index = random_index(key, (batch_size,), size)
        # Flattening the two leading axes is free, and one flat index makes one gather per leaf.
        return jax.tree.map(
            lambda buffer: buffer.reshape(rows * num_envs, *buffer.shape[2:]).at[index].get(mode="promise_in_bounds"),
            state.storage,
        )

    return Replay(init, add, sample)
