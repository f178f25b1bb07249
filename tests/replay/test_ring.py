"""What memories of every kind share: places, and sizes that are possible."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqn_jax.config import Config, ConfigError, HParams
from dqn_jax.prng import make_key
from dqn_jax.replay import make_memory
from dqn_jax.replay.ring import ReplayState, clear, distinct_indices, keep_priorities, take, write
from dqn_jax.types import FrameRow, Transition, TransitionRow

CONFIG = Config(replay_capacity=12, batch_size=6, num_envs=3)


def row(kind, k):
    """The k-th row of three environments, whose actions number them."""
    numbers = jnp.arange(3, dtype=jnp.int32) + 3 * k
    floats, flags = numbers.astype(jnp.float32), jnp.zeros(3, bool)
    if kind == "frames":
        return FrameRow(floats, numbers, floats, flags, flags, flags)
    return TransitionRow(Transition(floats, numbers, floats, floats, floats), flags)


@pytest.mark.parametrize("kind", ["transitions", "frames"])
def test_a_place_is_where_an_element_of_a_batch_is_remembered(kind):
    memory = make_memory(CONFIG, kind)
    state = memory.init(row(kind, 0))
    for k in range(7):  # the ring wraps around
        state = memory.add(state, row(kind, k))
    batch = memory.sample(state, make_key(0), HParams())
    assert (batch.place.shape, batch.place.dtype) == ((6,), jnp.int32)
    actions = state.storage.action if kind == "frames" else state.storage.a_tm1
    np.testing.assert_array_equal(take(actions, batch.place), batch.transition.a_tm1)
    assert len(np.unique(batch.place)) > 1


@pytest.mark.parametrize("kind", ["transitions", "frames"])
def test_without_priorities_td_errors_change_nothing(kind):
    memory = make_memory(CONFIG, kind)
    state = memory.init(row(kind, 0))
    assert state.priorities == ()
    assert memory.reprioritize((), jnp.arange(6), jnp.ones(6), HParams()) == ()


def test_priorities_outlive_what_is_written_and_cleared():
    state = ReplayState({"x": jnp.zeros((2, 3))}, jnp.int32(5), priorities=jnp.ones(6))
    assert keep_priorities(state.priorities, jnp.arange(2), jnp.ones(2), HParams()) is state.priorities
    cleared = clear(state, True)
    assert int(cleared.rows_added) == 0
    assert cleared.priorities is state.priorities
    written = write(state.storage, {"x": jnp.ones(3)}, jnp.int32(1))
    np.testing.assert_array_equal(written["x"], [[0, 0, 0], [1, 1, 1]])


def test_distinct_indices_are_all_of_them_where_as_many_are_wanted():
    drawn = jax.vmap(lambda key: distinct_indices(key, 5, jnp.int32(5)))(jax.random.split(make_key(0), 50))
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(5), (50, 1)))
    assert len(np.unique(np.asarray(drawn), axis=0)) > 20


def test_a_memory_that_is_not_there_is_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"^replay: there is no 'by mood' for the frames of 'CartPole-v1'\.$"):
        make_memory(dataclasses.replace(CONFIG, replay="by mood"), "frames")
