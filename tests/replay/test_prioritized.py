"""Prioritised replay against an implementation in dictionaries and loops, given the same random numbers."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from probes import scalars

from dqn_jax.config import Config, HParams
from dqn_jax.lanes.device import make_loop
from dqn_jax.prng import make_key
from dqn_jax.replay.prioritized import importance_weights, prioritized_frames, prioritized_transitions
from dqn_jax.replay.sum_tree import all_masses, total
from dqn_jax.types import FrameRow, Transition, TransitionRow

# Masses are whole numbers, and all their sums exact.
EXACT = HParams(
    priority_exponent=1.0,
    priority_eps=1.0,
    importance_exponent=0.5,
    importance_exponent_end=1.0,
    importance_anneal_updates=8,
)
BATCH = 4
# kind, capacity, num_envs, frame_stack, n_step, environments that step at a time
SIZES = [
    ("transitions", 10, 2, 1, 1, 2),
    ("transitions", 9, 2, 1, 3, 2),
    ("frames", 10, 2, 1, 1, 2),
    ("frames", 12, 2, 3, 2, 2),
    ("frames", 14, 3, 2, 2, 2),
]


class Naive:
    """Masses by (row, environment), each counted in the environment's own rows."""

    def __init__(self, kind, capacity, num_envs, frame_stack, n_step):
        self.before, self.after = frame_stack - 1, n_step if kind == "frames" else n_step - 1
        self.ring = -(-capacity // num_envs) + self.before + self.after
        self.frames = kind == "frames"  # of which those that lead into the first of an episode are no transitions
        self.num_envs, self.mass, self.largest, self.updates = num_envs, {}, 1.0, 0
        self.firsts = [[] for _ in range(num_envs)]  # of each row of each environment, whether it begins an episode

    def add(self, envs, first):
        for env, begins in zip(envs, first, strict=True):
            self.firsts[env].append(begins)
            for row in range(len(self.firsts[env])):
                if self.can_be_drawn(row, env):
                    self.mass.setdefault((row, env), self.largest)
                else:
                    self.mass.pop((row, env), None)

    def can_be_drawn(self, row, env):
        rows = self.firsts[env]
        stored = range(max(0, len(rows) - self.ring), len(rows))
        whole = row - self.before in stored and row + self.after in stored
        return whole and not (self.frames and rows[row + 1])

    def places(self):
        """Masses by place, zeros for what cannot be drawn."""
        masses = np.zeros(self.ring * self.num_envs)
        for (row, env), mass in self.mass.items():
            masses[row % self.ring * self.num_envs + env] = mass
        return masses

    def sample(self, key):
        masses, (coarse, fine) = self.places(), np.asarray(jax.random.uniform(key, (2, BATCH)), np.float64)
        target = (np.arange(BATCH) + coarse) / BATCH * masses.sum() + fine * masses.sum() * 2.0**-24
        place = np.searchsorted(np.cumsum(masses), target, side="right")
        probability = masses[place] / masses.sum()
        exponent = 0.5 + 0.5 * min(self.updates / 8, 1.0)
        weight = (len(self.mass) * probability) ** -exponent
        return place, weight / weight.max()

    def reprioritize(self, place, td_error):
        for i, error in zip(place, td_error, strict=True):
            (at,) = (at for at in self.mass if at[0] % self.ring * self.num_envs + at[1] == i)
            self.mass[at] = abs(error) + 1.0
            self.largest = max(self.largest, self.mass[at])
        self.updates += 2


@functools.cache
def compiled(kind, capacity, num_envs, frame_stack, n_step, step):
    if kind == "frames":
        memory = prioritized_frames(
            capacity,
            BATCH,
            num_envs,
            frame_stack=frame_stack,
            n_step=n_step,
            asynchronous=step < num_envs,
            updates_per_batch=2,
        )
    else:
        memory = prioritized_transitions(capacity, BATCH, num_envs, n_step=n_step, updates_per_batch=2)
    quick = {"xla_backend_optimization_level": 0}
    return memory, *(jax.jit(f, compiler_options=quick) for f in (memory.add, memory.sample, memory.reprioritize))


def row_of(kind, numbers, first):
    """A row whose actions are its numbers."""
    numbers = np.asarray(numbers, np.int32)
    floats, nothing = numbers.astype(np.float32), np.zeros(len(numbers), bool)
    if kind == "frames":
        return FrameRow(floats, numbers, floats, nothing, nothing, first)
    return TransitionRow(Transition(floats, numbers, floats, floats, floats), nothing)


@st.composite
def histories(draw):
    """Sizes, and what happens in turn: a row that comes (which environments, and which begin an episode with it), or a
    batch (its TD errors)."""
    sizes = draw(st.sampled_from(SIZES))
    num_envs, step = sizes[2], sizes[5]
    envs = st.permutations(range(num_envs)).map(lambda order: sorted(order[:step]))
    row = st.tuples(envs, st.lists(st.sampled_from([False] * 5 + [True]), min_size=step, max_size=step))
    errors = st.lists(st.integers(-20, 20), min_size=BATCH, max_size=BATCH)
    return sizes, draw(st.lists(st.one_of(row, row, errors), min_size=12, max_size=40))


@given(histories(), st.integers(0, 2**31 - 1))
def test_same_random_numbers_same_places_same_weights_same_tree(history, seed):
    sizes, happenings = history
    kind, num_envs, step = sizes[0], sizes[2], sizes[5]
    memory, add, sample, reprioritize = compiled(*sizes)
    naive, count = Naive(*sizes[:5]), 0
    state = memory.init(row_of(kind, range(num_envs), np.zeros(num_envs, bool)))
    number = {}
    for happening in happenings:
        if isinstance(happening, tuple):
            envs, first = happening[0], np.array(happening[1])
            for env in envs:
                number[len(naive.firsts[env]) % naive.ring * num_envs + env] = count
                count += 1
            row = row_of(kind, range(count - step, count), first)
            state = add(state, row, np.array(envs, np.int32)) if step < num_envs else add(state, row)
            naive.add(envs, first)
        elif naive.mass:
            batch = sample(state, make_key(seed), EXACT)
            place, weight = naive.sample(make_key(seed))
            seed = (seed + 1) % 2**31
            np.testing.assert_array_equal(batch.place, place)
            np.testing.assert_allclose(batch.weight, weight, rtol=1e-5)
            assert batch.transition.a_tm1.tolist() == [number[i] for i in place]
            td_error = np.float32(happening)
            state = state._replace(priorities=reprioritize(state.priorities, place.astype(np.int32), td_error, EXACT))
            naive.reprioritize(place, td_error)
        wanted = naive.places()
        np.testing.assert_array_equal(all_masses(state.priorities.tree)[: len(wanted)], wanted)
        assert float(total(state.priorities.tree)) == wanted.sum()
        assert (float(state.priorities.largest), int(state.priorities.updates)) == (naive.largest, naive.updates)


def filled(td_errors, batch_size, hparams):
    """A memory of one transition for each TD error, which it has heard of."""
    count = len(td_errors)
    memory = prioritized_transitions(count, batch_size, count)
    state = memory.init(row_of("transitions", range(count), None))
    state = memory.add(state, row_of("transitions", range(count), None))
    place = jnp.arange(count, dtype=jnp.int32)
    priorities = memory.reprioritize(state.priorities, place, jnp.float32(td_errors), hparams)
    return memory, state._replace(priorities=priorities)


@pytest.mark.parametrize("exponent", [0.0, 0.6, 1.0])
def test_places_are_drawn_in_proportion_to_a_power_of_their_errors(exponent):
    errors = np.geomspace(0.1, 30, 40)
    hparams = EXACT._replace(priority_exponent=exponent, priority_eps=0.05)
    memory, state = filled(errors * (-1.0) ** np.arange(40), 20, hparams)
    sample = jax.jit(jax.vmap(lambda key: memory.sample(state, key, hparams).place))
    counts = np.bincount(np.ravel(sample(jax.random.split(make_key(0), 2_000))), minlength=40)
    mass = (errors + 0.05) ** exponent
    # Strata vary less than independent draws do: the test is passed the more easily.
    assert scipy.stats.chisquare(counts, 40_000 * mass / mass.sum()).pvalue > 1e-3
    # And each of a batch is from a stratum of its own.
    ends = np.cumsum(mass) / mass.sum()
    place = np.asarray(sample(jax.random.split(make_key(1), 50)))
    assert np.all(ends[place] >= np.arange(20) / 20 - 1e-5)
    assert np.all((ends - mass / mass.sum())[place] <= np.arange(1, 21) / 20 + 1e-5)


def test_importance_is_annealed_and_corrects_what_was_drawn_more_often():
    mass, hparams = jnp.float32([4.0, 1.0, 16.0, 0.0]), EXACT._replace(importance_anneal_updates=10)
    for updates, exponent in ((0, 0.5), (5, 0.75), (10, 1.0), (1000, 1.0)):
        weight = importance_weights(mass, jnp.int32(updates), hparams)
        np.testing.assert_allclose(weight, [4.0**-exponent, 1.0, 16.0**-exponent, 0.0], rtol=1e-6)
    assert importance_weights(jnp.zeros(2), jnp.int32(0), hparams).tolist() == [0.0, 0.0]


def test_with_full_importance_means_are_those_of_uniform_draws():
    errors = np.float32([0.0, 1.0, 3.0, 8.0])
    hparams = EXACT._replace(importance_exponent=1.0)
    memory, state = filled(errors, 4, hparams)
    batch = jax.vmap(lambda key: memory.sample(state, key, hparams))(jax.random.split(make_key(0), 5_000))
    # The weights of a batch are over its own largest, which is taken out again here: that is of the least mass.
    mass = errors + 1.0
    least = mass[batch.place].min(axis=1, keepdims=True)
    means = [np.mean(np.where(batch.place == i, batch.weight / least, 0.0)) * mass.sum() for i in range(4)]
    np.testing.assert_allclose(means, 1.0, rtol=0.05)


def test_of_a_place_that_is_drawn_twice_the_last_error_counts():
    memory, state = filled([1.0, 2.0, 3.0], 2, EXACT)
    place, errors = jnp.int32([1, 0, 1]), jnp.float32([7.0, 9.0, 5.0])
    heard = memory.reprioritize(state.priorities, place, errors, EXACT)
    assert all_masses(heard.tree)[:3].tolist() == [10.0, 6.0, 4.0]
    assert float(heard.largest) == 10.0


def test_where_nothing_can_be_drawn_nothing_counts_and_nothing_is_remembered_of_it():
    memory = prioritized_frames(8, 2, 1)
    first = np.array([True])
    state = memory.init(row_of("frames", [0], first))
    for number in range(4):  # episodes without a step
        state = memory.add(state, row_of("frames", [number], first))
    batch = memory.sample(state, make_key(0), EXACT)
    assert batch.weight.tolist() == [0.0, 0.0]
    heard = memory.reprioritize(state.priorities, batch.place, jnp.ones(2), EXACT)
    assert not np.any(heard.tree)


def test_lanes_have_exponents_of_their_own():
    hparams = EXACT._replace(
        priority_exponent=jnp.float32([0.0, 0.5, 1.0]), importance_exponent=jnp.float32([1.0, 0.5, 0.0])
    )
    axes = jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, hparams)

    def lane(hparams):
        memory, state = filled(np.geomspace(0.1, 9, 30), 8, hparams)
        batch = memory.sample(state, make_key(3), hparams)
        return batch.place, batch.weight, memory.reprioritize(state.priorities, batch.place, batch.weight, hparams)

    together = jax.jit(jax.vmap(lane, (axes,)))(hparams)
    for i in range(3):
        alone = jax.jit(lane)(jax.tree.map(lambda x, i=i: x[i] if jnp.ndim(x) else x, hparams))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-6), together, alone)


