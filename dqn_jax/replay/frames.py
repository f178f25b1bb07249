"""A memory of single frames, for a pool of environments.

A ring of rows, one row per vector step of the pool, in which every frame is stored once, as it came (bytes
stay bytes). Observations are stacked, and rewards summed over n steps, when a batch is drawn: both by index
into the ring, both cut where an episode begins. Rows that are no transition come out with weight 0.

A place stands for the transition from the action chosen there. Environments that step asynchronously have rows in
numbers of their own.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dqn_jax.config import HParams, Sampling
from dqn_jax.replay.memory import Memory, QValuesOf
from dqn_jax.replay.ring import ReplayState, check_sizes, clear, draw, empty_ring, keep_priorities, take, write
from dqn_jax.types import Batch, FrameRow, Key, Transition


def frame_memory(
    capacity: int,
    batch_size: int,
    num_envs: int,
    *,
    frame_stack: int = 1,
    n_step: int = 1,
    sampling: Sampling = "with_replacement",
    asynchronous: bool = False,
) -> Memory:
    """A memory of `FrameRow`s in which at least `capacity` places can be drawn once it is full.

    `sample` draws from the places whose whole window is stored, and gives what `gather` does: it needs
    `frame_stack + n_step` rows or more of an environment.

    Args:
      capacity: places that can be drawn before the oldest are overwritten, rounded up to whole rows of
        `num_envs`. A few rows more are stored: those that the oldest and newest of these places reach into.
      batch_size: places per sample.
      num_envs: environments per row.
      frame_stack: newest frames that make one observation; with 1 it is the frame, without a stack axis.
      n_step: rewards summed before the bootstrap.
      sampling: how a batch is drawn, as `ring.draw` says.
      asynchronous: environments step in numbers of their own; each keeps as many places, the newest ones. None is the
        latest of all.

    Raises:
      ValueError: if an argument is not positive, a batch is larger than the ring, or the latest are wanted of
        asynchronous environments.

    Reference: Mnih et al. 2015 (Nature 518:529), Methods; zeros before the episode as in Dopamine (Castro et
    al. 2018, arXiv 1812.06110).
    """
    check_sizes(capacity=capacity, batch_size=batch_size, num_envs=num_envs, frame_stack=frame_stack, n_step=n_step)
    if asynchronous and sampling == "latest":
        raise ValueError("sampling: asynchronous environments have no order in common")
    rows_before, rows_after = frame_stack - 1, n_step
    num_rows = -(-capacity // num_envs) + rows_before + rows_after

    def init(example_row: FrameRow) -> ReplayState:
        for name, x in zip(FrameRow._fields, example_row, strict=True):
            if jnp.shape(x)[:1] != (num_envs,):
                raise ValueError(f"{name} must be of {num_envs} environments, not of shape {jnp.shape(x)}")
        rows_added = jnp.zeros((num_envs,) if asynchronous else (), jnp.int32)
        return ReplayState(empty_ring(example_row, num_rows), rows_added)

    def add(state: ReplayState, row: FrameRow, envs: jax.Array | None = None) -> ReplayState:
        if envs is None:
            storage = write(state.storage, row, state.rows_added % num_rows)
            return state._replace(storage=storage, rows_added=state.rows_added + 1)
        position = state.rows_added[envs] % num_rows

        def write_some(ring: jax.Array, x: jax.Array) -> jax.Array:
            x = x.astype(ring.dtype)
            return ring.at[position, envs].set(x, mode="promise_in_bounds", unique_indices=True)

        storage = jax.tree.map(write_some, state.storage, row)
        return state._replace(storage=storage, rows_added=state.rows_added.at[envs].add(1))

    def sample(state: ReplayState, key: Key, hparams: HParams, q_values: QValuesOf | None = None) -> Batch:
        del q_values
        stored = jnp.minimum(state.rows_added, num_rows)
        oldest, places = state.rows_added - stored + rows_before, stored - rows_before - rows_after
        if not asynchronous:
            drawn = draw(key, sampling, count=batch_size, stored=places * num_envs)
            rows, envs = oldest + drawn // num_envs, drawn % num_envs
        else:
            ends = jnp.cumsum(jnp.maximum(places, 0))  # all places in a line, one environment's after another's
            drawn = draw(key, sampling, count=batch_size, stored=ends[-1])
            envs = jnp.sum(drawn[:, None] >= ends[None], axis=1, dtype=jnp.int32)
            rows = (oldest + places - ends)[envs] + drawn
        return gather(state.storage, rows, envs, hparams.discount, frame_stack=frame_stack, n_step=n_step)

    return Memory(init, add, sample, keep_priorities, clear)


def gather(
    storage: FrameRow,
    rows: jax.Array,
    envs: jax.Array,
    discount: jax.Array | float,
    *,
    frame_stack: int,
    n_step: int,
) -> Batch:
    """The n-step transitions of the places in `rows` and `envs` (`[B]`, int32); an environment's first row is 0.

    With m the rows from place k to the end of its n-step window: n, or fewer where the episode or the
    bootstrap ends, or another episode begins, before that:

      obs_tm1, obs_t: stacks `[B, *frame_shape, frame_stack]` of the frames up to rows k and k + m, newest last,
        zeros for those before the episode; `[B, *frame_shape]` where nothing is stacked.
      r_t: the sum over i = 1..m of `discount ** (i - 1)` times the reward of row k + i.
      discount_t: `discount ** (m - 1)`, or 0 where row k + m is terminated. The agent's own factor is the m-th.
      weight: 0 where row k + 1 begins an episode, else 1.

    `discount` is `[]` float32. The window, from the oldest frame of the first stack to row k + n, must be stored.

    Reference: Sutton and Barto 2018, section 7.1; Hessel et al. 2018 (arXiv 1710.02298) for Q-learning.
    """
    num_rows, num_envs = storage.reward.shape

    def at(ring: jax.Array, rows: jax.Array, envs: jax.Array) -> jax.Array:
        return take(ring, rows % num_rows * num_envs + envs)

    window_rows, window_envs = rows[:, None] + jnp.arange(1, n_step + 1)[None], envs[:, None]
    ended = at(storage.terminated, window_rows, window_envs) | at(storage.truncated, window_rows, window_envs)
    stops = at(storage.first, window_rows, window_envs) | jnp.pad(ended[:, :-1], ((0, 0), (1, 0)))
    reached = jax.lax.cummin((~stops).astype(jnp.int32), axis=1)  # [B, n], 1 where the window gets to this row
    steps = jnp.sum(reached, axis=1)
    rewards = at(storage.reward, window_rows, window_envs) * (discount ** jnp.arange(n_step))[None]
    # Where there is no transition, no step is made: finite values, so that weight 0 takes them out of a loss.
    last = rows + steps
    bootstraps = (steps > 0) & ~at(storage.terminated, last, envs)
    transition = Transition(
        obs_tm1=observations(storage, rows, envs, frame_stack),
        a_tm1=at(storage.action, rows, envs),
        r_t=jnp.sum(jnp.where(reached > 0, rewards, 0.0), axis=1),
        discount_t=jnp.where(bootstraps, discount ** (steps - 1), 0.0),
        obs_t=observations(storage, last, envs, frame_stack),
    )
    return Batch(transition, reached[:, 0].astype(jnp.float32), rows % num_rows * num_envs + envs)


def observations(storage: FrameRow, rows: jax.Array, envs: jax.Array, frame_stack: int) -> jax.Array:
    """The stacks of the frames up to rows `rows` of environments `envs` (`[B]`, int32), as `gather` gives them."""
    num_rows, num_envs = storage.reward.shape

    def at(ring: jax.Array, rows: jax.Array, envs: jax.Array) -> jax.Array:
        return take(ring, rows % num_rows * num_envs + envs)

    if frame_stack == 1:
        return at(storage.frame, rows, envs)
    window_rows, window_envs = rows[:, None] + jnp.arange(1 - frame_stack, 1)[None], envs[:, None]
    frames = at(storage.frame, window_rows, window_envs)  # [B, frame_stack, *frame_shape]
    # A frame is older than the episode where any of those after it begins one.
    begins = at(storage.first, window_rows[:, 1:], window_envs).astype(jnp.int32)
    older = jnp.pad(jax.lax.cummax(begins, axis=1, reverse=True), ((0, 0), (0, 1)))
    return jnp.moveaxis(_zero_where(older > 0, frames), 1, -1)


def stack_push(stack: jax.Array, frame: jax.Array, first: jax.Array) -> jax.Array:
    """The observations to act on, as the replay stacks them: the newest frame comes last, the oldest leaves.

    Args:
      stack: `[N, *frame_shape, frame_stack]`, the observations before; `[N, *frame_shape]` where nothing is stacked.
      frame: `[N, *frame_shape]`, the newest frame.
      first: `[N]`, bool, whether it begins an episode: what came before is then zeros.
    """
    if stack.ndim == frame.ndim:
        return frame
    return jnp.concatenate([_zero_where(first, stack[..., 1:]), frame[..., None]], axis=-1)


def _zero_where(flags: jax.Array, x: jax.Array) -> jax.Array:
    """`x` with zeros where `flags`, which has its leading axes, holds."""
    return jnp.where(flags.reshape(flags.shape + (1,) * (x.ndim - flags.ndim)), jnp.zeros((), x.dtype), x)
