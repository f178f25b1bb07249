"""A tree of sums: draws in proportion to masses, and changes of them, each O(log capacity).

A node has `FANOUT` children, and a level of the tree is one array: masses first, then the sums of every `FANOUT` of
them, and so on up to a root of one node. Wide nodes make few levels, each of which is one gather and one scatter,
whatever the batch. Sums are made anew from the children that changed, and never by differences: nothing drifts,
and a tree is a function of its masses alone.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

FANOUT = 16

Levels = tuple[jax.Array, ...]
"""Float32 arrays, each a multiple of `FANOUT` long: the masses, `[capacity]` and zeros beyond, then level by level the
sums of their nodes, up to a level that is one node."""


def empty_tree(capacity: int) -> Levels:
    """The tree of `capacity` masses, all 0."""
    levels: list[jax.Array] = []
    nodes = capacity
    while not levels or nodes > 1:
        nodes = -(-nodes // FANOUT)
        levels.append(jnp.zeros((nodes * FANOUT,), jnp.float32))
    return tuple(levels)


def set_masses(levels: Levels, place: jax.Array, mass: jax.Array) -> Levels:
    """The tree with `mass` `[B]`, float32, at `place` `[B]`, int32; of a place that is given twice the last one counts.

    Where all the places of a node are among them, its sum is made B times over, each time the same.
    """
    count = jnp.arange(place.shape[0])
    latest = jnp.max(jnp.where(place[:, None] == place[None], count[None], 0), axis=1)
    changed = [levels[0].at[place].set(mass[latest], mode="promise_in_bounds")]
    node = place
    for level in levels[1:]:
        node = node // FANOUT
        changed.append(level.at[node].set(_sum(_children(changed[-1], node)), mode="promise_in_bounds"))
    return tuple(changed)


def find(levels: Levels, target: jax.Array, finer: jax.Array) -> jax.Array:
    """The places, `[B]` int32, at which the running sum of masses passes `target + finer` (`[B]` each, float32).

    A place without mass is never found, however sums are rounded; where there is no mass at all, the first is.

    Args:
      levels: the tree.
      target: from 0 to the sum of all masses, in steps of float32.
      finer: what lies between such steps. In a node far down it is no longer lost beside `target`: with a million
        masses the steps alone would make some places likelier than others by a sixteenth of their mass.
    """
    place = jnp.zeros(target.shape, jnp.int32)
    for depth, level in enumerate(reversed(levels)):
        if depth == (len(levels) + 1) // 2:
            target = target + finer
        child, begin = _search(_children(level, place), target)
        place, target = place * FANOUT + child, target - begin
    return place


def total(levels: Levels) -> jax.Array:
    """The sum of all masses, `[]` float32."""
    return _sum(levels[-1][None])[0]


def mass_at(levels: Levels, place: jax.Array) -> jax.Array:
    """The masses `[B]` at `place` `[B]`."""
    return levels[0].at[place].get(mode="promise_in_bounds")


def _children(level: jax.Array, node: jax.Array) -> jax.Array:
    """`[B, FANOUT]`, those of the nodes `[B]` above a level."""
    return level.reshape(-1, FANOUT).at[node].get(mode="promise_in_bounds")


def _sum(masses: jax.Array) -> jax.Array:
    """`[B]`, the sums of `[B, FANOUT]`, half onto half: XLA's own sum has another order in another batch."""
    while masses.shape[1] > 1:
        half = masses.shape[1] // 2
        masses = masses[:, :half] + masses[:, half:]
    return masses[:, 0]


def _search(masses: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The last child with mass that begins at `target` `[B]` or before, among `[B, FANOUT]`, and where it begins."""
    ends, step = masses, 1
    while step < FANOUT:  # prefix sums by Hillis & Steele 1986, a third faster here than a loop or `jnp.cumsum`
        ends = ends + jnp.pad(ends, ((0, 0), (step, 0)))[:, :FANOUT]
        step *= 2
    begins = jnp.pad(ends, ((0, 0), (1, 0)))[:, :FANOUT]
    here = (masses > 0.0) & (begins <= target[:, None])
    child = jnp.max(jnp.where(here, jnp.arange(FANOUT), 0), axis=1)
    return child, jnp.max(jnp.where(here, begins, 0.0), axis=1)
