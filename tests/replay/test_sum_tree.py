"""The tree of sums against plain arrays: what it holds, what it finds, and how likely."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from dqn_jax.prng import make_key
from dqn_jax.replay.sum_tree import FANOUT, empty_tree, find, mass_at, set_masses, total

CAPACITIES = [1, 16, 17, 300, 5000]
BATCH = 8
QUICK = {"xla_backend_optimization_level": 0}


@functools.cache
def compiled(function):
    return jax.jit(function, compiler_options=QUICK)


def tree_of(masses):
    """All sums of a tree at once, in NumPy: level by level of its children."""
    levels = [np.zeros(len(level), np.float32) for level in empty_tree(len(masses))]
    levels[0][: len(masses)] = masses
    for below, level in itertools.pairwise(levels):
        sums = below.reshape(-1, FANOUT).sum(axis=1)
        level[: len(sums)] = sums
    return levels


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
    levels, masses = empty_tree(capacity), np.zeros(capacity, np.float32)
    for batch in batches:
        place, mass = np.array(batch, np.int32).T
        levels = compiled(set_masses)(levels, place, mass.astype(np.float32))
        for i, m in batch:  # one after another: the last counts
            masses[i] = m
    for level, wanted in zip(levels, tree_of(masses), strict=True):
        np.testing.assert_array_equal(level, wanted)
    assert float(total(levels)) == masses.sum()
    if masses.any():
        # Every whole target below the sum, and halves between.
        targets = np.random.default_rng(seed).integers(0, 2 * int(masses.sum()), 64) / 2
        found = compiled(find)(levels, targets.astype(np.float32), np.zeros(64, np.float32))
        np.testing.assert_array_equal(found, np.searchsorted(np.cumsum(masses), targets, side="right"))
        np.testing.assert_array_equal(mass_at(levels, found), masses[found])


def test_changes_leave_what_building_it_anew_gives_bit_for_bit():
    rng = np.random.default_rng(0)
    capacity = 5000
    levels = empty_tree(capacity)
    for _ in range(100):  # masses of very different sizes, the small ones lost beside the large ones
        place = rng.integers(0, capacity, 64).astype(np.int32)
        levels = compiled(set_masses)(levels, place, np.exp(rng.normal(0, 8, 64)).astype(np.float32))
    everything = np.arange(len(levels[0]), dtype=np.int32)
    anew = empty_tree(capacity)
    for part in np.split(everything, 8):
        anew = compiled(set_masses)(anew, part, np.asarray(levels[0])[part])
    jax.tree.map(np.testing.assert_array_equal, levels, anew)
    for level, wanted in zip(levels, tree_of(levels[0][:capacity]), strict=True):
        np.testing.assert_allclose(level, wanted, rtol=1e-5)


def test_no_place_without_mass_is_found_however_sums_are_rounded():
    rng = np.random.default_rng(1)
    for capacity in (17, 5000):
        masses = np.where(rng.random(capacity) < 0.1, np.exp(rng.normal(0, 6, capacity)), 0.0).astype(np.float32)
        levels = jax.tree.map(jnp.asarray, tuple(tree_of(masses)))
        whole = float(total(levels))
        targets = np.float32([0.0, whole, 1.01 * whole, *(whole * rng.random(500))])
        found = jax.jit(find)(levels, targets, np.zeros(503, np.float32))
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
    levels = set_masses(empty_tree(300), jnp.int32([7, 150]), jnp.float32([jnp.nan, 1.0]))
    found = find(levels, jnp.float32([0.0, jnp.nan, 5.0]), jnp.zeros(3))
    assert np.all((found >= 0) & (found < len(levels[0])))


def test_draws_among_a_million_masses_are_even_to_the_finest():
    """Of 2**20 + 1 equal masses, whose ends lie between the steps of targets in float32, some would be drawn more."""
    capacity, draws = 2**20 + 1, 40_000
    levels = jax.tree.map(jnp.asarray, tuple(tree_of(np.ones(capacity, np.float32))))

    @jax.jit
    def drawn(key):
        coarse, finer = jax.random.uniform(key, (2, draws))
        return find(levels, (jnp.arange(draws) % 16 + coarse) / 16 * total(levels), finer * total(levels) * 2.0**-24)

    places = np.concatenate([drawn(make_key(seed)) for seed in range(3)])
    counts = np.bincount(places * 64 // capacity, minlength=64)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    counts = np.bincount(places % 64, minlength=64)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
