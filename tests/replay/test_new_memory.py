"""A new memory is one file and one line of the table. This one, all here, draws by the last errors."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import scalars

from dqn_jax.config import Config, HParams
from dqn_jax.lanes.device import make_loop
from dqn_jax.replay import transition_memory
from dqn_jax.replay.make import MEMORIES
from dqn_jax.replay.ring import take
from dqn_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class Choice(Config):
    """Settings that choose a memory."""

    replay: str = "by error"


CONFIG = Choice(
    env="ProbePolicy-test",
    hidden=(16,),
    num_envs=4,
    batch_size=32,
    replay_capacity=2000,
    min_replay=32,
    train_every=4,
    updates_per_train=2,
    eval_every=400,
    eval_episodes=8,
    total_steps=1200,
)
HPARAMS = HParams(learning_rate=1e-2, discount=0.8, target_period=5, epsilon_decay_steps=1000)


def memory_by_error(config):
    """Draws in proportion to the last absolute TD error (Schaul et al. 2016, with exponents of 1), of new ones 1."""
    plain = transition_memory(config.replay_capacity, config.batch_size, config.num_envs)
    rows = -(-config.replay_capacity // config.num_envs)

    def init(example_row):
        return plain.init(example_row)._replace(priorities=jnp.zeros(rows * config.num_envs))

    def add(state, row, envs=None):
        first = state.rows_added % rows * config.num_envs
        priorities = jax.lax.dynamic_update_slice_in_dim(state.priorities, jnp.ones(config.num_envs), first, 0)
        return plain.add(state, row)._replace(priorities=priorities)

    def sample(state, key, hparams, q_values=None):
        ends = jnp.cumsum(state.priorities)
        place = jnp.searchsorted(ends, ends[-1] * jax.random.uniform(key, (config.batch_size,)), side="right")
        weight = 1.0 / state.priorities[place]
        transition = jax.tree.map(lambda ring: take(ring, place), state.storage)
        assert q_values(transition.obs_t).shape == (config.batch_size, 2)
        return Batch(transition, weight / jnp.max(weight), place)

    def reprioritize(priorities, place, td_error, hparams):
        return priorities.at[place].set(jnp.abs(td_error) + 0.01)

    return plain._replace(init=init, add=add, sample=sample, reprioritize=reprioritize)


@pytest.fixture(autouse=True)
def _one_line(monkeypatch):
    monkeypatch.setitem(MEMORIES, ("by error", "transitions"), memory_by_error)


@pytest.mark.parametrize("minibatch_size", [None, 16])
def test_it_is_drawn_from_and_hears_of_the_errors(minibatch_size):
    config = dataclasses.replace(CONFIG, minibatch_size=minibatch_size)
    loop, quick = make_loop(config), {"xla_backend_optimization_level": 0}
    lane, _ = jax.jit(loop.start, compiler_options=quick)(jnp.int32(0), scalars(HPARAMS))
    np.testing.assert_array_equal(lane.replay.priorities[:32], np.ones(32))
    chunk = jax.jit(loop.chunk, compiler_options=quick)
    for i in range(loop.num_chunks):
        lane, metrics = chunk(jnp.int32(loop.warmup_steps + i * loop.steps_per_chunk), lane, scalars(HPARAMS))
    assert bool(metrics.finite)
    q = loop.agent.q_values(lane.agent.params, jnp.float32([[1.0], [-1.0]]))
    np.testing.assert_allclose(q, [[-1.0, 1.0], [1.0, -1.0]], atol=0.2)
    stored = lane.replay.priorities[: int(lane.replay.rows_added) * config.num_envs]
    assert np.mean(stored < 0.3) > 0.8  # what is known well is rarely drawn
    assert not np.any(lane.replay.priorities[len(stored) :])


def test_learning_does_not_copy_what_is_remembered():
    config = dataclasses.replace(CONFIG, env="CartPole-v1", replay_capacity=4_000_000, eval_episodes=1)
    loop = make_loop(config)
    lane = jax.eval_shape(lambda: loop.start(jnp.int32(0), scalars(HPARAMS))[0])
    program = jax.jit(loop.chunk, donate_argnums=1).lower(jnp.int32(0), lane, scalars(HPARAMS)).compile()
    ring = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(lane.replay.storage))
    assert ring > 1.7e8
    # Priorities are summed and written beside where they are: 16 MB each. Observations would be 64 MB each.
    assert program.memory_analysis().temp_size_in_bytes < 6e7
