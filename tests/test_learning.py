"""Learning that takes a while: the presets really learn their tasks."""

from __future__ import annotations

import numpy as np
import pytest

import dqn_jax


def test_cartpole_preset_converges_within_its_budget():
    result = dqn_jax.train("cartpole", seeds=4, seed=500, stop="converged", eval_episodes=20)
    assert result.converged.sum() >= 3
    reached = [steps for steps in result.summary["criteria"][0]["env_steps"] if steps is not None]
    assert np.median(reached) <= 80_000


def test_pendulum_preset_swings_up():
    result = dqn_jax.train("pendulum", seeds=2, seed=500, stop="converged", eval_episodes=20)
    assert result.converged.all()
    first = result.metrics.groupby("seed").eval_return.first()
    assert (first < -400).all()  # it had something to learn


def test_pqn_preset_learns_cartpole_in_seconds():
    result = dqn_jax.train("pqn-cartpole", seeds=2, seed=500, total_steps=250_000, stop="converged", eval_episodes=20)
    assert result.converged.any()
    assert result.metrics.q_mean.max() < 10.5  # rewards of 0.1 and a discount of 0.99: no policy is worth more than 10


@pytest.mark.parametrize(("name", "steps"), [("dqn-no-replay", 150_000), ("dqn-no-target", 20_000)])
def test_dqn_learns_cartpole_without_replay_and_without_target_network(name, steps):
    """The preset's agents on their way to 500: whoever had lost its one stabiliser would stay below 195."""
    result = dqn_jax.train(
        name, seeds=2, seed=500, total_steps=steps, criteria=("eval>=195",), stop="converged", eval_episodes=20
    )
    assert result.converged.all()
