"""The support is kept beside the weights: of the lane, and moved by nothing."""

from __future__ import annotations

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqn_jax.agent import ALGORITHMS, make_agent
from dqn_jax.config import SETTINGS, Config, HParams
from dqn_jax.lanes.lane import stack_hparams
from dqn_jax.prng import make_key
from dqn_jax.types import Batch, EnvSpec, Transition

SPEC = EnvSpec("here", (3,), jnp.float32, 2, 100)


@pytest.mark.parametrize("loss", ["categorical", "hl_gauss"])
def test_each_lane_keeps_its_support_through_weight_decay_soft_targets_and_averages(loss):
    config = Config(loss=loss, atoms=5, hidden=(4,), dueling=True, double=True, optimizer="adamw")
    hparams = HParams(v_min=[-1.0, 0.1], v_max=[1.0, 7.3], weight_decay=0.1, target_period=1, target_mixing=0.3)
    hparams = stack_hparams(hparams._replace(average_decay=0.9), 2)
    agent = make_agent(config, SPEC)
    obs = jnp.arange(12.0).reshape(4, 3) / 10
    batch = Batch(Transition(obs, jnp.arange(4) % 2, jnp.ones(4), jnp.ones(4), obs + 1), None, jnp.arange(4))

    def run(hparams):
        def step(state, _):
            return agent.learn(state, batch, hparams, make_key(1))[0], None

        first = agent.init(make_key(0), hparams)
        last = jax.lax.scan(step, first, None, length=20)[0]
        return first, last, agent.q_values(last.played, 100 * obs)

    first, last, q = jax.jit(jax.vmap(run), compiler_options={"xla_backend_optimization_level": 0})(hparams)
    points = 5 if loss == "categorical" else 6
    wanted = np.stack([np.linspace(-1.0, 1.0, points), np.linspace(0.1, 7.3, points)])
    np.testing.assert_allclose(first.params["support"], wanted, atol=1e-6)
    for kept in (last.params, last.target_params, last.average_params):
        np.testing.assert_array_equal(kept["support"], first.params["support"])
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), first.params["params"], last.params["params"])
    assert all(jax.tree.leaves(moved))
    assert np.all((q[0] >= -1) & (q[0] <= 1))
    assert np.all((q[1] >= 0.1) & (q[1] <= 7.3))


def test_every_loss_that_can_be_named_has_its_member():
    assert set(typing.get_args(SETTINGS["loss"].kind)) == set(ALGORITHMS)
