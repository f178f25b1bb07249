"""A new algorithm is one file (here `newcomer`) and one line of the table: acting, learning and evaluation take it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import newcomer
import numpy as np
import pytest
from probes import scalars

from dqn_jax.agent import ALGORITHMS, make_agent
from dqn_jax.config import ConfigError, HParams
from dqn_jax.lanes.device import make_loop
from dqn_jax.lanes.driver import driver_for
from dqn_jax.lanes.lane import stack_hparams
from dqn_jax.prng import make_key
from dqn_jax.types import Batch, EnvSpec, Transition

SPEC = EnvSpec("here", (3,), jnp.float32, 2, 100)
SMALL = newcomer.Choice(hidden=(8,), dueling=True)


@pytest.fixture(autouse=True)
def _one_line(monkeypatch):
    monkeypatch.setitem(ALGORITHMS, "newcomer", newcomer.NEWCOMER)


def batch_of(rows):
    """A batch of steps that end, each in its place."""
    obs = jnp.ones((rows, 3)) * jnp.arange(rows)[:, None]
    transition = Transition(obs, jnp.arange(rows) % 2, jnp.ones(rows), jnp.zeros(rows), obs + 1)
    return Batch(transition, None, jnp.arange(rows))


def test_predictions_have_atoms_and_whoever_wants_q_values_gets_them_alone():
    agent = make_agent(SMALL, SPEC)
    params = agent.init(make_key(0), HParams()).params
    obs = batch_of(5).transition.obs_tm1
    prediction = agent.predict(params, obs, make_key(0))
    assert prediction.atoms.shape == (5, 2, 17)
    np.testing.assert_array_equal(agent.q_values(params, obs), prediction.q_values)
    np.testing.assert_allclose(prediction.q_values, jax.nn.softmax(prediction.atoms) @ newcomer.RETURNS, rtol=1e-5)
    assert agent.act(params, obs, 0.0, make_key(1)).shape == (5,)


def test_heads_draw_anew_for_every_key_and_every_update():
    agent = make_agent(SMALL, SPEC)
    state, batch = agent.init(make_key(0), HParams()), batch_of(4)
    first, other = (agent.predict(state.params, batch.transition.obs_tm1, make_key(i)).atoms for i in (0, 1))
    assert not np.any(first == other)
    learn = jax.jit(agent.learn)
    errors = [learn(state._replace(updates=jnp.int32(n)), batch, HParams(), make_key(2))[2] for n in (0, 0, 1)]
    np.testing.assert_array_equal(errors[0], errors[1])  # one key serves many updates
    assert not np.any(errors[0] == errors[2])
    assert errors[0].shape == (4,)


def test_what_it_refuses_is_said_in_one_line():
    with pytest.raises(ConfigError, match=r"^double: it always chooses by the online network; leave it out"):
        make_agent(newcomer.Choice(double=True), SPEC)
    with pytest.raises(ConfigError, match=r"^loss: 'newcomerr' is not known. Did you mean 'newcomer'\?"):
        make_agent(newcomer.Choice(loss="newcomerr"), SPEC)


def test_it_learns_in_environments_on_the_device():
    config = newcomer.Choice(
        env="ProbePolicy-test",
        hidden=(16,),
        num_envs=4,
        batch_size=32,
        replay_capacity=2000,
        min_replay=32,
        train_every=4,
        eval_every=400,
        eval_episodes=8,
        total_steps=2000,
    )
    hparams = scalars(HParams(learning_rate=1e-2, discount=0.8, target_period=5, epsilon_decay_steps=1000))
    loop, quick = make_loop(config), {"xla_backend_optimization_level": 0}
    lane, _ = jax.jit(loop.start, compiler_options=quick)(jnp.int32(0), hparams)
    chunk = jax.jit(loop.chunk, compiler_options=quick)
    for i in range(loop.num_chunks):
        lane, metrics = chunk(jnp.int32(loop.warmup_steps + i * loop.steps_per_chunk), lane, hparams)
    assert bool(metrics.finite)
    np.testing.assert_array_equal(metrics.eval_returns, np.ones(8))
    q = loop.agent.q_values(lane.agent.params, jnp.float32([[1.0], [-1.0]]))
    np.testing.assert_allclose(q, [[-1.0, 1.0], [1.0, -1.0]], atol=0.15)


SHORT = newcomer.Choice(
    hidden=(8,), num_envs=4, batch_size=8, replay_capacity=400, min_replay=50, eval_every=60, eval_episodes=2
)


def trained(driver):
    """One network after one chunk, on the host."""
    population = driver.population(HParams(), 1)
    try:
        lanes, _ = population.start([3], HParams())
        layout = population.layout
        hparams, everyone = layout.place(stack_hparams(HParams(), 1)), layout.active(np.arange(1))
        lanes, metrics = population.chunk(jnp.int32(driver.rhythm.warmup_steps), lanes, hparams, everyone)
        assert np.asarray(metrics.finite)[0]
        assert np.asarray(metrics.updates)[0, -1] >= 7
        return layout.fetch(population.networks(lanes), np.arange(1))
    finally:
        population.close()


def test_it_learns_over_a_pool_the_same_wherever_its_replay_is_and_plays_and_is_filmed():
    config = dataclasses.replace(SHORT, env="envpool:CartPole-v1", pool_threads=1)
    driver = driver_for(config)
    params = trained(driver)
    elsewhere = trained(driver_for(dataclasses.replace(config, replay_memory="host")))
    jax.tree.map(np.testing.assert_array_equal, elsewhere, params)
    played = driver.play(params, episodes=2, epsilon=0.0, seed=5)
    assert np.all(np.asarray(played.lengths) > 0)
    one = jax.tree.map(lambda x: x[0], params)
    film = driver.film(one, start=5, title="who", suffix=driver.film_suffix, q_values=True)
    assert film.episode_return > 0
