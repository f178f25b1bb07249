"""The tree of sums against plain arrays: what it holds, what it finds, and how likely."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from dqn_jax.prng import make_key
from dqn_jax.replay.sum_tree import FANOUT, all_masses, empty_tree, find, mass_at, set_masses, total

CAPACITIES = [1, 16, 17, 300, 5000]
BATCH = 8
QUICK = {"xla_backend_optimization_level": 0}


@functools.cache
def compiled(function):
    return jax.jit(function, compiler_options=QUICK)


def tree_of(masses):
    """All sums of a tree at once, in NumPy: level by level of its children, the root's first."""
    levels = [np.pad(masses, (0, -len(masses) % FANOUT)).astype(np.float32)]
    while len(levels[0]) > FANOUT:
        sums = levels[0].reshape(-1, FANOUT).sum(axis=1)
        whole = FANOUT  # as a level above masses is, however few they are
        while whole < len(sums):
            whole *= FANOUT
        levels.insert(0, np.pad(sums, (0, whole - len(sums))))
    return np.concatenate(levels)


@st.composite
def changes(draw):
    """A capacity, and batches of places and whole masses, of which all sums are exact."""
    capacity = draw(st.sampled_from(CAPACITIES))
    place = st.integers(0, capacity - 1)
    batch = st.lists(st.tuples(place, st.integers(0, 9)), min_size=BATCH, max_size=BATCH)
    return capacity, draw(st.lists(batch, min_size=1, max_size=6))


@given(changes(), st.integers(0, 2**31 - 1))
def test_sums_and_places_are_those_of_a_plain_array(history, seed):
    capacity, batches = history
    tree, masses = empty_tree(capacity), np.zeros(capacity, np.float32)
    for batch in batches:
        place, mass = np.array(batch, np.int32).T
        tree = compiled(set_masses)(tree, place, mass.astype(np.float32))
        for i, m in batch:  # one after another: the last counts
            masses[i] = m
    np.testing.assert_array_equal(tree, tree_of(masses))
    assert float(total(tree)) == masses.sum()
    if masses.any():
        # Every whole target below the sum, and halves between.
        targets = np.random.default_rng(seed).integers(0, 2 * int(masses.sum()), 64) / 2
        found = compiled(find)(tree, targets.astype(np.float32), np.zeros(64, np.float32))
        np.testing.assert_array_equal(found, np.searchsorted(np.cumsum(masses), targets, side="right"))
        np.testing.assert_array_equal(mass_at(tree, found), masses[found])


def test_changes_leave_what_building_it_anew_gives_bit_for_bit():
    rng = np.random.default_rng(0)
    capacity = 5000
    tree = empty_tree(capacity)
    for _ in range(100):  # masses of very different sizes, the small ones lost beside the large ones
        place = rng.integers(0, capacity, 64).astype(np.int32)
        tree = compiled(set_masses)(tree, place, np.exp(rng.normal(0, 8, 64)).astype(np.float32))
    there = np.asarray(all_masses(tree))
    anew = empty_tree(capacity)
    for part in np.split(np.arange(len(there), dtype=np.int32), 8):
        anew = compiled(set_masses)(anew, part, there[part])
    np.testing.assert_array_equal(tree, anew)
    np.testing.assert_allclose(tree, tree_of(there[:capacity]), rtol=1e-5)


def test_no_place_without_mass_is_found_however_sums_are_rounded():
    rng = np.random.default_rng(1)
    for capacity in (17, 5000):
        masses = np.where(rng.random(capacity) < 0.1, np.exp(rng.normal(0, 6, capacity)), 0.0).astype(np.float32)
        tree = jnp.asarray(tree_of(masses))
        whole = float(total(tree))
        targets = np.float32([0.0, whole, 1.01 * whole, *(whole * rng.random(500))])
        found = jax.jit(find)(tree, targets, np.zeros(503, np.float32))
        assert np.all(masses[found] > 0.0)
        assert found[0] == np.flatnonzero(masses)[0]
        assert found[1] == found[2] == np.flatnonzero(masses)[-1]
        ends = np.cumsum(masses.astype(np.float64))
        wanted = np.searchsorted(ends, targets[3:], side="right")
        near = np.min(np.abs(ends[None] - targets[3:, None]), axis=1) < 1e-5 * whole
        assert np.mean(near) < 0.2
        np.testing.assert_array_equal(found[3:][~near], wanted[~near])


def test_a_tree_without_mass_gives_the_first_place():
    assert find(empty_tree(300), jnp.zeros(4), jnp.zeros(4)).tolist() == [0] * 4


def test_what_is_not_a_number_finds_places_all_the_same():
    tree = set_masses(empty_tree(300), jnp.int32([7, 150]), jnp.float32([jnp.nan, 1.0]))
    found = find(tree, jnp.float32([0.0, jnp.nan, 5.0]), jnp.zeros(3))
    assert np.all((found >= 0) & (found < len(all_masses(tree))))


def test_draws_among_a_million_masses_are_even_to_the_finest():
    """Of 2**20 + 1 equal masses, whose ends lie between the steps of targets in float32, some would be drawn more."""
    capacity, draws = 2**20 + 1, 40_000
    tree = jnp.asarray(tree_of(np.ones(capacity, np.float32)))

    @jax.jit
    def drawn(key):
        coarse, finer = jax.random.uniform(key, (2, draws))
        return find(tree, (jnp.arange(draws) % 16 + coarse) / 16 * total(tree), finer * total(tree) * 2.0**-24)

    places = np.concatenate([drawn(make_key(seed)) for seed in range(3)])
    counts = np.bincount(places * 64 // capacity, minlength=64)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    counts = np.bincount(places % 64, minlength=64)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
