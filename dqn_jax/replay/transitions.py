"""A memory of whole transitions, for environments on the device.

A ring of rows, one row per vector step with its `N` transitions, so that adding is one contiguous in-place write and
sampling is random integers: O(batch), whatever the capacity. Observations keep their dtype (bytes stay bytes).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dqn_jax.config import HParams, Sampling
from dqn_jax.replay.memory import Memory, QValuesOf
from dqn_jax.replay.ring import ReplayState, check_sizes, clear, draw, empty_ring, keep_priorities, take, write
from dqn_jax.types import Batch, Key, TransitionRow


def transition_memory(
    capacity: int, batch_size: int, num_envs: int, *, sampling: Sampling = "with_replacement"
) -> Memory:
    """A memory of at least `capacity` transitions, written as `TransitionRow`s of `num_envs`.

    Args:
      capacity: transitions kept before the oldest are overwritten, rounded up to whole rows.
      batch_size: transitions per sample. All have the same weight: None.
      num_envs: transitions per row.
      sampling: how a batch is drawn, as `ring.draw` says.

    Raises:
      ValueError: if an argument is not positive, or a batch is larger than the ring.

    Reference: Lin 1992; Mnih et al. 2013 (arXiv 1312.5602), Algorithm 1.
    """
    check_sizes(capacity=capacity, batch_size=batch_size, num_envs=num_envs)
    rows = -(-capacity // num_envs)
    places = rows * num_envs

    def init(example_row: TransitionRow) -> ReplayState:
        return ReplayState(empty_ring(example_row.transition, rows), jnp.zeros((), jnp.int32))

    def add(state: ReplayState, row: TransitionRow, envs: jax.Array | None = None) -> ReplayState:
        assert envs is None, "environments on the device step together"
        storage = write(state.storage, row.transition, state.rows_added % rows)
        return state._replace(storage=storage, rows_added=state.rows_added + 1)

    def sample(state: ReplayState, key: Key, hparams: HParams, q_values: QValuesOf | None = None) -> Batch:
        del hparams, q_values
        stored = jnp.minimum(state.rows_added, rows) * num_envs
        end = (state.rows_added % rows) * num_envs
        place = draw(key, sampling, count=batch_size, stored=stored, end=end, places=places)
        return Batch(jax.tree.map(lambda ring: take(ring, place), state.storage), None, place)

    return Memory(init, add, sample, keep_priorities, clear)