CONFIG = Config(
    env="ProbePolicy-test",
    hidden=(16,),
    num_envs=4,
    replay="prioritized",
    n_step=2,
    batch_size=32,
    replay_capacity=2000,
    min_replay=32,
    train_every=4,
    updates_per_train=2,
    eval_every=400,
    eval_episodes=8,
    total_steps=1200,
)


def test_an_agent_learns_from_what_it_is_wrong_about():
    hparams = HParams(learning_rate=1e-2, discount=0.8, target_period=5, epsilon_decay_steps=1000)
    loop, quick = make_loop(CONFIG), {"xla_backend_optimization_level": 0}
    lane, _ = jax.jit(loop.start, compiler_options=quick)(jnp.int32(0), scalars(hparams))
    chunk = jax.jit(loop.chunk, compiler_options=quick)
    for i in range(loop.num_chunks):
        lane, metrics = chunk(jnp.int32(loop.warmup_steps + i * loop.steps_per_chunk), lane, scalars(hparams))
    assert bool(metrics.finite)
    q = loop.agent.q_values(lane.agent.params, jnp.float32([[1.0], [-1.0]]))
    np.testing.assert_allclose(q, [[-1.0, 1.0], [1.0, -1.0]], atol=0.2)
    tree, _, updates = lane.replay.priorities
    stored = all_masses(tree)
    assert int(updates) == int(lane.agent.updates) > 400
    complete = (int(lane.replay.rows_added) - 1) * 4
    assert np.all(stored[:complete] > 0.0)
    assert not np.any(stored[complete:])
    assert np.mean(stored[:complete] < 0.5) > 0.8  # what is known well is rarely drawn


def test_learning_copies_neither_what_is_remembered_nor_its_priorities():
    config = dataclasses.replace(CONFIG, env="CartPole-v1", replay_capacity=4_000_000, eval_episodes=1)
    loop = make_loop(config)
    lane = jax.eval_shape(lambda: loop.start(jnp.int32(0), scalars(HParams()))[0])
    program = jax.jit(loop.chunk, donate_argnums=1).lower(jnp.int32(0), lane, scalars(HParams())).compile()
    assert sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(lane.replay.priorities)) > 1.6e7
    assert program.memory_analysis().temp_size_in_bytes < 4e6
