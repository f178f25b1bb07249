"""Baird's counterexample: off-policy learning with linear values diverges, and with a target that is held it does not.

Baird 1995 ("Residual Algorithms", section 4, the star problem), with the numbers of Sutton & Barto 2018, section 11.2:
seven places, all of which lead to the last under the policy that is valued, and all of which are learnt from equally
often. Rewards are 0, and values 2 w_i + w_8 of the first six places and w_7 + 2 w_8 of the last: all could be right.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import scalars
from tabular import QUICK

from dqn_jax.agent import make_agent
from dqn_jax.config import Config, HParams
from dqn_jax.prng import make_key
from dqn_jax.types import Batch, EnvSpec, Transition

FEATURES = np.zeros((7, 8))
FEATURES[:6, :6], FEATURES[:, 7], FEATURES[6, 6:] = 2 * np.eye(6), 1.0, (1.0, 2.0)
FIRST = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 10.0, 1.0, 0.0])  # the last is the bias, which networks have besides
DISCOUNT = 0.99


def iterated(rate, updates, period):
    """The same iteration in float64: weights `[updates, 9]`; without a period targets are by the newest weights."""
    phi = np.column_stack([FEATURES, np.ones(7)])
    w = held = FIRST
    found = []
    for update in range(1, updates + 1):
        td_error = DISCOUNT * phi[-1] @ (w if period is None else held) - phi @ w
        w = w + rate * td_error @ phi / 7
        held = w if period is not None and update % period == 0 else held
        found.append(w)
    return np.array(found)


def learnt(config, updates, **values):
    """What the agent makes of the same places, weights `[updates, 9]`: one action, which leads to the last place."""
    agent = make_agent(config, EnvSpec("Baird-v0", (8,), jnp.float32, 1, 100))
    hparams = scalars(HParams(discount=DISCOUNT, **values))
    seen, nothing = np.float32(FEATURES), np.zeros(7, np.int32)
    batch = Batch(
        Transition(seen, nothing, np.zeros(7, np.float32), np.ones(7, np.float32), np.tile(seen[-1], (7, 1))),
        None,
        nothing,
    )

    def run():
        state = agent.init(make_key(0), hparams)
        _, tree = jax.tree.flatten(state.params)
        params = jax.tree.unflatten(tree, [jnp.float32(FIRST[8:]), jnp.float32(FIRST[:8, None])])  # bias, kernel
        state = state._replace(params=params, target_params=params if config.target_network else ())

        def step(state, _):
            state = agent.learn(state, batch, hparams, make_key(1))[0]
            bias, kernel = jax.tree.leaves(state.params)
            return state, jnp.concatenate([kernel[:, 0], bias])

        return jax.lax.scan(step, state, None, length=updates)[1]

    return jax.jit(run, compiler_options=QUICK)()


LINEAR = {"torso": "mlp", "hidden": (), "loss": "squared", "optimizer": "sgd"}


def norms(weights):
    return np.linalg.norm(FEATURES @ weights[:, :8].T + weights[:, 8], axis=0)


@pytest.mark.parametrize(
    ("period", "rate", "updates", "grows"),
    [
        (None, 0.1, 400, (5e4, np.inf)),  # without a target network: 70,000 times as large, and no end of it
        (1, 0.1, 400, (5e4, np.inf)),  # with one that is copied at once: the same
        (20, 0.05, 4_000, (0.0, 0.06)),  # held for 20 updates: on the way to 0
    ],
)
def test_updates_are_those_of_the_exact_iteration(period, rate, updates, grows):
    config = Config(target_network=period is not None, **LINEAR)
    expected = iterated(rate, updates, period)
    held = {} if period is None else {"target_period": period}
    weights = np.asarray(learnt(config, updates, learning_rate=rate, **held))
    size = np.abs(expected).max(axis=1, keepdims=True)
    np.testing.assert_allclose(weights / size, expected / size, atol=1e-4)
    least, most = grows
    values = norms(weights)
    assert least < values[-1] / values[0] < most
