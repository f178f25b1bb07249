"""A memory of whole transitions, for environments on the device.

A ring of rows, one row per vector step with its `N` transitions, so that adding is one contiguous in-place write and
sampling is random integers: O(batch), whatever the capacity. Observations keep their dtype (bytes stay bytes).

Each transition brings its next observation along, and so rewards are summed over n steps when a batch is drawn, by
index: rows then say besides where episodes ended.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dqn_jax.config import HParams, Sampling
from dqn_jax.replay.memory import Memory, QValuesOf
from dqn_jax.replay.ring import ReplayState, check_sizes, clear, draw, empty_ring, keep_priorities, take, write
from dqn_jax.types import Batch, Key, PyTree, Transition, TransitionRow


def transition_memory(
    capacity: int, batch_size: int, num_envs: int, *, sampling: Sampling = "with_replacement", n_step: int = 1
) -> Memory:
    """A memory of at least `capacity` transitions that can be drawn, written as `TransitionRow`s of `num_envs`.

    `sample` draws from the places whose whole window of `n_step` rows is stored: it needs as many rows.

    Args:
      capacity: transitions kept before the oldest are overwritten, rounded up to whole rows. `n_step - 1` rows more are
        stored: those that the newest of these transitions look ahead to.
      batch_size: transitions per sample. All have the same weight: None.
      num_envs: transitions per row.
      sampling: how a batch is drawn, as `ring.draw` says.
      n_step: rewards summed before the bootstrap, as `gather` says.

    Raises:
      ValueError: if an argument is not positive, or a batch is larger than the ring.

    Reference: Lin 1992; Mnih et al. 2013 (arXiv 1312.5602), Algorithm 1.
    """
    check_sizes(capacity=capacity, batch_size=batch_size, num_envs=num_envs, n_step=n_step)
    ahead = n_step - 1
    rows = -(-capacity // num_envs) + ahead
    places = rows * num_envs

    def init(example_row: TransitionRow) -> ReplayState:
        return ReplayState(empty_ring(_kept(example_row, n_step), rows), jnp.zeros((), jnp.int32))

    def add(state: ReplayState, row: TransitionRow, envs: jax.Array | None = None) -> ReplayState:
        assert envs is None, "environments on the device step together"
        storage = write(state.storage, _kept(row, n_step), state.rows_added % rows)
        return state._replace(storage=storage, rows_added=state.rows_added + 1)

    def sample(state: ReplayState, key: Key, hparams: HParams, q_values: QValuesOf | None = None) -> Batch:
        del q_values
        stored = jnp.minimum(state.rows_added, rows)
        place = draw(key, sampling, count=batch_size, stored=(stored - ahead) * num_envs)
        if n_step > 1 or sampling == "latest":
            oldest = (state.rows_added - stored) % rows
            place = (oldest * num_envs + place) % places
        # Else one place is as good as another, and which of them is the oldest does not matter.
        return Batch(gather(state.storage, place, hparams.discount, n_step=n_step), None, place)

    return Memory(init, add, sample, keep_priorities, clear)


def _kept(row: TransitionRow, n_step: int) -> PyTree:
    """What is stored of a row: whether episodes ended only where a window may look beyond it."""
    return row.transition if n_step == 1 else row


def gather(storage: PyTree, place: jax.Array, discount: jax.Array | float, *, n_step: int) -> Transition:
    """The n-step transitions (leaves `[B, ...]`) of the places `place` (`[B]`, int32).

    With m the rows from place k to the end of its window, n, or fewer where the episode ends before that:

      obs_tm1, a_tm1: those of row k.
      r_t: the sum over i = 0..m-1 of `discount ** i` times the reward of row k + i.
      discount_t: `discount ** (m - 1)`, or 0 where row k + m - 1 is a termination. The agent's own factor is the m-th.
      obs_t: that of row k + m - 1: the true last observation where a time limit ended the episode.

    Args:
      storage: a ring of transitions (leaves `[R, N, ...]`) where `n_step` is 1, of `TransitionRow`s where it is more.
      place: whose whole windows of `n_step` rows are stored.
      discount: `[]` float32.
      n_step: rewards summed before the bootstrap.

    Reference: Sutton and Barto 2018, section 7.1; Hessel et al. 2018 (arXiv 1710.02298) for Q-learning.
    """
    if n_step == 1:
        return jax.tree.map(lambda ring: take(ring, place), storage)
    ring, ended = storage
    num_rows, num_envs = ended.shape
    window = (place[:, None] + num_envs * jnp.arange(n_step)[None]) % (num_rows * num_envs)  # [B, n]
    stops = jnp.pad(take(ended, window[:, :-1]), ((0, 0), (1, 0)))
    reached = jax.lax.cummin((~stops).astype(jnp.int32), axis=1)  # [B, n], 1 where the window gets to this row
    steps = jnp.sum(reached, axis=1)
    rewards = take(ring.r_t, window) * (discount ** jnp.arange(n_step))[None]
    last = (place + num_envs * (steps - 1)) % (num_rows * num_envs)
    return Transition(
        obs_tm1=take(ring.obs_tm1, place),
        a_tm1=take(ring.a_tm1, place),
        r_t=jnp.sum(jnp.where(reached > 0, rewards, 0.0), axis=1),
        discount_t=take(ring.discount_t, last) * discount ** (steps - 1),
        obs_t=take(ring.obs_t, last),
    )
