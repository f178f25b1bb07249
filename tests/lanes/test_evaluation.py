"""Evaluation: first episodes only, fixed starts, and the policy asked for."""

from __future__ import annotations

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import probes  # noqa: F401 - registers the probe environments
import pytest

from dqn_jax.agent import make_agent
from dqn_jax.config import Config, HParams
from dqn_jax.envs import make_env
from dqn_jax.lanes.evaluation import evaluate
from dqn_jax.prng import make_key


@functools.cache
def evaluator(config, episodes, epsilon=0.0):
    """Environment, agent, weights, and a jitted `(params, seed) -> Evaluation`."""
    env = make_env(config)
    agent = make_agent(config, env.spec)
    params = agent.init(make_key(7), HParams()).params
    run = jax.jit(lambda p, seed: evaluate(env, agent, p, make_key(seed), episodes=episodes, epsilon=epsilon))
    return env, agent, params, lambda p, seed: run(p, jnp.int32(seed))


def test_each_environment_plays_its_first_episode_and_no_more():
    # Episodes last 1 to 6 steps, each worth 1; a step past the end would cost 100, a second episode add to it.
    _, _, params, run = evaluator(Config(env="ProbeLengths-test", hidden=(4,)), 300)
    result = run(params, 0)
    np.testing.assert_array_equal(result.returns, result.lengths)
    assert set(np.unique(result.lengths).tolist()) == {1, 2, 3, 4, 5, 6}
    # One episode from each start: short ones are not counted more often. Mean 3.5, 4 sigma = 0.4.
    assert abs(np.mean(result.lengths) - 3.5) < 0.4
    assert (result.returns.dtype, result.lengths.dtype) == (jnp.float32, jnp.int32)


def test_agrees_with_a_python_loop_over_gymnasium():
    env, agent, params, run = evaluator(Config(hidden=(8,)), 12)
    result = run(params, 3)
    # The same starts, played greedily by hand.
    reset_key, _ = jax.random.split(make_key(3))
    _, starts = jax.vmap(env.reset)(jax.random.split(reset_key, 12))
    greedy = jax.jit(lambda obs: jnp.argmax(agent.q_values(params, obs[None])[0]))
    reference = gymnasium.make("CartPole-v1")
    for i, start in enumerate(np.asarray(starts)):
        reference.reset()
        reference.unwrapped.state = np.float64(start)
        obs, total, length, over = start, 0.0, 0, False
        while not over:
            obs, reward, terminated, truncated, _ = reference.step(int(greedy(np.float32(obs))))
            total, length, over = total + reward, length + 1, terminated or truncated
        assert (float(result.returns[i]), int(result.lengths[i])) == (total, length)
    assert len(np.unique(result.lengths)) > 1


def test_same_key_same_starts_whatever_the_weights_and_other_key_others():
    _, _, params, run = evaluator(Config(env="ProbeLengths-test", hidden=(4,)), 300)
    first, again, other = run(params, 0), run(params, 0), run(params, 1)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first.lengths, other.lengths)
    negated = jax.tree.map(jnp.negative, params)
    np.testing.assert_array_equal(run(negated, 0).lengths, first.lengths)


def test_the_time_limit_ends_an_endless_episode():
    config = Config(env="ProbeEndless-test", hidden=(4,), max_episode_steps=5)
    _, _, params, run = evaluator(config, 6)
    result = run(params, 0)
    np.testing.assert_array_equal(result.lengths, np.full(6, 5))
    np.testing.assert_array_equal(result.returns, np.full(6, 4.0))  # all but the first step pay 1


def test_lengths_are_in_frames():
    config = Config(env="ProbeEndless-test", hidden=(4,), max_episode_steps=10, action_repeat=4)
    _, _, params, run = evaluator(config, 2)
    np.testing.assert_array_equal(run(params, 0).lengths, [10, 10])


def test_returns_are_raw():
    config = Config(env="ProbeEndless-test", hidden=(4,), max_episode_steps=5, reward_scale=0.1, reward_clip=0.01)
    _, _, params, run = evaluator(config, 2)
    np.testing.assert_array_equal(run(params, 0).returns, [4.0, 4.0])


def prefer(params, action):
    """Weights whose greedy action is `action` everywhere."""
    params = jax.tree.map(jnp.zeros_like, params)
    params["params"]["Dense_1"]["bias"] = params["params"]["Dense_1"]["bias"].at[action].set(1.0)
    return params


@pytest.mark.parametrize(("epsilon", "expected"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
def test_epsilon_is_the_share_of_random_actions(epsilon, expected):
    # Action 1 pays 1 and action 0 costs 1: a greedy policy earns 1, a random one 0 on average.
    _, _, params, run = evaluator(Config(env="ProbeAction-test", hidden=(4,)), 2000, epsilon)
    returns = run(prefer(params, 1), 0).returns
    assert abs(np.mean(returns) - expected) <= (0.1 if epsilon else 0.0)
    np.testing.assert_allclose(np.mean(run(prefer(params, 0), 0).returns), -expected, atol=0.1)
