"""The replay against a plain deque: what is stored, for how long, and how it is drawn."""

from __future__ import annotations

import collections
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from dqn_jax.config import HParams
from dqn_jax.prng import make_key
from dqn_jax.replay import make_replay, transition_memory
from dqn_jax.types import Transition, TransitionRow

EXAMPLE = Transition(
    obs_tm1=jnp.zeros((2, 3), jnp.uint8),
    a_tm1=jnp.zeros((), jnp.int32),
    r_t=jnp.zeros(()),
    discount_t=jnp.zeros(()),
    obs_t=jnp.zeros((2, 3), jnp.uint8),
)


def numbered(numbers):
    """Transitions that carry their number in every field, so that a mixed-up sample shows."""
    numbers = np.asarray(numbers)
    obs = np.broadcast_to(numbers[:, None, None], (len(numbers), 2, 3)).astype(np.uint8)
    return Transition(obs, numbers.astype(np.int32), 10.0 * numbers, 1.0 * (numbers % 2), obs + np.uint8(1))


def number_of(sample):
    """The number of each sampled transition, once all its fields are seen to belong together."""
    numbers = np.asarray(sample.a_tm1)
    expected = numbered(numbers.reshape(-1))
    for got, wanted in zip(sample, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(got).reshape(wanted.shape), wanted)
    return numbers


@functools.cache
def compiled(capacity, batch_size, num_envs, sampling="with_replacement", draws=100):
    """`add`, and `draws` samples in one call. Compiling takes longer than running, so not too well."""
    replay, quick = make_replay(capacity, batch_size, num_envs, sampling), {"xla_backend_optimization_level": 0}

    def many(state, key):
        return jax.vmap(replay.sample, (None, 0))(state, jax.random.split(key, draws))

    return replay, jax.jit(replay.add, compiler_options=quick), jax.jit(many, compiler_options=quick)


