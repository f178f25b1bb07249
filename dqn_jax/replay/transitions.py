"""Experience replay as pure functions: `Replay(init, add, sample, clear)`.

The buffer is a ring of rows, one row per vector step with its `N` transitions, so that adding is one
contiguous in-place write and sampling is random integers: O(batch), whatever the capacity.
Observations keep their dtype (bytes stay bytes).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dqn_jax.config import Sampling
from dqn_jax.prng import random_index
from dqn_jax.replay.ring import _distinct_indices, check_sizes
from dqn_jax.types import Key, Transition


class ReplayState(NamedTuple):
    """The stored transitions and how many rows were ever written."""

    storage: Transition  # leaves [rows, N, ...]
    rows_added: jax.Array  # [], int32, rows written since it was empty; the write position is its remainder


class ReplayInit(Protocol):
    """An empty buffer for transitions shaped and typed as `example` (one transition, no batch axis)."""

    def __call__(self, example: Transition) -> ReplayState: ...


class ReplayAdd(Protocol):
    """Write one row of `N` transitions (leaves `[N, ...]`), overwriting the oldest row when full."""

    def __call__(self, state: ReplayState, transitions: Transition) -> ReplayState: ...


class ReplaySample(Protocol):
    """`batch_size` transitions (leaves `[B, ...]`), drawn from those stored as `sampling` says."""

    def __call__(self, state: ReplayState, key: Key) -> Transition: ...


class ReplayClear(Protocol):
    """An empty buffer where `when` (`[]`, bool) holds, else the same."""

    def __call__(self, state: ReplayState, when: jax.Array | bool) -> ReplayState: ...


class Replay(NamedTuple):
    """A replay buffer: pure functions. `sample` must not be called on an empty buffer."""

    init: ReplayInit
    add: ReplayAdd
    sample: ReplaySample
    clear: ReplayClear


def make_replay(capacity: int, batch_size: int, num_envs: int, sampling: Sampling = "with_replacement") -> Replay:
    """A replay of at least `capacity` transitions, written `num_envs` at a time.

    The capacity is rounded up to whole rows of `num_envs`.

    Args:
      capacity: transitions kept before the oldest are overwritten.
      batch_size: transitions per sample.
      num_envs: transitions per `add`.
      sampling: how a batch is drawn. "with_replacement": uniformly. "without_replacement": uniformly, all
        different, in random order; while fewer are stored than a batch needs, with replacement. "latest": the
        newest, oldest of them first (row by row; within a row by environment); while fewer are stored, all of
        them, over and over.

    Raises:
      ValueError: if an argument is not positive, or a batch is larger than the buffer.

    Reference: Lin 1992; Mnih et al. 2013 (arXiv 1312.5602), Algorithm 1.
    """
    check_sizes(capacity=capacity, batch_size=batch_size, num_envs=num_envs)
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
        if sampling == "latest":
            newest = jnp.minimum(size, batch_size)
            first = (state.rows_added % rows) * num_envs - newest + rows * num_envs
            index = (first + jnp.arange(batch_size) % newest) % (rows * num_envs)
        elif sampling == "without_replacement":
            repeated_key, distinct_key = jax.random.split(key)
            enough = size >= batch_size
            distinct = _distinct_indices(distinct_key, batch_size, jnp.maximum(size, batch_size))
            index = jnp.where(enough, distinct, random_index(repeated_key, (batch_size,), size))
        else:
            index = random_index(key, (batch_size,), size)
        # Flattening the two leading axes is free, and one flat index makes one gather per leaf.
        return jax.tree.map(
            lambda buffer: buffer.reshape(rows * num_envs, *buffer.shape[2:]).at[index].get(mode="promise_in_bounds"),
            state.storage,
        )

    def clear(state: ReplayState, when: jax.Array | bool) -> ReplayState:
        return state._replace(rows_added=jnp.where(when, 0, state.rows_added))

    return Replay(init, add, sample, clear)
