"""What is held against the estimates is the truth: on tasks whose values are known by hand."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import probes  # noqa: F401  (registers the tasks)

from dqn_jax.agent import Prediction
from dqn_jax.config import Config
from dqn_jax.envs import make_env
from dqn_jax.prng import make_key, rolled
from experiments.convergence import overestimation

QUICK = {"xla_backend_optimization_level": 0}


def measured(name):
    """What is measured of an agent that expects 7 of action 1 and more of none; and the hidden numbers `[E]`."""
    env = make_env(Config(env=name, max_episode_steps=overestimation.PLAYED + 1))

    def judged(params, obs, key):
        return Prediction(jnp.tile(params, (obs.shape[0], 1)))

    def run(key):
        starts = jax.random.split(jax.random.split(key, 3)[0], overestimation.EPISODES)
        hidden = jax.vmap(env.reset)(starts)[0].inner.hidden
        return overestimation.measure(env, SimpleNamespace(judged=judged), jnp.array([-1.0, 7.0]), key), hidden

    with jax.debug_key_reuse(False):  # on purpose: the starts are drawn a second time, to be seen
        return jax.device_get(jax.jit(run, compiler_options=QUICK)(rolled(make_key(3))))


def worth(steps):
    """Of a reward of 1 for each of so many steps."""
    return (1 - overestimation.DISCOUNT ** np.asarray(steps, float)) / (1 - overestimation.DISCOUNT)


def test_the_truth_of_episodes_that_end_is_of_their_own_steps():
    found, lengths = measured("ProbeLengths-test")
    assert len(np.unique(lengths)) > 2
    # What is left after each step that was taken, over all steps of all episodes.
    truth = np.concatenate([worth(np.arange(length, 0, -1)) for length in lengths])
    np.testing.assert_allclose(found.value, truth.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.estimate, 7.0, rtol=1e-6)


def test_the_truth_of_a_life_without_end_is_followed_far_enough():
    found, _ = measured("ProbeEndless-test")
    for_ever = 1 / (1 - overestimation.DISCOUNT)
    mean = for_ever * (overestimation.SCORED - 1 + overestimation.DISCOUNT) / overestimation.SCORED
    assert 0.998 * mean < found.value < mean
