"""What the training loop promises: probe environments are learnt, cadences are exact, lanes are independent."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import probes  # noqa: F401 - registers the probe environments
import pytest

from dqn_jax.config import Config, HParams
from dqn_jax.loop import make_loop
from dqn_jax.population import stack_hparams

TINY = Config(
    env="ProbeConstant-test",
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
FAST = HParams(learning_rate=1e-2, discount=0.8, target_period=5, epsilon_decay_steps=1000)


def scalars(hparams):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), stack_hparams(hparams, 1))


@functools.cache
def compiled(config):
    """The loop of one lane, jitted: `chunk` keeps its input."""
    loop = make_loop(config)
    return loop, jax.jit(loop.start), jax.jit(loop.chunk)


def train(config, hparams=FAST, seed=0, chunks=None):
    """Run a lane from its seed; the loop, the states (the start first) and the metrics of every chunk."""
    loop, start, chunk = compiled(config)
    hparams = scalars(hparams)
    states, metrics = [start(jnp.int32(seed), hparams)], []
    for i in range(loop.num_chunks if chunks is None else chunks):
        env_steps = jnp.int32(loop.warmup_steps + i * loop.steps_per_chunk)
        state, report = chunk(env_steps, states[-1], hparams)
        states.append(state)
        metrics.append(report)
    return loop, states, metrics


# -- probe environments: each can fail for one reason only


def learnt_values(config, observations, hparams=FAST):
    loop, states, metrics = train(config, hparams)
    assert all(bool(m.finite) for m in metrics)
    assert int(states[-1].agent.updates) >= 400
    return np.asarray(loop.agent.q_values(states[-1].agent.params, jnp.float32(observations)))


@pytest.mark.parametrize("variant", [{}, {"double": True, "dueling": True, "loss": "huber"}], ids=["plain", "all"])
def test_constant_reward_is_learnt(variant):
    q = learnt_values(Config(**(vars(TINY) | variant)), [[1.0]])
    np.testing.assert_allclose(q, [[1.0, 1.0]], atol=0.02)


def test_reward_that_depends_on_the_observation_is_learnt():
    q = learnt_values(Config(**(vars(TINY) | {"env": "ProbeObservation-test"})), [[1.0], [-1.0]])
    np.testing.assert_allclose(q, [[1.0, 1.0], [-1.0, -1.0]], atol=0.05)


def test_reward_that_depends_on_the_action_is_learnt_and_the_greedy_policy_takes_it():
    config = Config(**(vars(TINY) | {"env": "ProbeAction-test"}))
    q = learnt_values(config, [[1.0]])
    np.testing.assert_allclose(q, [[-1.0, 1.0]], atol=0.05)
    np.testing.assert_array_equal(train(config)[2][-1].eval_returns, np.ones(8))


def test_reward_that_depends_on_observation_and_action_is_learnt():
    config = Config(**(vars(TINY) | {"env": "ProbePolicy-test"}))
    q = learnt_values(config, [[1.0], [-1.0]])
    np.testing.assert_allclose(q, [[-1.0, 1.0], [1.0, -1.0]], atol=0.05)
    np.testing.assert_array_equal(train(config)[2][-1].eval_returns, np.ones(8))


@pytest.mark.parametrize("target_network", [True, False])
def test_a_later_reward_is_discounted(target_network):
    config = Config(**(vars(TINY) | {"env": "ProbeTwoSteps-test", "target_network": target_network}))
    q = learnt_values(config, [[-1.0], [1.0]])
    np.testing.assert_allclose(q, [[0.8, 0.8], [1.0, 1.0]], atol=0.05)


def test_a_time_limit_does_not_change_the_values():
    # V(later) = 1 / (1 - 0.8) = 5 and V(first) = 4. Taking the limit for a termination would give V(later) = 2.5,
    # and bootstrapping from the observation after the reset 4.2.
    config = Config(**(vars(TINY) | {"env": "ProbeEndless-test", "max_episode_steps": 5, "total_steps": 4000}))
    q = learnt_values(config, [[-1.0], [1.0]])
    np.testing.assert_allclose(q, [[4.0, 4.0], [5.0, 5.0]], atol=0.2)


def test_the_replay_holds_true_final_observations_and_the_discounts_of_the_environment():
    config = Config(**(vars(TINY) | {"env": "ProbeLengths-test", "max_episode_steps": 4}))
    _, states, metrics = train(config, chunks=1)
    stored = jax.tree.map(lambda x: np.asarray(x[: int(states[-1].replay.rows_added)]), states[-1].replay.storage)
    hidden, time = stored.obs_tm1[..., 0], stored.obs_tm1[..., 1]
    np.testing.assert_array_equal(stored.obs_t[..., 0], hidden)  # never the next episode's
    np.testing.assert_array_equal(stored.obs_t[..., 1], time + 1)
    np.testing.assert_array_equal(stored.discount_t, np.where(time + 1 >= hidden, 0.0, 1.0))
    np.testing.assert_array_equal(stored.r_t, np.ones_like(time))
    # Row after row, each environment goes on from where it was, or starts afresh after an end.
    over = (stored.obs_t[:-1, :, 1] == 4) | (stored.discount_t[:-1] == 0.0)
    assert 0.1 < over.mean() < 0.9
    assert np.any(over & (stored.discount_t[:-1] == 1.0))  # time limits
    np.testing.assert_array_equal(stored.obs_tm1[1:][~over], stored.obs_t[:-1][~over])
    np.testing.assert_array_equal(stored.obs_tm1[1:][over][:, 1], 0.0)
    # Finished episodes are reported once, with their return, where they ended.
    returns = np.asarray(metrics[0].episode_return)
    warmup_rows = len(over) + 1 - len(returns)
    ended = np.concatenate([over, np.zeros((1, 4), bool)])[warmup_rows:]
    np.testing.assert_array_equal(np.isfinite(returns[:-1]), ended[:-1])
    np.testing.assert_array_equal(returns[:-1][ended[:-1]], np.minimum(hidden, 4)[warmup_rows:][:-1][ended[:-1]])
    total = np.sum(over) + np.sum(np.isfinite(returns[-1]))
    assert int(states[-1].episodes) == total


# -- cadence


@pytest.mark.parametrize(
    ("num_envs", "train_every", "updates_per_train"),
    [(8, 8, 1), (4, 3, 1), (3, 7, 2), (6, 2, 1), (2, 5, 3), (5, 4, 1)],
)
def test_updates_are_the_steps_over_train_every_after_every_iteration(num_envs, train_every, updates_per_train):
    config = Config(
        **(
            vars(TINY)
            | {
                "hidden": (),
                "num_envs": num_envs,
                "train_every": train_every,
                "updates_per_train": updates_per_train,
                "min_replay": 10,
                "batch_size": 4,
                "eval_every": 50,
                "eval_episodes": 1,
            }
        )
    )
    loop, states, metrics = train(config, chunks=3)
    assert loop.warmup_steps == -(-10 // num_envs) * num_envs
    assert loop.steps_per_chunk == -(-50 // num_envs) * num_envs
    made = np.concatenate([m.updates for m in metrics])
    steps = num_envs * np.arange(1, len(made) + 1)  # since the warm-up
    np.testing.assert_array_equal(made, steps // train_every * updates_per_train)
    assert int(states[-1].trainings) == steps[-1] // train_every
    assert int(states[-1].agent.updates) == made[-1]
    # One row of the replay per iteration, the warm-up included.
    assert int(states[-1].replay.rows_added) * num_envs == loop.warmup_steps + 3 * loop.steps_per_chunk


@pytest.mark.parametrize("min_replay", [0, 10])
def test_training_by_episodes_counts_the_episodes_finished(min_replay):
    config = Config(
        **(
            vars(TINY)
            | {
                "env": "ProbeLengths-test",
                "hidden": (),
                "train_unit": "episodes",
                "train_every": 3,
                "updates_per_train": 2,
                "min_replay": min_replay,
                "batch_size": 4,
                "eval_every": 48,
                "eval_episodes": 1,
            }
        )
    )
    _, states, metrics = train(config, chunks=2)
    before = int(states[0].episodes)
    finished = np.sum(np.isfinite(np.concatenate([m.episode_return for m in metrics])), axis=1)
    episodes = before + np.cumsum(finished)
    trainings = episodes // 3 - before // 3
    np.testing.assert_array_equal(np.concatenate([m.updates for m in metrics]), 2 * trainings)
    assert int(states[-1].trainings) == trainings[-1]
    assert np.max(finished) > 1  # several environments ended at once
    assert (before > 0) == (min_replay > 0)


def test_warm_up_fills_the_replay_and_learns_nothing():
    loop, states, _ = train(TINY, chunks=0)
    start = states[0]
    assert loop.warmup_steps == 32
    assert int(start.replay.rows_added) * 4 == 32
    assert (int(start.agent.updates), int(start.trainings)) == (0, 0)
    without = train(Config(**(vars(TINY) | {"min_replay": 0})), chunks=0)[1][0]
    assert int(without.replay.rows_added) == 0
    jax.tree.map(np.testing.assert_array_equal, start.agent, without.agent)


@pytest.mark.parametrize(
    ("total_steps", "min_replay", "chunks"),
    [(100, 0, 2), (101, 0, 3), (110, 10, 2), (112, 10, 2), (113, 10, 3), (9, 9, 1)],
)
def test_the_budget_counts_the_warm_up_and_is_rounded_up_to_whole_chunks(total_steps, min_replay, chunks):
    loop = make_loop(
        Config(env="ProbeConstant-test", num_envs=2, eval_every=51, total_steps=total_steps, min_replay=min_replay)
    )
    assert loop.steps_per_chunk == 52
    assert loop.num_chunks == -(-(total_steps - loop.warmup_steps) // 52) or chunks == 1
    assert loop.warmup_steps + loop.num_chunks * loop.steps_per_chunk >= total_steps


@pytest.mark.parametrize("unit", ["env_steps", "updates", "trainings", "episodes"])
def test_exploration_counts_its_unit(unit):
    config = Config(
        **(
            vars(TINY)
            | {
                "env": "ProbeLengths-test",
                "hidden": (),
                "epsilon_unit": unit,
                "updates_per_train": 3,
                "eval_every": 48,
                "eval_episodes": 1,
            }
        )
    )
    hparams = FAST._replace(epsilon_start=1.0, epsilon_end=0.0, epsilon_decay_steps=1000)
    loop, states, metrics = train(config, hparams, chunks=1)
    iterations = np.arange(1, 13)
    finished = np.sum(np.isfinite(metrics[0].episode_return), axis=1)
    counts = {
        "env_steps": loop.warmup_steps + 4 * iterations,
        "updates": 3 * iterations,
        "trainings": iterations,
        "episodes": int(states[0].episodes) + np.cumsum(finished),
    }
    np.testing.assert_allclose(metrics[0].epsilon, 1.0 - counts[unit] / 1000, rtol=1e-5)


def test_metrics_of_a_chunk_without_updates_are_nan_and_finite_all_the_same():
    config = Config(**(vars(TINY) | {"train_every": 1_000_000}))
    _, states, metrics = train(config, chunks=1)
    assert int(states[-1].agent.updates) == 0
    assert np.isnan(metrics[0].loss)
    assert np.isnan(metrics[0].td_error)
    assert bool(metrics[0].finite)
