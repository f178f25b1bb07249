"""Targets that average: over the actions of the policy that explores, whichever that is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from probes import scalars

from dqn_jax.agent.algorithm import Prediction, Views
from dqn_jax.agent.targets import mean_td_error, target_for
from dqn_jax.config import Config, HParams
from dqn_jax.lanes.lane import stack_hparams
from dqn_jax.types import Transition

BATCH, ACTIONS = 16, 4


def examples():
    """Views and transitions, leaves `[BATCH, ...]`; a quarter terminated."""
    rng = np.random.default_rng(0)
    views = Views(*(Prediction(rng.normal(0.0, 2.0, (BATCH, ACTIONS)).astype(np.float32)) for _ in Views._fields))
    transition = Transition(
        (), rng.integers(0, ACTIONS, BATCH).astype(np.int32), rng.normal(size=BATCH).astype(np.float32),
        np.where(np.arange(BATCH) % 4, np.float32(0.97), np.float32(0.0)), (),
    )  # fmt: skip
    return views, transition


def behaviour(q, epsilon, temperature):
    """Probabilities of the actions that explore, `[BATCH, ACTIONS]` float64; greedy but for epsilon without a
    temperature."""
    q = q.astype(np.float64)
    if temperature is None:
        otherwise = np.eye(ACTIONS)[q.argmax(-1)]
    else:
        otherwise = np.exp((q - q.max(-1, keepdims=True)) / temperature)
        otherwise /= otherwise.sum(-1, keepdims=True)
    return (1 - epsilon) * otherwise + epsilon / ACTIONS


@pytest.mark.parametrize(
    ("exploration", "schedule", "epsilon", "double"),
    [
        ("epsilon_greedy", "linear", 0.2, True),
        ("epsilon_greedy", "constant", 0.3, False),
        ("boltzmann", "linear", 0.0, False),
        ("boltzmann", "multiplicative", 0.2, True),
        ("boltzmann", "constant", 0.3, False),
    ],
)
def test_expected_sarsa_is_of_the_policy_that_exploration_ends_with(exploration, schedule, epsilon, double):
    views, transition = examples()
    config = Config(target="expected_sarsa", double=double, exploration=exploration, epsilon_schedule=schedule)
    ends = {"epsilon_start": epsilon, "epsilon_end": 0.9} if schedule == "constant" else {"epsilon_end": epsilon}
    temperature = 0.7 if exploration == "boltzmann" else None
    hparams = scalars(HParams(**ends, **({"temperature": temperature} if temperature else {})))
    target_of = target_for(config, config)

    def td_error(views, transition):
        return mean_td_error(target_of(views, transition, hparams), views, transition)

    q_t = views.target_t.q_values
    probs = behaviour(views.online_t.q_values if double else q_t, epsilon, temperature)
    expected = transition.r_t + transition.discount_t * (probs * q_t).sum(-1)
    expected -= views.online_tm1.q_values[np.arange(BATCH), transition.a_tm1]
    found = jax.jit(jax.vmap(td_error))(views, transition)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    rlaxs = jax.vmap(rlax.expected_sarsa)(
        views.online_tm1.q_values, transition.a_tm1, transition.r_t, transition.discount_t, q_t, jnp.float32(probs)
    )
    np.testing.assert_allclose(found, rlaxs, rtol=1e-5, atol=1e-5)


def test_each_lane_averages_at_its_own_temperature():
    views, transition = examples()
    config = Config(target="expected_sarsa", exploration="boltzmann")
    target_of = target_for(config, config)
    temperatures = (0.01, 1.0, 1e4)
    lanes = stack_hparams(HParams(epsilon_end=0.0, temperature=temperatures), len(temperatures))
    over_batch = jax.vmap(target_of, in_axes=(0, 0, None))
    policy = jax.jit(jax.vmap(over_batch, in_axes=(None, None, 0)))(views, transition, lanes).policy
    for probs, temperature in zip(policy.probs_a_t, temperatures, strict=True):
        np.testing.assert_allclose(probs, behaviour(views.target_t.q_values, 0.0, temperature), atol=1e-5)
    np.testing.assert_array_equal(policy.bonus_t, np.zeros_like(policy.bonus_t))
