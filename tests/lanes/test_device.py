"""What the training loop promises: probe environments are learnt, cadences are exact, lanes are independent."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import TINY, assert_bit_identical, comparable, scalars, tiny  # probes registers its environments, too

from dqn_jax.config import ConfigError, HParams
from dqn_jax.lanes.device import device_rhythm, make_loop

FAST = HParams(learning_rate=1e-2, discount=0.8, target_period=5, epsilon_decay_steps=1000)


@functools.cache
def compiled(config):
    """The loop of one lane, jitted: `chunk` keeps its input. Compiling takes longer than running, so not too well."""
    loop, quick = make_loop(config), {"xla_backend_optimization_level": 0}
    return loop, jax.jit(loop.start, compiler_options=quick), jax.jit(loop.chunk, compiler_options=quick)


def train(config, hparams=FAST, seed=0, chunks=None):
    """Run a lane from its seed; the loop, the states (the start first) and the metrics of every chunk."""
    loop, start, chunk = compiled(config)
    hparams = scalars(hparams)
    states, metrics = [start(jnp.int32(seed), hparams)[0]], []
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
    q = learnt_values(tiny(**variant), [[1.0]])
    np.testing.assert_allclose(q, [[1.0, 1.0]], atol=0.02)


def test_reward_that_depends_on_the_observation_is_learnt():
    q = learnt_values(tiny(env="ProbeObservation-test"), [[1.0], [-1.0]])
    np.testing.assert_allclose(q, [[1.0, 1.0], [-1.0, -1.0]], atol=0.05)


def test_reward_that_depends_on_the_action_is_learnt_and_the_greedy_policy_takes_it():
    config = tiny(env="ProbeAction-test")
    q = learnt_values(config, [[1.0]])
    np.testing.assert_allclose(q, [[-1.0, 1.0]], atol=0.05)
    np.testing.assert_array_equal(train(config)[2][-1].eval_returns, np.ones(8))


def test_reward_that_depends_on_observation_and_action_is_learnt():
    config = tiny(env="ProbePolicy-test")
    q = learnt_values(config, [[1.0], [-1.0]])
    np.testing.assert_allclose(q, [[-1.0, 1.0], [1.0, -1.0]], atol=0.05)
    np.testing.assert_array_equal(train(config)[2][-1].eval_returns, np.ones(8))


@pytest.mark.parametrize("target_network", [True, False])
def test_a_later_reward_is_discounted(target_network):
    config = tiny(env="ProbeTwoSteps-test", target_network=target_network)
    q = learnt_values(config, [[-1.0], [1.0]])
    np.testing.assert_allclose(q, [[0.8, 0.8], [1.0, 1.0]], atol=0.05)


def test_a_time_limit_does_not_change_the_values():
    # V(later) = 1 / (1 - 0.8) = 5 and V(first) = 4. Taking the limit for a termination would give V(later) = 2.5,
    # and bootstrapping from the observation after the reset 4.2.
    config = tiny(env="ProbeEndless-test", max_episode_steps=5, total_steps=4000)
    q = learnt_values(config, [[-1.0], [1.0]])
    np.testing.assert_allclose(q, [[4.0, 4.0], [5.0, 5.0]], atol=0.2)


def test_the_replay_holds_true_final_observations_and_the_discounts_of_the_environment():
    config = tiny(env="ProbeLengths-test", max_episode_steps=4)
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
    # Environments that start afresh at the same time draw episodes of their own.
    together = hidden[1:, :2][over[:, 0] & over[:, 1]]
    assert len(together) > 5
    assert np.mean(together[:, 0] == together[:, 1]) < 0.5
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
    [(8, 8, 1), (4, 3, 1), (3, 7, 2), (6, 2, 3)],
)
def test_updates_are_the_steps_over_train_every_after_every_iteration(num_envs, train_every, updates_per_train):
    config = tiny(
        hidden=(),
        num_envs=num_envs,
        train_every=train_every,
        updates_per_train=updates_per_train,
        min_replay=10,
        batch_size=4,
        eval_every=50,
        eval_episodes=1,
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
    config = tiny(
        env="ProbeLengths-test",
        hidden=(),
        train_unit="episodes",
        train_every=3,
        updates_per_train=2,
        min_replay=min_replay,
        batch_size=4,
        eval_every=48,
        eval_episodes=1,
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
    without = train(tiny(min_replay=0), chunks=0)[1][0]
    assert int(without.replay.rows_added) == 0
    jax.tree.map(np.testing.assert_array_equal, start.agent, without.agent)


@pytest.mark.parametrize("unit", ["env_steps", "updates", "trainings", "episodes"])
def test_exploration_counts_its_unit(unit):
    config = tiny(
        env="ProbeLengths-test",
        hidden=(),
        epsilon_unit=unit,
        updates_per_train=3,
        eval_every=48,
        eval_episodes=1,
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


def test_episodes_of_the_warm_up_are_reported():
    config = tiny(env="ProbeLengths-test", hidden=(), num_envs=3, min_replay=70, epsilon_unit="episodes")
    _, start, _ = compiled(config)
    lane, warmup = start(jnp.int32(3), scalars(FAST))
    assert warmup.episode_return.shape == (24, 3)
    stored = jax.tree.map(lambda x: np.asarray(x)[:24], lane.replay.storage)
    ended = stored.discount_t == 0.0
    np.testing.assert_array_equal(warmup.episode_return, np.where(ended, stored.obs_tm1[..., 0], np.nan))
    finished = np.cumsum(ended.sum(axis=1))
    assert int(lane.episodes) == finished[-1] > 10
    np.testing.assert_allclose(warmup.epsilon, 1.0 - 0.95 * finished / 1000, rtol=1e-5)


def test_learning_waits_until_a_whole_window_is_remembered():
    assert device_rhythm(tiny(n_step=5, num_envs=4, min_replay=0)).warmup_iterations == 4  # the fifth row comes first
    assert device_rhythm(tiny(n_step=5, num_envs=4, min_replay=40)).warmup_iterations == 10
    assert device_rhythm(tiny(num_envs=4, min_replay=0)).warmup_iterations == 0


# -- fits in pieces, clearing, freezing, resting


@pytest.mark.parametrize(("minibatch_size", "updates_per_train"), [(1, 2), (3, 1)])
def test_a_batch_in_pieces_is_fitted_piece_by_piece_in_its_order(minibatch_size, updates_per_train):
    config = tiny(
        env="ProbeLengths-test",
        num_envs=2,
        batch_size=6,
        minibatch_size=minibatch_size,
        updates_per_train=updates_per_train,
        sampling="latest",
        min_replay=8,
        train_every=2,
        eval_every=2,
        eval_episodes=1,
    )
    loop, states, metrics = train(config, chunks=3)
    update, hparams = jax.jit(loop.agent.update), scalars(FAST)
    by_hand, made = states[0].agent, 0
    for state, report in zip(states[1:], metrics, strict=True):
        rows = int(state.replay.rows_added)
        newest = jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows - 3 : rows].reshape(6, -1), state.replay.storage)
        losses = []
        for _ in range(updates_per_train):
            for i in range(0, 6, minibatch_size):
                piece = jax.tree.map(lambda x, i=i: x[i : i + minibatch_size], newest)
                piece = piece._replace(a_tm1=piece.a_tm1[:, 0], r_t=piece.r_t[:, 0], discount_t=piece.discount_t[:, 0])
                by_hand, info = update(by_hand, piece, hparams)
                losses.append(float(info.loss))
                made += 1
        assert int(state.agent.updates) == int(report.updates[-1]) == made
        assert float(report.loss) == pytest.approx(np.mean(losses), rel=1e-4)
    assert made == 3 * updates_per_train * 6 // minibatch_size
    assert int(states[-1].trainings) == 3
    for got, wanted in zip(jax.tree.leaves(states[-1].agent), jax.tree.leaves(by_hand), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
    first, last = (jax.tree.leaves(state.agent.params)[0] for state in (states[0], states[-1]))
    assert np.max(np.abs(first - last)) > 1e-3


def test_a_replay_that_is_cleared_is_empty_right_after_training_and_only_then():
    config = tiny(hidden=(), clear_replay=True, sampling="latest", train_every=12, eval_every=4, eval_episodes=1)
    _, states, metrics = train(config, chunks=7)
    assert [int(state.replay.rows_added) for state in states] == [8, 9, 10, 0, 1, 2, 0, 1]
    assert [int(report.updates[-1]) for report in metrics] == [0, 0, 1, 1, 1, 2, 2]


def frozen_after(returns, window, threshold):
    """Index of the iteration (`returns` `[T, N]`, NaN without an end) after which learning stops; None if never."""
    recent = []
    for i, row in enumerate(returns):
        for episode_return in row[~np.isnan(row)]:
            recent.append(episode_return)
            if len(recent) >= window and np.mean(recent[-window:]) > threshold:
                return i
    return None


@pytest.mark.parametrize(("seed", "in_warmup"), [(3, False), (25, True)])
def test_learning_and_exploration_stop_at_the_episode_that_meets_the_criterion(seed, in_warmup):
    config = tiny(
        env="ProbeLengths-test",
        num_envs=3,
        freeze_when="train4>4.5",
        batch_size=4,
        min_replay=20,
        train_every=3,
        eval_every=210,
        eval_episodes=1,
    )
    loop, start, chunk = compiled(config)
    hparams = scalars(FAST._replace(epsilon_end=0.5))
    lane, warmup = start(jnp.int32(seed), hparams)
    warm = len(warmup.epsilon)
    assert warm == 7
    after, metrics = chunk(jnp.int32(3 * warm), lane, hparams)
    returns = np.concatenate([warmup.episode_return, metrics.episode_return])
    assert int(after.episodes) == np.isfinite(returns).sum()
    last = frozen_after(returns, 4, 4.5)
    assert last is not None
    assert (last < warm) == in_warmup
    assert last < warm + 50
    # It still learns in the iteration in which the episode ends, and never after.
    learning = np.arange(warm, warm + 70) <= last
    np.testing.assert_array_equal(metrics.updates, np.cumsum(learning))
    assert int(after.trainings) == int(after.agent.updates) == learning.sum()
    steps = 3 * np.arange(1, warm + 71)
    epsilon = np.where(np.arange(warm + 70) < last, 1.0 - 0.5 * steps / 1000, 0.0)
    np.testing.assert_allclose(np.concatenate([warmup.epsilon, metrics.epsilon]), epsilon, rtol=1e-5)
    # The network stays as it is, and acts greedily.
    again, _ = chunk(jnp.int32(3 * (warm + 70)), after, hparams)
    assert_bit_identical(comparable(again.agent), comparable(after.agent))
    stored = jax.tree.map(lambda x: x[last + 1 : warm + 70].reshape(-1, *x.shape[2:]), after.replay.storage)
    q = np.asarray(loop.agent.q_values(after.agent.params, stored.obs_tm1))
    clear = np.abs(q[:, 0] - q[:, 1]) > 1e-4
    assert clear.sum() > 20
    np.testing.assert_array_equal(stored.a_tm1[clear], np.argmax(q, axis=-1)[clear])


@pytest.mark.parametrize("criterion", ["eval>=195", "epsilon<=0.1", "loss<1", "train>195", "soon"])
def test_freezing_is_decided_by_training_episodes_alone(criterion):
    with pytest.raises(ConfigError, match=rf"^freeze_when: '{criterion}'"):
        make_loop(tiny(freeze_when=criterion))


def test_a_lane_rests_once_it_has_played_its_episodes_and_does_the_same_until_then():
    config = tiny(
        env="ProbeLengths-test",
        num_envs=1,
        min_replay=6,
        batch_size=4,
        train_every=2,
        epsilon_unit="episodes",
        eval_every=60,
        eval_episodes=1,
    )
    _, states, (report, rest) = train(dataclasses.replace(config, total_episodes=10), chunks=2)
    # The same without a limit, with a look at every state.
    _, free, singly = train(dataclasses.replace(config, eval_every=1), chunks=60)
    whole = jax.tree.map(lambda *x: np.concatenate(x), *(jax.tree.map(np.atleast_1d, x) for x in singly))
    finished = int(free[0].episodes) + np.cumsum(np.isfinite(whole.episode_return).sum(axis=1))
    end = int(np.argmax(finished >= 10)) + 1  # iterations until the tenth episode has ended
    assert 1 < end < 60
    assert finished[-1] > 12
    assert int(states[1].episodes) == finished[end - 1] == 10
    assert_bit_identical(comparable((states[0], states[1])), comparable((free[0], free[end])))
    assert_bit_identical(comparable(states[2]), comparable(states[1]))  # nothing goes on at rest
    for field in ("epsilon", "updates", "episode_return"):
        np.testing.assert_array_equal(getattr(report, field)[:end], getattr(whole, field)[:end], err_msg=field)
    for field in ("epsilon", "updates"):
        at_rest = np.concatenate([getattr(report, field)[end:], getattr(rest, field)])
        np.testing.assert_array_equal(at_rest, getattr(report, field)[end - 1], err_msg=field)
    assert np.all(np.isnan(report.episode_return[end:]))
    assert np.all(np.isnan(rest.episode_return))


def test_a_time_limit_taken_for_a_termination_ends_the_bootstrap_and_changes_nothing_else():
    # Beside the same without the slip, above.
    config = tiny(env="ProbeLengths-test", max_episode_steps=4, min_replay=400, time_limit_terminates=True)
    replay = train(config, chunks=0)[1][0].replay
    stored = jax.tree.map(lambda x: np.asarray(x)[:100], replay.storage)
    assert int(replay.rows_added) == 100
    length, time = stored.obs_t[..., 0], stored.obs_t[..., 1]
    over = (time == 4) | (time == length)
    assert 0.05 < np.mean((time == 4) & (length > 4)) < 0.5
    np.testing.assert_array_equal(stored.discount_t, np.where(over, 0.0, 1.0))
    np.testing.assert_array_equal(stored.r_t, np.ones_like(time))
    np.testing.assert_array_equal(length, stored.obs_tm1[..., 0])
    np.testing.assert_array_equal(time, stored.obs_tm1[..., 1] + 1)
    np.testing.assert_array_equal(stored.obs_tm1[1:, :, 1], np.where(over, 0.0, time)[:-1])


def test_metrics_of_a_chunk_without_updates_are_nan_and_finite_all_the_same():
    config = tiny(train_every=1_000_000)
    _, states, metrics = train(config, chunks=1)
    assert int(states[-1].agent.updates) == 0
    assert np.isnan(metrics[0].loss)
    assert np.isnan(metrics[0].td_error)
    assert bool(metrics[0].finite)


def test_two_seeds_differ_in_weights_environments_and_exploration():
    config = tiny(env="CartPole-v1", max_episode_steps=60, batch_size=16, replay_capacity=200, eval_episodes=3)
    first, again, other = (train(config, seed=seed, chunks=0)[1][0] for seed in (0, 0, 1))
    assert_bit_identical(comparable(first), comparable(again))
    for one, two in [
        (first.agent.params["params"]["Dense_0"]["kernel"], other.agent.params["params"]["Dense_0"]["kernel"]),
        (first.env.inner.x, other.env.inner.x),
        (first.obs, other.obs),
    ]:
        assert not np.any(np.isclose(one, two, rtol=1e-6))
    assert not np.array_equal(first.replay.storage.a_tm1, other.replay.storage.a_tm1)
    # Within a lane, the environments start and explore on their own.
    assert len(np.unique(first.obs[:, 0])) == 4
    assert len({tuple(column) for column in np.asarray(first.replay.storage.a_tm1).T}) == 4
