"""Prioritised replay: places are drawn in proportion to a power of their last TD error.

A place gets mass once its whole window is stored and it is a transition, and loses it with its oldest row. Priorities
are apart from the rows, which is what a loop of updates carries on.

Reference: Schaul et al. 2016, "Prioritized Experience Replay" (arXiv 1511.05952), the proportional variant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dqn_jax.config import HParams
from dqn_jax.replay import frames, transitions
from dqn_jax.replay.memory import Memory, QValuesOf
from dqn_jax.replay.ring import ReplayState
from dqn_jax.replay.sum_tree import empty_tree, find, mass_at, set_masses, total
from dqn_jax.types import Batch, FrameRow, Key, PyTree


class Priorities(NamedTuple):
    """What TD errors change, and new rows."""

    tree: jax.Array  # [M], float32, of masses, `(|td_error| + priority_eps) ** priority_exponent` of each place
    largest: jax.Array  # [], float32, the largest mass that was ever there, at least 1: that of new places
    updates: jax.Array  # [], int32, updates made of what was drawn


class _Window(NamedTuple):
    """How many rows before and after that of a place belong to it: it can be drawn while all are stored."""

    before: int
    after: int


def prioritized_transitions(
    capacity: int, batch_size: int, num_envs: int, *, n_step: int = 1, updates_per_batch: int = 1
) -> Memory:
    """`transition_memory`, drawn from by priority; what is not said here is as there.

    Args:
      capacity: transitions kept before the oldest are overwritten, rounded up to whole rows.
      batch_size: transitions per sample, each with its importance weight; `_sample` says how they are drawn.
      num_envs: transitions per row.
      n_step: rewards summed before the bootstrap.
      updates_per_batch: gradient steps made of each, which the annealing counts.

    Raises:
      ValueError: if an argument is not positive, or a batch is larger than the ring.
    """
    plain = transitions.transition_memory(capacity, batch_size, num_envs, n_step=n_step)

    def gather(storage: PyTree, place: jax.Array, hparams: HParams) -> Batch:
        return Batch(transitions.gather(storage, place, hparams.discount, n_step=n_step), None, place)

    def learnable(storage: PyTree, place: jax.Array) -> jax.Array:
        return jnp.ones(place.shape, bool)

    return _by_priority(plain, gather, learnable, _Window(0, n_step - 1), batch_size, updates_per_batch)


def prioritized_frames(
    capacity: int,
    batch_size: int,
    num_envs: int,
    *,
    frame_stack: int = 1,
    n_step: int = 1,
    asynchronous: bool = False,
    updates_per_batch: int = 1,
) -> Memory:
    """`frame_memory`, drawn from by priority; arguments are as there and in `prioritized_transitions`.

    What is no transition is never drawn, and takes no room among what is.

    Raises:
      ValueError: if an argument is not positive, or a batch is larger than the ring.
    """
    plain = frames.frame_memory(
        capacity, batch_size, num_envs, frame_stack=frame_stack, n_step=n_step, asynchronous=asynchronous
    )

    def gather(storage: FrameRow, place: jax.Array, hparams: HParams) -> Batch:
        rows, envs = place // num_envs, place % num_envs
        return frames.gather(storage, rows, envs, hparams.discount, frame_stack=frame_stack, n_step=n_step)

    def learnable(storage: FrameRow, place: jax.Array) -> jax.Array:
        following = (place + num_envs) % storage.first.size
        return ~storage.first.reshape(-1).at[following].get(mode="promise_in_bounds")

    window = _Window(frame_stack - 1, n_step)
    return _by_priority(plain, gather, learnable, window, batch_size, updates_per_batch)


def _by_priority(
    plain: Memory,
    gather: Callable[[PyTree, jax.Array, HParams], Batch],
    learnable: Callable[[PyTree, jax.Array], jax.Array],
    window: _Window,
    batch_size: int,
    updates_per_batch: int,
) -> Memory:
    """A memory that stores what `plain` does, and draws from it by priority.

    The sum of masses is cut into `batch_size` equal strata, and one place is drawn from each, as in the paper. Its
    weight is `(N * P(place)) ** -importance_exponent`, over the largest in the batch (the paper's algorithm divides by
    the largest of all, a bound that only shrinks steps more), with an exponent that goes linearly from
    `importance_exponent` to `importance_exponent_end` in `importance_anneal_updates` updates.

    Args:
      plain: what stores rows.
      gather: `(storage, places [B], hparams)`, the batch of places; its weight is 0 or 1, or None for 1.
      learnable: `(storage, places [M])`, whether a transition begins there, `[M]` bool, now that its window is stored.
      window: which rows belong to a place.
      batch_size: places per sample.
      updates_per_batch: gradient steps made of each.
    """

    def init(example_row: PyTree) -> ReplayState:
        state = plain.init(example_row)
        rows, num_envs = _sizes(state)
        priorities = Priorities(empty_tree(rows * num_envs), jnp.ones((), jnp.float32), jnp.zeros((), jnp.int32))
        return state._replace(priorities=priorities)

    def add(state: ReplayState, row: PyTree, envs: jax.Array | None = None) -> ReplayState:
        rows, num_envs = _sizes(state)
        newest = state.rows_added if envs is None else state.rows_added[envs]  # the number of the row that comes
        state = plain.add(state, row, envs)
        envs = jnp.arange(num_envs) if envs is None else envs
        tree, largest, updates = state.priorities
        complete = newest - window.after
        place = complete % rows * num_envs + envs
        mass = jnp.where((complete >= window.before) & learnable(state.storage, place), largest, 0.0)
        if window.before + window.after > 0:  # else the same place, which is drawn from at once
            place = jnp.concatenate([place, (newest + window.before) % rows * num_envs + envs])
            mass = jnp.concatenate([mass, jnp.zeros(envs.shape)])
        return state._replace(priorities=Priorities(set_masses(tree, place, mass), largest, updates))

    def sample(state: ReplayState, key: Key, hparams: HParams, q_values: QValuesOf | None = None) -> Batch:
        del q_values
        tree, _, updates = state.priorities
        coarse, fine = jax.random.uniform(key, (2, batch_size))
        mass = total(tree)
        place = find(tree, (jnp.arange(batch_size) + coarse) * (mass / batch_size), fine * (mass * _STEP))
        place = jnp.minimum(place, _sizes(state)[0] * _sizes(state)[1] - 1)  # beyond are sums of a diverged lane
        batch = gather(state.storage, place, hparams)
        weight = importance_weights(mass_at(tree, place), updates, hparams)
        return batch._replace(weight=weight if batch.weight is None else weight * batch.weight)

    def reprioritize(priorities: Priorities, place: jax.Array, td_error: jax.Array, hparams: HParams) -> Priorities:
        tree, largest, updates = priorities
        mass = (jnp.abs(td_error) + hparams.priority_eps) ** hparams.priority_exponent
        # Where nothing could be drawn, places without mass were: they are to stay so.
        mass = jnp.where(mass_at(tree, place) > 0.0, mass, 0.0)
        return Priorities(
            set_masses(tree, place, mass), jnp.maximum(largest, jnp.max(mass)), updates + updates_per_batch
        )

    return Memory(init, add, sample, reprioritize, plain.clear)


_STEP = 2.0**-24
"""The most that a float32 between 0 and 1 is from the next."""


def importance_weights(mass: jax.Array, updates: jax.Array, hparams: HParams) -> jax.Array:
    """The weights of a batch of masses `[B]`, float32: 1 for the smallest, which is drawn least; 0 without mass.

    Args:
      mass: of what was drawn.
      updates: `[]`, int32, updates made before it.
      hparams: `importance_exponent`, `importance_exponent_end` and `importance_anneal_updates`.
    """
    start, end = hparams.importance_exponent, hparams.importance_exponent_end
    share = jnp.minimum(updates / hparams.importance_anneal_updates, 1.0)
    exponent = start + share * (end - start)
    some = mass > 0.0
    least = jnp.min(jnp.where(some, mass, jnp.inf))
    return jnp.where(some, (least / jnp.where(some, mass, 1.0)) ** exponent, 0.0)


def _sizes(state: ReplayState) -> tuple[int, int]:
    """How many rows a ring has, and environments."""
    rows, num_envs, *_ = jax.tree.leaves(state.storage)[0].shape
    return rows, num_envs
