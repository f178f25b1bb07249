"""What both drivers do with a lane: rhythm, and hyperparameters for many."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import tiny

from dqn_jax.config import ConfigError, HParams
from dqn_jax.lanes.device import make_loop
from dqn_jax.lanes.lane import LaneState, Parts, act, one_lane, rhythm_of, stack_hparams, trainings_due
from dqn_jax.prng import make_key
from dqn_jax.replay import make_memory


@pytest.mark.parametrize(
    ("total_steps", "min_replay", "chunks"),
    [(104, 0, 2), (105, 0, 3), (114, 10, 2), (115, 10, 3), (105, 1, 2), (9, 9, 1)],
)
def test_the_budget_counts_the_warm_up_and_is_rounded_up_to_whole_chunks(total_steps, min_replay, chunks):
    loop = make_loop(tiny(num_envs=2, eval_every=51, total_steps=total_steps, min_replay=min_replay))
    assert loop.steps_per_chunk == 52  # 51 is not a multiple of 2 environments
    assert loop.num_chunks == chunks


def test_hyperparameters_are_stacked_one_value_per_lane():
    stacked = stack_hparams(HParams(learning_rate=[0.1, 0.2, 0.3], target_period=7), 3)
    np.testing.assert_allclose(stacked.learning_rate, [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(stacked.target_period, [7, 7, 7])
    assert (stacked.learning_rate.dtype, stacked.target_period.dtype) == (np.float32, np.int32)
    assert stacked.max_grad_norm is None
    for values in ([0.1, 0.2], np.ones((3, 1))):
        with pytest.raises(ConfigError, match=r"learning_rate.*3 lanes"):
            stack_hparams(HParams(learning_rate=values), 3)


def test_training_is_due_as_often_as_multiples_are_crossed():
    config = tiny(num_envs=5, train_every=3)
    due = [trainings_due(config, since) for since in range(0, 60, 5)]
    assert set(due) == {1, 2}
    assert np.cumsum(due).tolist() == [(since + 5) // 3 for since in range(0, 60, 5)]


@pytest.mark.parametrize(("least", "warmup_steps"), [(0, 12), (3, 12), (4, 16)])
def test_a_rhythm_is_of_whole_iterations(least, warmup_steps):
    rhythm = rhythm_of(tiny(num_envs=4, min_replay=9, eval_every=10, total_steps=40), least)
    assert (rhythm.step, rhythm.warmup_steps, rhythm.steps_per_chunk) == (4, warmup_steps, 12)
    assert (rhythm.warmup_iterations, rhythm.iterations) == (warmup_steps // 4, 3)
    assert rhythm.last_step - rhythm.steps_per_chunk < 40 <= rhythm.last_step


def test_a_lane_keeps_the_order_in_which_checkpoints_number_its_leaves():
    """Of either driver: what it does not have is (), which has no leaves."""
    fields = ("seed", "key", "agent", "replay", "env", "obs", "episodes", "trainings", "freeze")
    assert LaneState._fields == fields
    over_pool = LaneState(*range(4), (), *range(5, 8), ())
    assert jax.tree.leaves(over_pool) == [0, 1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize("values", [[0.1, 0.2, 0.3], np.array([0.1, 0.2, 0.3]), 0.1])
def test_the_first_lane_has_the_first_of_its_values(values):
    first = one_lane(HParams(learning_rate=values, target_period=7))
    assert first.learning_rate == np.float32(0.1)
    assert (first.target_period, first.max_grad_norm) == (7, None)
    assert np.shape(first.learning_rate) == ()


@pytest.mark.parametrize("network", ["online", "target"])
def test_a_lane_acts_with_the_network_that_is_asked_for(network):
    config = tiny(acting_network=network, epsilon_schedule="constant", target_network=True)
    loop = make_loop(config)
    agent, hparams = loop.agent, HParams(epsilon_start=0.0)
    lane = jax.eval_shape(loop.start, jnp.int32(0), hparams)[0]
    online, target = (agent.init(make_key(i), hparams).params for i in (0, 1))
    lane = lane._replace(agent=lane.agent._replace(params=online, target_params=target))
    obs = jnp.linspace(-3.0, 3.0, 50)[:, None]
    parts = Parts(config, agent, make_memory(config, "transitions"))
    actions, _ = act(parts, jnp.int32(0), lane, obs, make_key(2), hparams)
    greedy = [np.argmax(agent.q_values(params, obs), axis=-1) for params in (online, target)]
    assert not np.array_equal(*greedy)
    np.testing.assert_array_equal(actions, greedy[network == "target"])
