"""A memory of the newest T steps of all environments, learnt from as a whole and then never again: PQN's.

Its targets are lambda-returns. They are made once, by the networks of the time when the rollout is full, for all passes
over it: `Memory.prepare` puts them in place of the rewards, with no bootstrap behind them. To whoever learns, a rollout
is then a batch of transitions like any other.
"""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp

from dqn_jax.config import HParams
from dqn_jax.replay.frames import frame_memory, gather, observations
from dqn_jax.replay.memory import Memory, QValuesOf
from dqn_jax.replay.ring import ReplayState, check_sizes, clear, empty_ring, keep_priorities, take, write
from dqn_jax.types import Batch, FrameRow, Key, Obs, Transition, TransitionRow


def lambda_returns(
    r_t: jax.Array, discount_t: jax.Array, v_t: jax.Array, ended: jax.Array, trace_decay: jax.Array | float
) -> jax.Array:
    """The returns `G[k]` of T steps one after another, from the last to the first:

        G[k] = r_t[k] + discount_t[k] * ((1 - trace_decay) * v_t[k] + trace_decay * G[k + 1])

    with `v_t[k]` in place of `G[k + 1]` where an episode ended with step k, by whatever, and after the last step.

    Args:
      r_t: `[T]`, float32, rewards.
      discount_t: `[T]`, float32, whole discounts: 0 where the episode terminated.
      v_t: `[T]`, float32, values of the observations that the steps led to: of the true last one at a time limit.
      ended: `[T]`, bool, whether the next step is not of the same episode.
      trace_decay: `[]`, float32, lambda.

    Returns:
      `[T]`, float32. The index is that of rlax, whose `lambda_returns` it is with a lambda of 0 where `ended` holds.
      PureJaxQL's scan values the step before the last by the observation after the last, and takes a time limit for
      a termination.

    Reference: Gallici et al. 2024 (arXiv 2407.04811), section 4 and algorithm 1; Sutton & Barto 2018, equation 12.24.
    """

    def back(after: jax.Array, step: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        r_t, discount_t, v_t, decay = step
        now = r_t + discount_t * ((1.0 - decay) * v_t + decay * after)
        return now, now

    decays = jnp.where(ended, 0.0, trace_decay)
    return jax.lax.scan(back, v_t[-1], (r_t, discount_t, v_t, decays), reverse=True)[1]


def shuffled(key: Key, count: int) -> jax.Array:
    """`[count]` int32, the numbers from 0 on in random order: sorted behind random bits, each in one word with them.

    `jax.random.permutation` sorts pairs of words, more than once, which takes 10 times as long on CPU. Of two numbers
    with the same bits before them the smaller one comes first: with 4,096 numbers two in a million pairs have.
    """
    index_bits = max(count - 1, 1).bit_length()
    bits = jax.random.bits(key, (count,), jnp.uint32) << jnp.uint32(index_bits)
    numbers = jnp.sort(bits | jnp.arange(count, dtype=jnp.uint32))
    return (numbers & jnp.uint32(2**index_bits - 1)).astype(jnp.int32)


def transition_rollout(length: int, num_envs: int) -> Memory:
    """A rollout of `TransitionRow`s, T = `length` of them, each of `num_envs`.

    `sample` gives all T * N transitions in random order, without weights (None); `prepare` must have been asked
    before. There must be a whole rollout.

    Raises:
      ValueError: if an argument is not positive.
    """
    check_sizes(capacity=length * num_envs, batch_size=length * num_envs, length=length, num_envs=num_envs)

    def init(example_row: TransitionRow) -> ReplayState:
        return ReplayState(empty_ring(example_row, length), jnp.zeros((), jnp.int32))

    def add(state: ReplayState, row: TransitionRow, envs: jax.Array | None = None) -> ReplayState:
        assert envs is None, "environments on the device step together"
        storage = write(state.storage, row, state.rows_added % length)
        return state._replace(storage=storage, rows_added=state.rows_added + 1)

    def prepare(state: ReplayState, hparams: HParams, q_values: QValuesOf) -> ReplayState:
        steps, ended = state.storage
        # Row by row: of all at once a network's layers leave the cache.
        v_t = jax.lax.map(lambda obs: jnp.max(q_values(obs), axis=-1), steps.obs_t)
        oldest = state.rows_added % length
        stored = (steps.r_t, steps.discount_t * hparams.discount, v_t, ended)
        r_t, discount_t, v_t, ended = (jnp.roll(x, -oldest, axis=0) for x in stored)  # as they came
        of_envs = jax.vmap(lambda_returns, (1, 1, 1, 1, None), 1)
        returns = of_envs(r_t, discount_t, v_t, ended, hparams.trace_decay)
        return state._replace(storage=_with_targets(steps, jnp.roll(returns, oldest, axis=0)))

    def sample(state: ReplayState, key: Key, hparams: HParams, q_values: QValuesOf | None = None) -> Batch:
        del hparams, q_values
        place = shuffled(key, length * num_envs)
        return Batch(jax.tree.map(lambda ring: take(ring, place), state.storage), None, place)

    return Memory(init, add, sample, keep_priorities, clear, prepare)


def frame_rollout(length: int, num_envs: int, *, frame_stack: int = 1) -> Memory:
    """A rollout of T = `length` steps over a pool, from T + 1 `FrameRow`s and those that their stacks reach into.

    As `transition_rollout`, but a step into a row that begins an episode is no transition: its weight is 0, and no
    return goes through it. There must be T + 1 rows.

    Raises:
      ValueError: if an argument is not positive.
    """
    check_sizes(capacity=length * num_envs, batch_size=length * num_envs, length=length)
    frames = frame_memory(length * num_envs, length * num_envs, num_envs, frame_stack=frame_stack)
    envs = jnp.arange(num_envs)

    def prepare(state: ReplayState, hparams: HParams, q_values: QValuesOf) -> ReplayState:
        storage: FrameRow = state.storage
        num_rows = storage.reward.shape[0]
        rows = state.rows_added - length + jnp.arange(length)  # that the steps led to, as they came

        def value(row: jax.Array) -> jax.Array:
            obs = observations(storage, jnp.full((num_envs,), row), envs, frame_stack)
            return jnp.max(q_values(obs), axis=-1)

        v_t = jax.lax.map(value, rows)  # row by row: stacks of the whole rollout are large
        place = rows % num_rows
        reward, terminated, truncated, first = (x[place] for x in storage[2:])
        begins_next = jnp.concatenate([first[1:], jnp.ones((1, num_envs), bool)])
        ended = terminated | truncated | begins_next  # a pool that was started anew has not ended an episode before
        discount_t = jnp.where(terminated, 0.0, hparams.discount)
        of_envs = jax.vmap(lambda_returns, (1, 1, 1, 1, None), 1)
        returns = of_envs(reward, discount_t, v_t, ended, hparams.trace_decay)
        return state._replace(storage=storage._replace(reward=storage.reward.at[place].set(returns)))

    def sample(state: ReplayState, key: Key, hparams: HParams, q_values: QValuesOf | None = None) -> Batch:
        del q_values
        drawn = shuffled(key, length * num_envs)
        rows = state.rows_added - length - 1 + drawn // num_envs  # that the steps were taken in
        batch = gather(state.storage, rows, drawn % num_envs, hparams.discount, frame_stack=frame_stack, n_step=1)
        return batch._replace(transition=_with_targets(batch.transition, batch.transition.r_t))

    return Memory(frames.init, frames.add, sample, keep_priorities, clear, prepare)


def _with_targets(steps: Transition, targets: jax.Array) -> Transition:
    """Steps whose reward is the whole target: nothing comes after, and no next observation is looked at."""
    nothing = cast(Obs, ())
    return steps._replace(r_t=targets, discount_t=jnp.zeros_like(targets), obs_t=nothing)
