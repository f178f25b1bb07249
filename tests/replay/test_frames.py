"""The replay of frames against whole stacks, put together as the episodes unfold."""

from __future__ import annotations

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from dqn_jax.config import HParams
from dqn_jax.prng import make_key
from dqn_jax.replay.frames import frame_memory, gather, stack_push
from dqn_jax.types import FrameRow, Transition

FRAME_SHAPE = (2, 3)


def make_frame_replay(capacity, batch_size, num_envs, frame_stack=1, n_step=1, **options):
    """A memory of frames, sampled by a discount alone, and asked for places with `gather`."""
    window = {"frame_stack": frame_stack, "n_step": n_step}
    memory = frame_memory(capacity, batch_size, num_envs, **window, **options)

    def sample(state, key, discount):
        return memory.sample(state, key, HParams(discount=discount))

    def gather_of(state, rows, envs, discount):
        return gather(state.storage, rows, envs, discount, **window)

    return types.SimpleNamespace(init=memory.init, add=memory.add, sample=sample, gather=gather_of)


# What may happen at a row of one environment: (terminated, truncated, whether the next row begins an episode).
EVENTS = {
    "play": (False, False, False),
    "life lost": (True, False, False),
    "game over": (True, False, True),
    "time limit": (False, True, True),
    "game over at the time limit": (True, True, True),
    "time limit with the game going on": (False, True, False),
    "pool started anew": (False, False, True),  # after a checkpoint, in the middle of an episode
}

# capacity, batch_size, num_envs, frame_stack, n_step
SIZES = [(7, 2, 1, 1, 1), (9, 3, 2, 4, 1), (12, 4, 3, 1, 3), (10, 2, 2, 4, 3), (5, 5, 1, 2, 4), (4, 2, 2, 3, 2)]


def frame(number):
    """A frame of bytes that tells its number, in which no two pixels are the same and none is 0."""
    return ((number + 40 * np.arange(6)) % 251 + 1).astype(np.uint8).reshape(FRAME_SHAPE)


def rows_from(events, seed=0):
    """Rows of a pool to which `events` `[T][N]` happen. Everything else in them differs from place to place."""
    rng = np.random.default_rng(seed)
    rows, first = [], np.ones(len(events[0]), bool)
    for k, happened in enumerate(events):
        numbers = k * len(happened) + np.arange(len(happened), dtype=np.int32)
        flags = np.array([EVENTS[event] for event in happened])
        # Also the rewards of rows that begin an episode, to see that they are never learnt from.
        reward = (rng.integers(1, 100, len(happened)) / 8).astype(np.float32)
        rows.append(FrameRow(np.stack([frame(i) for i in numbers]), numbers, reward, flags[:, 0], flags[:, 1], first))
        first = flags[:, 2]
    return rows


@st.composite
def histories(draw):
    """Sizes of a replay, and the rows of a pool: too few to fill it, or so many that it wraps around."""
    sizes = draw(st.sampled_from(SIZES))
    _, _, num_envs, frame_stack, n_step = sizes
    length = draw(st.integers(frame_stack + n_step, 24))
    event = st.sampled_from(["play", *EVENTS])
    row = st.lists(event, min_size=num_envs, max_size=num_envs)
    events = draw(st.lists(row, min_size=length, max_size=length))
    return sizes, rows_from(events, seed=draw(st.integers(0, 1000)))


def stacks_of(rows, frame_stack):
    """The observation of every row, by (row, environment): the episode's newest frames, zeros before them."""
    stacks = {}
    for env in range(len(rows[0].first)):
        episode = []
        for k, row in enumerate(rows):
            if row.first[env]:
                episode = [np.zeros(FRAME_SHAPE, np.uint8)] * (frame_stack - 1)
            episode.append(row.frame[env])
            stacks[k, env] = np.stack(episode[-frame_stack:], axis=-1) if frame_stack > 1 else episode[-1]
    return stacks


