"""A tree of sums: draws in proportion to masses, and changes of them, each O(log capacity).

A node has `FANOUT` children, and the tree is one array of all their sums, as a heap is: children 0, 1, ... of node n,
which are nodes `FANOUT * n + 1` and on, have their sums from `FANOUT * n` on, so that the sum of node n stands at
`n - 1`. The last level is masses. Wide nodes make few levels, each of which is one gather and one scatter, whatever the
batch; a loop over levels, since XLA would fuse one into the next and compute it many times. Sums are made anew from the
children that changed, and never by differences: nothing drifts, and a tree is a function of its masses alone.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

FANOUT = 16


def empty_tree(capacity: int) -> jax.Array:
    """The tree of `capacity` masses, all 0: float32, whole nodes, those of the last level that no mass needs left out.

    It takes 4 bytes for a place, and up to as much again above them where the last level is short.
    """
    nodes = level = 1
    while level * FANOUT < capacity:
        level *= FANOUT
        nodes += level
    return jnp.zeros(((nodes - level - (-capacity // FANOUT)) * FANOUT,), jnp.float32)


def set_masses(tree: jax.Array, place: jax.Array, mass: jax.Array) -> jax.Array:
    """The tree with `mass` `[B]`, float32, at `place` `[B]`, int32; of a place that is given twice the last one counts.

    Where all the places of a node are among them, its sum is made B times over, each time the same.
    """
    count = jnp.arange(place.shape[0])
    latest = jnp.max(jnp.where(place[:, None] == place[None], count[None], 0), axis=1)
    above, first = _above(tree)
    changed = first + place
    tree = tree.at[changed].set(mass[latest], mode="promise_in_bounds")

    def level_above(_: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        tree, changed = carry
        node = changed // FANOUT
        return tree.at[node - 1].set(_sum(_children(tree, node)), mode="promise_in_bounds"), node - 1

    return jax.lax.fori_loop(0, above, level_above, (tree, changed))[0]


def find(tree: jax.Array, target: jax.Array, finer: jax.Array) -> jax.Array:
    """The places, `[B]` int32, at which the running sum of masses passes `target + finer` (`[B]` each, float32).

    A place without mass is never found, however sums are rounded; where there is no mass at all, the first is.

    Args:
      tree: of the masses.
      target: from 0 to the sum of all masses, in steps of float32.
      finer: what lies between such steps. In a node far down it is no longer lost beside `target`: with a million
        masses the steps alone would make some places likelier than others by a sixteenth of their mass.
    """
    above, first = _above(tree)

    def level_below(depth: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        node, target = carry
        target = jnp.where(depth == above // 2 + 1, target + finer, target)
        child, begin = _search(_children(tree, node), target)
        return FANOUT * node + 1 + child, target - begin

    root = jnp.zeros(target.shape, jnp.int32)
    return jax.lax.fori_loop(0, above + 1, level_below, (root, target))[0] - 1 - first


def total(tree: jax.Array) -> jax.Array:
    """The sum of all masses, `[]` float32."""
    return _sum(tree[None, :FANOUT])[0]


def all_masses(tree: jax.Array) -> jax.Array:
    """All masses, `[capacity]` and zeros beyond."""
    return tree[_above(tree)[1] :]


def mass_at(tree: jax.Array, place: jax.Array) -> jax.Array:
    """The masses `[B]` at `place` `[B]`."""
    return tree.at[_above(tree)[1] + place].get(mode="promise_in_bounds")


def _above(tree: jax.Array) -> tuple[int, int]:
    """How many levels there are above the masses, and where these begin."""
    levels, first, level = 0, 0, FANOUT
    while first + level < tree.shape[0]:
        first += level
        level *= FANOUT
        levels += 1
    return levels, first


def _children(tree: jax.Array, node: jax.Array) -> jax.Array:
    """`[B, FANOUT]`, the sums of the children of the nodes `[B]`."""
    return tree.reshape(-1, FANOUT).at[node].get(mode="promise_in_bounds")


def _sum(masses: jax.Array) -> jax.Array:
    """`[B]`, the sums of `[B, FANOUT]`, half onto half: XLA's own sum has another order in another batch."""
    while masses.shape[1] > 1:
        half = masses.shape[1] // 2
        masses = masses[:, :half] + masses[:, half:]
    return masses[:, 0]


_EARLIER = np.triu(np.ones((FANOUT, FANOUT), np.float32), 1)
"""Which children `[FANOUT]` come before each `[FANOUT]`."""


def _search(masses: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The last child with mass that begins at `target` `[B]` or before, among `[B, FANOUT]`, and where it begins."""
    # A product: half the operations of a prefix sum in log2(FANOUT) steps. One more mass makes no sum smaller, in
    # whatever order they are added.
    begins = jnp.matmul(masses, _EARLIER, precision=jax.lax.Precision.HIGHEST)
    here = (masses > 0.0) & (begins <= target[:, None])
    child = jnp.max(jnp.where(here, jnp.arange(FANOUT), 0), axis=1)
    return child, jnp.max(jnp.where(here, begins, 0.0), axis=1)
