"""Rainbow as a whole, all six parts at once: it learns what is known, in environments on the device and in a pool."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import scalars, tiny

import dqn_jax
from dqn_jax.config import HParams
from dqn_jax.lanes.device import make_loop
from dqn_jax.presets import Preset

QUICK = {"xla_backend_optimization_level": 0}
CONFIG = tiny(
    loss="categorical",
    atoms=21,
    double=True,
    dueling=True,
    noisy=True,
    replay="prioritized",
    n_step=3,
    epsilon_schedule="constant",
    eval_every=6_000,
    total_steps=6_000,
)
HPARAMS = HParams(
    learning_rate=5e-3,
    learning_rate_end=0.0,
    learning_rate_decay_updates=1_500,
    discount=0.8,
    epsilon_start=0.0,  # noise explores
    target_period=20,
    importance_anneal_updates=1_500,
)


@pytest.mark.parametrize(
    ("env", "support", "observations", "values"),
    [
        ("ProbePolicy-test", (-2.0, 2.0), [[1.0], [-1.0]], [[-1.0, 1.0], [1.0, -1.0]]),
        ("ProbeEndless-test", (0.0, 6.0), [[-1.0], [1.0]], [[4.0, 4.0], [5.0, 5.0]]),
    ],
)
def test_values_of_probes(env, support, observations, values):
    """Those of the best actions, and of steps whose three rewards reach to a time limit and no further.

    Of an action that is worse little is seen once the noise has settled.
    """
    config = dataclasses.replace(CONFIG, env=env, max_episode_steps=5 if env == "ProbeEndless-test" else None)
    hparams = scalars(HPARAMS._replace(v_min=support[0], v_max=support[1]))
    loop = make_loop(config)
    start, chunk = (jax.jit(f, compiler_options=QUICK) for f in (loop.start, loop.chunk))
    lane, _ = start(jnp.int32(0), hparams)
    lane, metrics = chunk(jnp.int32(loop.warmup_steps), lane, hparams)
    assert bool(metrics.finite)
    q = np.asarray(loop.agent.q_values(lane.agent.params, jnp.float32(observations)))
    np.testing.assert_allclose(q.max(axis=1), np.max(values, axis=1), atol=0.1)
    if env == "ProbePolicy-test":
        np.testing.assert_array_equal(q.argmax(axis=1), np.argmax(values, axis=1))
        assert np.all(np.asarray(metrics.eval_returns) == 1.0)


def test_over_a_pool_it_learns_to_catch():
    """EnvPool's Catch, where random play scores -0.6 and perfect play 1."""
    config = dataclasses.replace(
        CONFIG,
        env="envpool:Catch-v0",
        hidden=(64,),
        num_envs=16,
        batch_size=64,
        replay_capacity=8_000,
        min_replay=500,
        train_every=16,
        eval_every=5_120,
        eval_episodes=20,
        total_steps=10_000,
        updates_per_train=2,
        pool_threads=1,
    )
    hparams = HPARAMS._replace(
        learning_rate=1e-3,
        learning_rate_decay_updates=2_500,
        discount=0.99,
        target_period=50,
        v_min=-1.0,
        v_max=1.0,
    )
    result = dqn_jax.train(Preset("catch", "", config, hparams), seeds=1)
    assert result.metrics.eval_return.iloc[-1] > 0.9
