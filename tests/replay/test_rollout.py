"""Rollouts: lambda-returns by hand, from their definition and by rlax; and each step is learnt from once a pass."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from hypothesis import given
from hypothesis import strategies as st

from dqn_jax.config import HParams
from dqn_jax.prng import make_key
from dqn_jax.replay.rollout import frame_rollout, lambda_returns, shuffled, transition_rollout
from dqn_jax.types import FrameRow, Transition, TransitionRow

LENGTH = 9
returns_of, rlax_returns = jax.jit(lambda_returns), jax.jit(rlax.lambda_returns)


def test_returns_worked_out_by_hand():
    # discount 1/2, lambda 1/2; the third step terminates, the fifth is cut by a time limit, the rollout ends within an
    # episode. From the last: 1 + 0.5 * 8 = 5;  2 + 0.5 * 6 = 5;  1 + 0.5 * (0.5 * 4 + 0.5 * 5) = 3.25;  3;
    # 0 + 0.5 * (0.5 * 2 + 0.5 * 3) = 1.25;  1 + 0.5 * (0.5 * 4 + 0.5 * 1.25) = 2.3125.
    r_t = jnp.float32([1, 0, 3, 1, 2, 1])
    discount_t = jnp.float32([0.5, 0.5, 0, 0.5, 0.5, 0.5])
    v_t = jnp.float32([4, 2, 100, 4, 6, 8])
    ended = jnp.array([False, False, True, False, True, False])
    got = returns_of(r_t, discount_t, v_t, ended, 0.5)
    np.testing.assert_array_equal(got, [2.3125, 1.25, 3, 3.25, 5, 5])
    np.testing.assert_array_equal(returns_of(r_t, discount_t, v_t, ended, 0.0), r_t + discount_t * v_t)
    np.testing.assert_array_equal(returns_of(r_t, discount_t, v_t, ended, 1.0), [1.75, 1.5, 3, 3.5, 5, 5])


def by_definition(r_t, discount_t, v_t, ended, decay):
    """The mean of all n-step returns, n-step by n-step, in weights (1 - decay) decay^(n - 1): the last has the rest."""
    targets = []
    for k in range(len(r_t)):
        last = k + int(np.argmax([*ended[k:-1], True]))  # an episode's last step, or the rollout's
        total, reward, discount = 0.0, 0.0, 1.0
        for n, i in enumerate(range(k, last + 1)):
            reward += discount * r_t[i]
            discount *= discount_t[i]
            total += decay**n * (1.0 if i == last else 1.0 - decay) * (reward + discount * v_t[i])
        targets.append(total)
    return np.array(targets)


def steps(seed, length=LENGTH, ends=0.2):
    """Rewards, environment discounts, values and ends of random steps; of the ends, some are no terminations."""
    rng = np.random.default_rng(seed)
    terminated, truncated = rng.random(length) < ends, rng.random(length) < ends
    r_t, v_t = rng.normal(size=(2, length)).astype(np.float32)
    return r_t, 1.0 - terminated.astype(np.float32), v_t, terminated | truncated


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.65, 1.0]), st.sampled_from([0.5, 0.99, 1.0]))
def test_returns_are_the_weighted_mean_of_all_n_step_returns(seed, decay, discount):
    r_t, discount_t, v_t, ended = steps(seed)
    got = returns_of(r_t, discount * discount_t, v_t, ended, decay)
    np.testing.assert_allclose(got, by_definition(r_t, discount * discount_t, v_t, ended, decay), rtol=1e-4, atol=1e-5)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.65, 1.0]))
def test_returns_are_those_of_rlax(seed, decay):
    r_t, discount_t, v_t, _ = steps(seed)
    never = np.zeros(LENGTH, bool)
    got = returns_of(r_t, 0.9 * discount_t, v_t, never, decay)
    np.testing.assert_allclose(
        got, rlax_returns(r_t, 0.9 * discount_t, v_t, np.full(LENGTH, decay)), rtol=1e-4, atol=1e-5
    )
    r_t, discount_t, v_t, ended = steps(seed)  # and over episodes, whose ends have a lambda of their own there
    got = returns_of(r_t, 0.9 * discount_t, v_t, ended, decay)
    wanted = rlax_returns(r_t, 0.9 * discount_t, v_t, decay * (1.0 - ended))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_what_is_learnt_from_has_the_errors_of_q_lambda():
    rng = np.random.default_rng(0)
    q_tm1, q_t = rng.normal(size=(2, LENGTH, 3)).astype(np.float32)
    a_tm1 = rng.integers(0, 3, LENGTH).astype(np.int32)
    r_t, discount_t, _, _ = steps(1, ends=0.0)
    wanted = rlax.q_lambda(q_tm1, a_tm1, r_t, 0.9 * discount_t, q_t, jnp.full(LENGTH, 0.65))
    returns = returns_of(r_t, 0.9 * discount_t, jnp.max(q_t, axis=1), np.zeros(LENGTH, bool), 0.65)
    np.testing.assert_allclose(returns - q_tm1[np.arange(LENGTH), a_tm1], wanted, rtol=1e-4, atol=1e-5)


def test_a_public_implementation_slips_by_one_step_where_this_one_does_not():
    """PureJaxQL's scan starts with the value after the last step, and uses it for the step before the last, too."""
    r_t, discount_t, v_t, ended = steps(3, ends=0.0)
    discount, decay, targets = 0.9, 0.65, []
    after, next_q = r_t[-1] + discount * v_t[-1], v_t[-1]
    for k in range(LENGTH - 2, -1, -1):
        after = r_t[k] + discount * next_q + discount * decay * (after - next_q)
        targets.append(after)
        next_q = v_t[k - 1]  # the value of the observation that step k was taken in
    theirs = np.array([*targets[::-1], r_t[-1] + discount * v_t[-1]])
    ours = by_definition(r_t, discount * discount_t, v_t, ended, decay)
    slip = (discount * (1 - decay)) * (v_t[-1] - v_t[-2]) * (discount * decay) ** np.arange(LENGTH - 2, -1, -1)
    np.testing.assert_allclose(theirs[:-1] - ours[:-1], slip, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(returns_of(r_t, discount * discount_t, v_t, ended, decay), ours, rtol=1e-4)


def filled(num_envs, length, rows, seed=0):
    """A rollout after so many rows, and these: observations and actions tell their number."""
    memory, rng, added = transition_rollout(length, num_envs), np.random.default_rng(seed), []
    for k in range(rows):
        number = (k * num_envs + np.arange(num_envs)).astype(np.int32)
        obs = np.stack([number, number + 1000], axis=1).astype(np.float32)
        ended = rng.random(num_envs) < 0.3
        terminated = ended & (rng.random(num_envs) < 0.5)
        reward = rng.normal(size=num_envs).astype(np.float32)
        step = Transition(obs, number, reward, 1.0 - terminated.astype(np.float32), obs + 0.5)
        added.append(TransitionRow(step, ended))
    state = memory.init(jax.tree.map(jnp.asarray, added[0]))
    add = jax.jit(memory.add)
    for row in added:
        state = add(state, row)
    return memory, state, added


def q_of(obs):
    """Q-values of two actions."""
    return jnp.stack([jnp.sin(obs[:, 0]), jnp.cos(obs[:, 0])], axis=1)


@pytest.mark.parametrize("rows", [5, 7, 10, 13])
def test_a_pass_has_every_step_of_the_rollout_once_with_its_return(rows):
    memory, state, added = filled(num_envs=3, length=5, rows=rows)
    hparams = HParams(discount=0.9, trace_decay=0.7)

    @jax.jit
    def draw(state, key):
        return memory.sample(memory.prepare(state, hparams, q_of), key, hparams)

    batch = draw(state, make_key(0))
    assert batch.weight is None
    assert batch.transition.obs_t == ()
    newest = added[-5:]
    stacked = jax.tree.map(lambda *x: np.stack(x), *newest)
    step, ended = stacked
    v_t = np.asarray(q_of(step.obs_t.reshape(-1, 2))).max(axis=1).reshape(5, 3)
    wanted = [by_definition(step.r_t[:, n], 0.9 * step.discount_t[:, n], v_t[:, n], ended[:, n], 0.7) for n in range(3)]
    returns = np.stack(wanted, axis=1)
    order = np.asarray(batch.transition.a_tm1) - step.a_tm1[0, 0]  # numbers count on, row by row
    assert sorted(order) == list(range(15)) != list(order)
    np.testing.assert_allclose(batch.transition.r_t, returns.reshape(-1)[order], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(batch.transition.obs_tm1, step.obs_tm1.reshape(15, 2)[order])
    np.testing.assert_array_equal(batch.transition.discount_t, np.zeros(15))
    assert not np.array_equal(draw(state, make_key(1)).place, batch.place)


def test_lanes_may_differ_in_lambda():
    memory, state, _ = filled(num_envs=2, length=4, rows=4)
    decays = jnp.float32([0.0, 0.5, 1.0])

    def prepare(decay):
        return memory.prepare(state, HParams(trace_decay=decay), q_of)

    prepared, one = jax.jit(jax.vmap(prepare))(decays), jax.jit(prepare)
    for lane, decay in enumerate(decays):
        alone = one(decay)
        np.testing.assert_array_equal(prepared.storage.r_t[lane], alone.storage.r_t)
    assert np.ptp(prepared.storage.r_t, axis=0).max() > 0.1


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="must be at least 1"):
        transition_rollout(0, 4)


def rows_of_a_pool(num_envs, rows, seed):
    """Rows whose frames and actions tell their number: episodes end, lives are lost, and pools are started anew."""
    rng, first = np.random.default_rng(seed), np.ones(num_envs, bool)
    for k in range(rows):
        number = (k * num_envs + np.arange(num_envs)).astype(np.int32)
        happened = rng.random(num_envs)
        terminated, truncated = happened < 0.2, (happened > 0.15) & (happened < 0.3)
        reward = rng.normal(size=num_envs).astype(np.float32)
        frame = np.broadcast_to(1.0 + number[:, None], (num_envs, 2)).astype(np.float32)
        yield FrameRow(frame, number, reward, terminated & ~first, truncated & ~first, first)
        lost_a_life = terminated & ~truncated & (happened < 0.05)
        first = ((terminated | truncated) & ~first & ~lost_a_life) | (happened > 0.95)


@pytest.mark.parametrize(("rows", "frame_stack", "seed"), [(6, 3, 1), (17, 3, 3), (23, 1, 4)])
def test_a_pass_over_a_pool_has_every_step_that_is_a_transition(rows, frame_stack, seed):
    length, num_envs, hparams = 5, 8, HParams(discount=0.9, trace_decay=0.7)
    memory, added = frame_rollout(length, num_envs, frame_stack=frame_stack), list(rows_of_a_pool(num_envs, rows, seed))
    state, add = memory.init(jax.tree.map(jnp.asarray, added[0])), jax.jit(memory.add)
    for row in added:
        state = add(state, row)

    def values(obs):
        return q_of(jnp.sum(obs.reshape(len(obs), -1), axis=1, keepdims=True))

    batch = jax.jit(lambda s, key: memory.sample(memory.prepare(s, hparams, values), key, hparams))(state, make_key(0))
    stacks = {}
    for k, row in enumerate(added):
        for n in range(num_envs):
            older = stacks[k - 1, n] if k and not row.first[n] else np.zeros((2, frame_stack))
            stacks[k, n] = np.concatenate([older[:, 1:], row.frame[n][:, None]], axis=1)
    targets = {}
    for n in range(num_envs):
        after = None  # of the step that follows in the same episode
        for k in range(rows - 1, rows - 1 - length, -1):
            row = added[k]
            if row.first[n]:
                after, targets[k - 1, n] = None, None
                continue
            value = np.max([np.sin(stacks[k, n].sum()), np.cos(stacks[k, n].sum())])
            going_on = after is not None and not row.truncated[n]
            mixed = 0.3 * value + 0.7 * after if going_on else value
            after = targets[k - 1, n] = row.reward[n] + (0.0 if row.terminated[n] else 0.9 * mixed)
    assert 0 < sum(target is None for target in targets.values()) < 20
    assert sorted(batch.transition.a_tm1) == sorted(k * num_envs + n for k, n in targets)
    for i, number in enumerate(np.asarray(batch.transition.a_tm1)):
        k, n = divmod(int(number), num_envs)
        assert batch.weight[i] == (targets[k, n] is not None)
        if targets[k, n] is not None:
            np.testing.assert_allclose(batch.transition.r_t[i], targets[k, n], rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(batch.transition.obs_tm1[i].reshape(2, -1), stacks[k, n])
    assert batch.transition.obs_t == ()
    assert not np.any(batch.transition.discount_t)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 4096])
def test_shuffled_numbers_are_all_there(count):
    drawn = np.stack([shuffled(make_key(seed), count) for seed in range(3)])
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(count), (3, 1)))
    assert count < 15 or not np.array_equal(drawn[0], drawn[1])


def test_every_place_has_every_number_equally_often():
    draws = jax.jit(jax.vmap(lambda key: shuffled(key, 6)))(jax.random.split(make_key(5), 6000))
    counts = [np.bincount(np.asarray(draws[:, place]), minlength=6) for place in range(6)]
    # Of 36 cells with a mean of 1,000 and a deviation of 29, none is five of these away.
    assert np.max(np.abs(np.array(counts) - 1000)) < 145