def transitions_of(rows, frame_stack, n_step, discount):
    """By (row, environment), the transition from there, or None where there is none."""
    stacks = stacks_of(rows, frame_stack)
    transitions = {}
    for k, env in stacks:
        if k + n_step >= len(rows):
            continue
        transition, factor, total = None, 1.0, 0.0
        for row_number in range(k + 1, k + n_step + 1):
            row = rows[row_number]
            if row.first[env]:
                break
            total += factor * row.reward[env]
            discount_t = 0.0 if row.terminated[env] else factor
            obs = stacks[k, env], stacks[row_number, env]
            transition = Transition(obs[0], rows[k].action[env], total, discount_t, obs[1])
            factor *= discount
            if row.terminated[env] or row.truncated[env]:
                break
        transitions[k, env] = transition
    return transitions


def places_of(rows, sizes):
    """The places that can be drawn: the newest whose whole window is there, as many rows as hold the capacity."""
    capacity, _, num_envs, frame_stack, n_step = sizes
    newest = len(rows) - 1 - n_step
    oldest = max(frame_stack - 1, newest + 1 - -(-capacity // num_envs))
    return [(k, env) for k in range(oldest, newest + 1) for env in range(num_envs)]


def check(batch, places, transitions):
    """That element i of `batch` is the transition of `places[i]`."""
    assert batch.weight.dtype == jnp.float32
    for x in jax.tree.leaves(batch):
        assert len(x) == len(places)
        assert np.all(np.isfinite(x))
    batch = jax.tree.map(np.asarray, batch)
    for i, place in enumerate(places):
        expected = transitions[place]
        assert batch.weight[i] == (expected is not None)
        if expected is not None:
            for name, got, wanted in zip(Transition._fields, batch.transition, expected, strict=True):
                np.testing.assert_array_equal(got[i], wanted, err_msg=f"{name} of {place}", strict=got.ndim > 1)


@functools.cache
def compiled(sizes, draws=1):
    """`add`, `gather` and `draws` samples in one call. Compiling takes longer than running, so not too well."""
    replay, quick = make_frame_replay(*sizes), {"xla_backend_optimization_level": 0}

    def many(state, key, discount):
        batches = jax.vmap(replay.sample, (None, 0, None))(state, jax.random.split(key, draws), discount)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)

    return replay, *(jax.jit(function, compiler_options=quick) for function in (replay.add, replay.gather, many))


def filled(sizes, rows):
    replay, add, _, _ = compiled(sizes)
    state = replay.init(rows[0])
    for row in rows:
        state = add(state, row)
    return state


def gathered(sizes, state, places, discount):
    _, _, gather, _ = compiled(sizes)
    padded = np.resize(places, (sizes[0] + sizes[2], 2)).astype(np.int32)  # one shape, to compile once
    batch = gather(state, padded[:, 0], padded[:, 1], discount)
    return jax.tree.map(lambda x: x[: len(places)], batch)


@given(histories())
def test_every_place_gives_the_transition_that_was_made_there(history):
    sizes, rows = history
    places = places_of(rows, sizes)
    # With 0.5 all sums are exact.
    check(gathered(sizes, filled(sizes, rows), places, 0.5), places, transitions_of(rows, *sizes[3:], 0.5))


@given(histories(), st.integers(0, 2**31 - 1))
def test_every_place_whose_window_is_stored_is_drawn_and_no_other(history, seed):
    sizes, rows = history
    _, _, _, sample_many = compiled(sizes, 300)
    batch = sample_many(filled(sizes, rows), make_key(seed), 0.5)
    assert batch.weight.shape == (300 * sizes[1],)
    drawn = [divmod(number, sizes[2]) for number in np.asarray(batch.transition.a_tm1).tolist()]
    assert set(drawn) == set(places_of(rows, sizes))  # missing one has odds below 1e-12
    check(batch, drawn, transitions_of(rows, *sizes[3:], 0.5))


@given(histories())
def test_acting_sees_what_the_replay_rebuilds(history):
    sizes, rows = history
    frame_stack = sizes[3]
    push = jax.jit(stack_push)
    shape = (sizes[2], *FRAME_SHAPE, frame_stack) if frame_stack > 1 else (sizes[2], *FRAME_SHAPE)
    stack, seen = jnp.full(shape, 77, jnp.uint8), []  # what was there before the first episode does not matter
    for row in rows:
        stack = push(stack, row.frame, row.first)
        seen.append(np.asarray(stack))
    for (k, env), wanted in stacks_of(rows, frame_stack).items():
        np.testing.assert_array_equal(seen[k][env], wanted, strict=True)
    places = places_of(rows, sizes)
    rebuilt = gathered(sizes, filled(sizes, rows), places, 0.9).transition.obs_tm1
    np.testing.assert_array_equal(rebuilt, np.stack([seen[k][env] for k, env in places]), strict=True)


# -- environments that step asynchronously

ASYNCHRONOUS = [(9, 3, 2, 4, 1, 1), (12, 4, 3, 1, 3, 2), (10, 2, 3, 3, 2, 2)]  # sizes as above, and environments a step


@st.composite
def interleaved(draw):
    """Sizes, the rows of the environments, and which of them step at a time: never the same twice in one step."""
    *sizes, step = draw(st.sampled_from(ASYNCHRONOUS))
    _, _, num_envs, frame_stack, n_step = sizes
    event = st.sampled_from(["play", *EVENTS])
    row = st.lists(event, min_size=num_envs, max_size=num_envs)
    length = draw(st.integers(num_envs * (frame_stack + n_step), 40))
    rows = rows_from(draw(st.lists(row, min_size=length, max_size=length)), seed=draw(st.integers(0, 1000)))
    orders = draw(st.lists(st.permutations(range(num_envs)), min_size=length, max_size=length))
    return tuple(sizes), rows, [np.array(order[:step], np.int32) for order in orders]


@functools.cache
def compiled_asynchronous(sizes):
    replay, quick = make_frame_replay(*sizes, asynchronous=True), {"xla_backend_optimization_level": 0}

    def many(state, key, discount):
        batches = jax.vmap(replay.sample, (None, 0, None))(state, jax.random.split(key, 400), discount)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)

    return replay.init, *(jax.jit(function, compiler_options=quick) for function in (replay.add, many))