@given(
    st.sampled_from([(7, 2, 3), (4, 4, 4), (1, 1, 1), (10, 5, 4), (2, 2, 5)]),
    st.integers(1, 12),
    st.integers(0, 2**31 - 1),
)
def test_sampling_gives_exactly_what_a_deque_would_hold(sizes, adds, seed):
    capacity, batch_size, num_envs = sizes
    replay, add, sample_many = compiled(*sizes, draws=200)
    state = replay.init(EXAMPLE)
    reference = collections.deque(maxlen=-(-capacity // num_envs) * num_envs)
    for i in range(adds):
        row = np.arange(i * num_envs, (i + 1) * num_envs)
        state = add(state, numbered(row))
        reference.extend(row.tolist())
    drawn = number_of(sample_many(state, make_key(seed)))
    assert drawn.shape == (200, batch_size)
    assert set(drawn.ravel().tolist()) == set(reference)  # missing one has odds below 1e-6


def test_capacity_is_rounded_up_to_whole_rows():
    state = make_replay(7, 1, 3).init(EXAMPLE)
    assert {leaf.shape[:2] for leaf in jax.tree.leaves(state.storage)} == {(3, 3)}
    state = make_replay(6, 1, 3).init(EXAMPLE)
    assert {leaf.shape[:2] for leaf in jax.tree.leaves(state.storage)} == {(2, 3)}


def test_bytes_stay_bytes_in_storage_and_sample():
    replay, add, sample_many = compiled(4, 2, 2)
    state = add(replay.init(EXAMPLE), numbered([250, 251]))
    batch = sample_many(state, make_key(0))
    for container in (state.storage, batch):
        dtypes = [leaf.dtype for leaf in container]
        assert dtypes == [jnp.uint8, jnp.int32, jnp.float32, jnp.float32, jnp.uint8]
    assert set(np.unique(batch.obs_tm1).tolist()) == {250, 251}


def test_unfilled_rows_are_never_drawn():
    replay, add, sample_many = compiled(1000, 8, 2)
    state = add(replay.init(EXAMPLE), numbered([3, 4]))
    assert set(number_of(sample_many(state, make_key(1))).ravel().tolist()) == {3, 4}


@pytest.mark.parametrize("adds", [5, 9])  # partly full; wrapped
def test_draws_are_uniform_over_what_is_stored(adds):
    replay, add, sample_many = compiled(21, 10, 3, draws=1000)
    state = replay.init(EXAMPLE)
    for i in range(adds):
        state = add(state, numbered(np.arange(3 * i, 3 * i + 3)))
    drawn = number_of(sample_many(state, make_key(2))).ravel()
    stored = np.arange(max(0, 3 * adds - 21), 3 * adds)
    counts = np.array([np.sum(drawn == number) for number in stored])
    assert counts.sum() == len(drawn) == 10_000
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_rows_of_a_batch_are_drawn_independently():
    replay, add, sample_many = compiled(10, 2, 10, draws=5000)
    state = add(replay.init(EXAMPLE), numbered(np.arange(10)))
    drawn = number_of(sample_many(state, make_key(3)))
    table = np.histogram2d(drawn[:, 0], drawn[:, 1], bins=10)[0]
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3
    assert 0.05 < np.mean(drawn[:, 0] == drawn[:, 1]) < 0.15  # with replacement: one in ten


def test_same_key_same_batch_and_other_key_another():
    replay, add, sample_many = compiled(10, 5, 10)
    state = add(replay.init(EXAMPLE), numbered(np.arange(10)))
    first, again, other = (number_of(sample_many(state, make_key(seed))) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def filled(sizes, adds, **options):
    """A replay that `adds` rows of transitions 0, 1, 2, ... went through, what a deque would hold, and samples."""
    replay, add, sample_many = compiled(*sizes, **options)
    capacity, _, num_envs = sizes
    state, reference = replay.init(EXAMPLE), collections.deque(maxlen=-(-capacity // num_envs) * num_envs)
    for i in range(adds):
        row = np.arange(i * num_envs, (i + 1) * num_envs)
        state = add(state, numbered(row))
        reference.extend(row.tolist())
    return state, list(reference), lambda key: number_of(sample_many(state, key))


@given(
    st.sampled_from([(7, 2, 3), (4, 4, 4), (12, 8, 1), (9, 9, 1)]),
    st.integers(1, 15),
    st.integers(0, 2**31 - 1),
)
def test_draws_without_replacement_are_all_different_once_there_are_enough(sizes, adds, seed):
    _, stored, sample = filled(sizes, adds, sampling="without_replacement", draws=200)
    drawn = sample(make_key(seed))
    assert drawn.shape == (200, sizes[1])
    assert set(drawn.ravel().tolist()) == set(stored)
    different = [len(set(batch)) for batch in drawn.tolist()]
    if len(stored) >= sizes[1]:
        assert set(different) == {sizes[1]}
    else:
        # Drawn with replacement: that no batch holds one twice is impossible, and that all hold the same is unlikely.
        assert max(different) <= len(stored)
        assert min(different) < max(different) or len(stored) == 1


@pytest.mark.parametrize("adds", [5, 9])  # partly full; wrapped
def test_without_replacement_every_place_of_a_batch_is_uniform_over_what_is_stored(adds):
    _, stored, sample = filled((21, 10, 3), adds, sampling="without_replacement", draws=4000)
    counts = np.stack([np.sum(sample(make_key(6)) == number, axis=0) for number in stored])
    assert counts.shape == (min(21, 3 * adds), 10)
    np.testing.assert_array_equal(counts.sum(axis=0), 4000)
    # Places of a batch depend on each other, so that each has a test of its own.
    assert scipy.stats.chisquare(counts, axis=0).pvalue.min() > 1e-4


@pytest.mark.parametrize(("sizes", "arrangements"), [((4, 4, 4), 24), ((5, 3, 5), 60), ((6, 2, 2), 30)])
def test_without_replacement_every_order_is_equally_likely(sizes, arrangements):
    _, stored, sample = filled(sizes, 4, sampling="without_replacement", draws=6000)
    found = collections.Counter(map(tuple, sample(make_key(7)).tolist()))
    assert set(found) == set(itertools.permutations(stored, sizes[1]))
    assert len(found) == arrangements
    assert scipy.stats.chisquare(list(found.values())).pvalue > 1e-3


@given(
    st.sampled_from([(7, 2, 3), (4, 4, 4), (1, 1, 1), (10, 5, 4), (12, 8, 1), (9, 7, 2)]),
    st.integers(1, 15),
    st.integers(0, 2**31 - 1),
)
def test_the_latest_are_the_end_of_a_deque_in_order(sizes, adds, seed):
    _, stored, sample = filled(sizes, adds, sampling="latest", draws=2)
    newest = stored[-sizes[1] :]
    expected = list(itertools.islice(itertools.cycle(newest), sizes[1]))  # all of them over and over, if too few
    np.testing.assert_array_equal(sample(make_key(seed)), [expected, expected])


@pytest.mark.parametrize("sampling", ["with_replacement", "without_replacement", "latest"])
def test_clear_empties_the_replay_only_when_told(sampling):
    sizes = (6, 2, 2)
    replay, add, sample_many = compiled(*sizes, sampling=sampling)
    state, stored, sample = filled(sizes, 4, sampling=sampling)
    assert stored == [2, 3, 4, 5, 6, 7]
    before = sample(make_key(8))
    for when in (False, jnp.zeros((), bool)):
        kept = replay.clear(state, when)
        jax.tree.map(np.testing.assert_array_equal, kept, state)
        np.testing.assert_array_equal(number_of(sample_many(kept, make_key(8))), before)
    for when in (True, jnp.ones((), bool)):
        cleared = replay.clear(state, when)
        assert int(cleared.rows_added) == 0
        cleared = add(cleared, numbered([20, 21]))
        assert set(number_of(sample_many(cleared, make_key(9))).ravel().tolist()) == {20, 21}
        for row in ([22, 23], [24, 25], [26, 27]):
            cleared = add(cleared, numbered(row))
        later = set(number_of(sample_many(cleared, make_key(9))).ravel().tolist())
        assert later == ({26, 27} if sampling == "latest" else {22, 23, 24, 25, 26, 27})


def test_add_and_sample_work_inside_scan_and_vmap_over_lanes():
    replay = make_replay(4, 3, 2)

    def lane(offset, key):
        def body(state, i):
            rows = jax.tree.map(lambda x, e: x.astype(e.dtype), numbered_traced(offset + 2 * i), EXAMPLE)
            return replay.add(state, rows), None

        state, _ = jax.lax.scan(body, replay.init(EXAMPLE), jnp.arange(3))
        return replay.sample(state, key)

    def numbered_traced(first):
        numbers = first + jnp.arange(2)
        obs = jnp.broadcast_to(numbers[:, None, None], (2, 2, 3))
        return Transition(obs, numbers, 10.0 * numbers, 1.0 * (numbers % 2), obs + 1)

    batch = jax.jit(jax.vmap(lane))(jnp.array([0, 100]), jax.random.split(make_key(0), 2))
    drawn = number_of(batch)
    assert set(drawn[0].tolist()) <= {2, 3, 4, 5}
    assert set(drawn[1].tolist()) <= {102, 103, 104, 105}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0, 1, 1), "capacity"),
        ((-5, 1, 1), "capacity"),
        ((8, 0, 1), "batch_size"),
        ((8, 2, 0), "num_envs"),
        ((8, 9, 1), "batch_size"),
    ],
)
def test_impossible_sizes_are_refused_by_name(arguments, name):
    with pytest.raises(ValueError, match=name):
        make_replay(*arguments)


# -- n steps


ENDS = {"play": (False, False), "terminated": (True, False), "time limit": (False, True)}
# capacity, batch_size, num_envs, n_step, sampling
N_STEP = [
    (9, 3, 1, 3, "with_replacement"),
    (8, 8, 2, 2, "without_replacement"),
    (7, 5, 3, 4, "latest"),
    (1, 1, 1, 5, "with_replacement"),
]


@st.composite
def n_step_histories(draw):
    """Sizes, and rows: each transition with its number as its observation, a reward, and whether the episode ended."""
    sizes = draw(st.sampled_from(N_STEP))
    num_envs, n_step = sizes[2:4]
    length = draw(st.integers(n_step, 20))
    ends = draw(
        st.lists(st.sampled_from(["play", "play", *ENDS]), min_size=length * num_envs, max_size=length * num_envs)
    )
    rewards = draw(st.lists(st.integers(-8, 8), min_size=length * num_envs, max_size=length * num_envs))
    rows = []
    for k in range(length):
        own = range(k * num_envs, (k + 1) * num_envs)
        terminated, truncated = np.array([ENDS[ends[i]] for i in own]).T
        numbers, reward = np.array(own, np.float32), np.array([rewards[i] for i in own], np.float32)
        # The next observation is none that an episode begins with: an end must be bootstrapped from where it led to.
        transition = Transition(numbers, numbers.astype(np.int32), reward, 1.0 - terminated, numbers + np.float32(0.5))
        rows.append(TransitionRow(transition, terminated | truncated))
    return sizes, rows


def n_step_by_hand(rows, n_step, discount):
    """By (row, environment), the transition over n rows, or fewer to the end of the episode; in Python loops."""
    made = {}
    for k in range(len(rows) - n_step + 1):
        for env in range(len(rows[0].ended)):
            total, factor = 0.0, 1.0
            for row in rows[k : k + n_step]:
                total += factor * row.transition.r_t[env]
                discount_t = factor * row.transition.discount_t[env]
                obs_t = row.transition.obs_t[env]
                factor *= discount
                if row.ended[env]:
                    break
            first = rows[k].transition
            made[k, env] = Transition(first.obs_tm1[env], first.a_tm1[env], total, discount_t, obs_t)
    return made


@functools.cache
def compiled_n_step(sizes, draws):
    capacity, batch_size, num_envs, n_step, sampling = sizes
    memory = transition_memory(capacity, batch_size, num_envs, sampling=sampling, n_step=n_step)
    quick = {"xla_backend_optimization_level": 0}

    def many(state, key, discount):
        return jax.vmap(memory.sample, (None, 0, None))(state, jax.random.split(key, draws), HParams(discount=discount))

    return memory, jax.jit(memory.add, compiler_options=quick), jax.jit(many, compiler_options=quick)


def remembered(sizes, rows, draws):
    """What a memory that `rows` went through gives in so many batches."""
    memory, add, sample = compiled_n_step(sizes, draws)
    state = memory.init(rows[0])
    for row in rows:
        state = add(state, row)
    return lambda key, discount: jax.tree.map(np.asarray, sample(state, key, discount))


@given(n_step_histories(), st.integers(0, 2**31 - 1))
def test_n_steps_are_those_that_were_made_and_all_whose_window_is_stored_are_drawn(history, seed):
    sizes, rows = history
    capacity, batch_size, num_envs, n_step, sampling = sizes
    made = n_step_by_hand(rows, n_step, 0.5)  # all sums are exact
    kept = list(made)[(-capacity // num_envs) * num_envs :]
    batch = remembered(sizes, rows, 80)(make_key(seed), 0.5)
    assert batch.weight is None
    drawn = [[divmod(number, num_envs) for number in numbers] for numbers in batch.transition.a_tm1.tolist()]
    for index in np.ndindex(80, batch_size):
        for got, wanted in zip(batch.transition, made[drawn[index[0]][index[1]]], strict=True):
            assert got[index] == wanted
    if sampling == "latest":
        newest = list(itertools.islice(itertools.cycle(kept[-batch_size:]), batch_size))
        assert drawn == [newest] * 80
    else:
        assert {place for places in drawn for place in places} == set(kept)  # missing one has odds below 1e-6
    if sampling == "without_replacement" and len(kept) >= batch_size:
        assert {len(set(places)) for places in drawn} == {batch_size}
    ring = -(-capacity // num_envs) + n_step - 1
    wanted = [[k % ring * num_envs + env for k, env in places] for places in drawn]
    np.testing.assert_array_equal(batch.place, wanted)


def test_windows_end_with_the_episode_and_a_time_limit_bootstraps_from_where_it_led_to():
    ends = ["play", "play", "time limit", "play", "terminated", "play", "play", "play"]
    rows = []
    for k, end in enumerate(ends):
        terminated, truncated = ENDS[end]
        obs = np.float32([k])
        transition = Transition(obs, np.int32([k]), np.float32([2.0**k]), np.float32([not terminated]), obs + 100)
        rows.append(TransitionRow(transition, np.array([terminated or truncated])))
    batch = remembered((20, 6, 1, 3, "latest"), rows, 1)(make_key(0), 0.5)
    _, _, r_t, discount_t, obs_t = jax.tree.map(lambda x: x[0].tolist(), batch.transition)
    assert r_t == [1 + 1 + 1, 2 + 2, 4, 8 + 8, 16, 32 + 32 + 32]
    assert discount_t == [0.25, 0.5, 1.0, 0.0, 0.0, 0.25]
    assert obs_t == [102, 102, 102, 104, 104, 107]


@pytest.mark.parametrize("discount", [0.99, 1.0, 0.0])
def test_discounts_are_raised_to_the_right_powers(discount):
    rows = [TransitionRow(Transition(*np.float32([[0], [0], [1], [1], [k]])), np.array([k == 1])) for k in range(2, 7)]
    rows = [row._replace(transition=row.transition._replace(a_tm1=np.int32([0]))) for row in rows]
    batch = remembered((5, 3, 1, 3, "latest"), rows, 1)(make_key(0), discount)
    np.testing.assert_allclose(batch.transition.r_t, 1 + discount + discount**2, rtol=1e-6)
    np.testing.assert_allclose(batch.transition.discount_t, discount**2, rtol=1e-6)