def filled_asynchronously(sizes, rows, steps):
    """The replay after `steps`, and how many rows each environment got into it."""
    init, add, _ = compiled_asynchronous(sizes)
    state, counts = init(rows[0]), np.zeros(sizes[2], int)
    for envs in steps:
        state = add(state, jax.tree.map(lambda *x, envs=envs: np.stack(x)[counts[envs], envs], *rows), envs)
        counts[envs] += 1
    return state, counts


@given(interleaved(), st.integers(0, 2**31 - 1))
def test_environments_at_their_own_pace_give_the_transitions_that_each_alone_gives(history, seed):
    sizes, rows, steps = history
    state, counts = filled_asynchronously(sizes, rows, steps)
    np.testing.assert_array_equal(state.rows_added, counts)
    transitions, places = {}, []
    for env, count in enumerate(counts):
        alone = [jax.tree.map(lambda x, env=env: x[env : env + 1], row) for row in rows[:count]]
        ring = (-(-sizes[0] // sizes[2]), sizes[1], 1, *sizes[3:])
        places += [(k, env) for k, _ in places_of(alone, ring)] if count else []
        if count:
            transitions |= {(k, env): t for (k, _), t in transitions_of(alone, *sizes[3:], 0.5).items()}
    batch = compiled_asynchronous(sizes)[2](state, make_key(seed), 0.5)
    drawn = [divmod(number, sizes[2]) for number in np.asarray(batch.transition.a_tm1).tolist()]
    assert set(drawn) == set(places)
    check(batch, drawn, transitions)


def test_draws_are_uniform_over_the_places_of_all_environments():
    sizes = (40, 3, 3, 2, 1)  # rings of 16 rows
    rows = rows_from([["play"] * 3] * 40)
    steps = [np.array([0, 1], np.int32)] * 4 + [np.array([0, 2], np.int32)] * 2 + [np.array([0], np.int32)] * 20
    state, counts = filled_asynchronously(sizes, rows, steps)
    assert counts.tolist() == [26, 4, 2]
    places = [(k, 0) for k in range(11, 25)] + [(1, 1), (2, 1)]  # one environment has too few rows for any
    _, _, sample_many = compiled_asynchronous(sizes)
    batches = [sample_many(state, make_key(seed), 0.9) for seed in range(8)]
    numbers = np.concatenate([batch.transition.a_tm1 for batch in batches])
    drawn = [np.sum(numbers == k * 3 + env) for k, env in places]
    assert sum(drawn) == len(numbers) == 9600
    assert scipy.stats.chisquare(drawn).pvalue > 1e-3


@pytest.mark.parametrize("sampling", ["latest", "without_replacement"])
@pytest.mark.parametrize("count", [9, 30])  # partly full; wrapped
def test_frames_are_drawn_in_the_other_ways_too(sampling, count):
    sizes = (20, 6, 2, 3, 2)
    rows = rows_from([["play", "play"], ["game over", "play"], *[["play", "time limit"]] * (count - 2)])
    replay = make_frame_replay(*sizes, sampling=sampling)
    state = replay.init(rows[0])
    for row in rows:
        state = replay.add(state, row)
    batch = jax.jit(replay.sample)(state, make_key(0), 0.5)
    drawn = [divmod(number, 2) for number in np.asarray(batch.transition.a_tm1).tolist()]
    places = places_of(rows, sizes)
    assert set(drawn) <= set(places)
    assert len(set(drawn)) == 6
    assert (drawn == places[-6:]) == (sampling == "latest")
    check(batch, drawn, transitions_of(rows, *sizes[3:], 0.5))


def test_of_asynchronous_environments_none_are_the_latest():
    with pytest.raises(ValueError, match="sampling"):
        make_frame_replay(20, 6, 2, sampling="latest", asynchronous=True)


# -- by hand


def one_environment(rewards, events):
    """Rows of one environment, as EnvPool gives them, but for their frames."""
    rows = rows_from([[event] for event in events])
    return [row._replace(reward=np.array([r], np.float32)) for row, r in zip(rows, rewards, strict=True)]


def test_n_step_by_hand():
    """Rows 0 to 4 are an episode that loses a life at row 2; 5 to 8 one cut by a time limit; then another."""
    rewards = [0, 1, 2, 4, 8, 0, 16, 32, 64, 0, 128, 256, 512]
    events = ["play", "play", "life lost", "play", "game over", "play", "play", "play", "time limit"] + ["play"] * 4
    sizes = (20, 2, 1, 4, 3)
    rows = one_environment(rewards, events)
    batch = gathered(sizes, filled(sizes, rows), [(k, 0) for k in range(3, 10)], 0.5)
    np.testing.assert_array_equal(batch.weight, [1, 0, 1, 1, 1, 0, 1])  # none from 4 to 5 and from 8 to 9
    transition = jax.tree.map(lambda x: np.asarray(x)[[0, 2, 3, 4, 6]], batch.transition)
    np.testing.assert_array_equal(transition.a_tm1, [3, 5, 6, 7, 9])
    np.testing.assert_array_equal(transition.r_t, [8, 16 + 16 + 16, 32 + 32, 64, 128 + 128 + 128])
    np.testing.assert_array_equal(transition.discount_t, [0, 0.25, 0.5, 1, 0.25])
    numbers = [[0, 1, 2, 3], [None, None, None, 5], [None, None, 5, 6], [None, 5, 6, 7], [None, None, None, 9]]
    np.testing.assert_array_equal(transition.obs_tm1, [stacked(*n) for n in numbers], strict=True)
    numbers = [[1, 2, 3, 4], [5, 6, 7, 8], [5, 6, 7, 8], [5, 6, 7, 8], [9, 10, 11, 12]]
    np.testing.assert_array_equal(transition.obs_t, [stacked(*n) for n in numbers], strict=True)


def stacked(*numbers):
    return np.stack([np.zeros(FRAME_SHAPE, np.uint8) if i is None else frame(i) for i in numbers], axis=-1)


def test_a_lost_life_ends_the_bootstrap_into_it_and_nothing_else():
    rows = one_environment([0, 1, 2, 4, 8], ["play", "play", "life lost", "play", "play"])
    for frame_stack in (1, 2):
        sizes = (20, 2, 1, frame_stack, 1)
        batch = gathered(sizes, filled(sizes, rows), [(k, 0) for k in (1, 2, 3)], 0.5)
        np.testing.assert_array_equal(batch.weight, [1, 1, 1])
        np.testing.assert_array_equal(batch.transition.r_t, [2, 4, 8])
        np.testing.assert_array_equal(batch.transition.discount_t, [0, 1, 1])
    np.testing.assert_array_equal(batch.transition.obs_tm1[1], stacked(1, 2))
    np.testing.assert_array_equal(batch.transition.obs_t[1], stacked(2, 3))


@pytest.mark.parametrize("discount", [0.99, 1.0, 0.0])
def test_discounts_are_raised_to_the_right_powers(discount):
    sizes = (10, 2, 2, 4, 3)
    rows = rows_from([[event, "play"] for event in ["play"] * 6 + ["time limit", "play", "game over", "play", "play"]])
    places = places_of(rows, sizes)
    batch = gathered(sizes, filled(sizes, rows), places, jnp.float32(discount))
    assert np.all(np.isfinite(batch.transition.discount_t))
    assert {transition is None for transition in transitions_of(rows, 4, 3, 0.0).values()} == {True, False}
    for i, place in enumerate(places):
        expected = transitions_of(rows, *sizes[3:], discount)[place]
        if expected is not None:
            np.testing.assert_allclose(batch.transition.r_t[i], expected.r_t, rtol=1e-6)
            np.testing.assert_allclose(batch.transition.discount_t[i], expected.discount_t, rtol=1e-6)


@pytest.mark.parametrize("length", [9, 40])  # partly full; wrapped
def test_draws_are_uniform_over_places(length):
    sizes = (10, 2, 2, 4, 3)
    rows = rows_from([["play", "play"]] * length)
    _, _, _, sample_many = compiled(sizes, 5000)
    numbers = np.asarray(sample_many(filled(sizes, rows), make_key(2), 0.9).transition.a_tm1)
    counts = [np.sum(numbers == k * 2 + env) for k, env in places_of(rows, sizes)]
    assert sum(counts) == 10_000
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    table = np.histogram2d(*numbers.reshape(-1, 2).T, bins=len(counts))[0]  # the two of a batch are independent
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


def test_same_key_same_batch_and_other_key_another():
    sizes = SIZES[3]
    _, _, _, sample_many = compiled(sizes, 5)
    state = filled(sizes, rows_from([["play", "play"]] * 20))
    first, again, other = (sample_many(state, make_key(seed), 0.9).transition.a_tm1 for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("count_axis", [None, 0])  # the lanes share one count of rows, or each has its own
def test_rows_pass_through_scan_and_lanes_through_vmap(count_axis):
    sizes, discounts = (10, 2, 2, 4, 3), [0.5, 0.25]
    replay = make_frame_replay(*sizes)
    events = ["play", "life lost", "play", "play", "game over", *["play"] * 6, "time limit", *["play"] * 6]
    histories = [rows_from([[event, "play"] for event in events], seed=1)]
    histories.append(rows_from([["play", event] for event in events], seed=2))
    stacked_rows = [jax.tree.map(lambda *x: np.stack(x), *rows) for rows in histories]
    lanes = jax.tree.map(lambda *x: jnp.stack(x), *stacked_rows)

    def lane(rows, count, key, discount):
        state = replay.init(jax.tree.map(lambda x: x[0], rows))._replace(rows_added=count)
        state, _ = jax.lax.scan(lambda state, row: (replay.add(state, row), None), state, rows)
        return replay.sample(state, key, discount)

    count = jnp.zeros(() if count_axis is None else 2, jnp.int32)
    keys = jax.random.split(make_key(0), 2)
    batch = jax.jit(jax.vmap(lane, (0, count_axis, 0, 0)))(lanes, count, keys, jnp.array(discounts))
    for i, rows in enumerate(histories):
        mine = jax.tree.map(lambda x, i=i: x[i], batch)
        drawn = [divmod(number, 2) for number in np.asarray(mine.transition.a_tm1).tolist()]
        assert len(drawn) == 2
        assert set(drawn) <= set(places_of(rows, sizes))
        check(mine, drawn, transitions_of(rows, 4, 3, discounts[i]))


def atari_row(num_envs):
    """Shapes and types only."""
    flags, shape = jax.ShapeDtypeStruct((num_envs,), bool), (num_envs, 84, 84)
    integers, floats = jax.ShapeDtypeStruct((num_envs,), jnp.int32), jax.ShapeDtypeStruct((num_envs,), jnp.float32)
    return FrameRow(jax.ShapeDtypeStruct(shape, jnp.uint8), integers, floats, flags, flags, flags)


def size_in_bytes(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def test_a_million_atari_transitions_fit_into_7_5_gigabytes():
    replay = make_frame_replay(1_000_000, 32, 8, frame_stack=4)
    state = jax.eval_shape(replay.init, atari_row(8))
    assert size_in_bytes(state) <= 7.5e9
    assert state.storage.frame.dtype == jnp.uint8
    key = jax.eval_shape(lambda: make_key(0))
    batch = jax.eval_shape(lambda state, key: replay.sample(state, key, 0.99), state, key)
    assert batch.transition.obs_tm1.shape == batch.transition.obs_t.shape == (32, 84, 84, 4)
    assert batch.transition.obs_tm1.dtype == batch.transition.obs_t.dtype == jnp.uint8
    dtypes = [leaf.dtype for leaf in (*batch.transition[1:4], batch.weight)]
    assert dtypes == [jnp.int32, jnp.float32, jnp.float32, jnp.float32]


@pytest.mark.parametrize("envs", [None, 5])  # all, or so many that step asynchronously
def test_neither_adding_nor_sampling_copies_the_ring(envs):
    replay = make_frame_replay(100_000, 32, 8, frame_stack=4, n_step=3, asynchronous=envs is not None)
    state = jax.eval_shape(replay.init, atari_row(8))
    key = jax.eval_shape(lambda: make_key(0))
    added = (atari_row(envs or 8), envs and jax.ShapeDtypeStruct((envs,), jnp.int32))

    def add_and_sample(state, row, envs, key):
        state = replay.add(state, row, envs)
        return state, replay.sample(state, key, 0.99)

    for function, arguments in ((replay.add, (state, *added)), (add_and_sample, (state, *added, key))):
        memory = jax.jit(function, donate_argnums=0).lower(*arguments).compile().memory_analysis()
        assert memory.alias_size_in_bytes >= size_in_bytes(state)  # written where it lies
        assert memory.temp_size_in_bytes < 1e7
    assert jax.jit(replay.sample).lower(state, key, 0.99).compile().memory_analysis().temp_size_in_bytes < 1e7


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0, 1, 1), "capacity"),
        ((-5, 1, 1), "capacity"),
        ((8, 0, 1), "batch_size"),
        ((8, 2, 0), "num_envs"),
        ((8, 2, 1, 0), "frame_stack"),
        ((8, 2, 1, 4, 0), "n_step"),
        ((8, 9, 1), "batch_size"),
    ],
)
def test_impossible_sizes_are_refused_by_name(arguments, name):
    with pytest.raises(ValueError, match=name):
        make_frame_replay(*arguments)


def test_rows_of_another_number_of_environments_are_refused():
    rows = rows_from([["play"] * 3])
    with pytest.raises(ValueError, match="frame must be of 2 environments"):
        make_frame_replay(8, 2, 2).init(rows[0])
    with pytest.raises(ValueError, match="reward must be of 3 environments"):
        make_frame_replay(8, 2, 3).init(rows[0]._replace(reward=np.zeros((), np.float32)))
