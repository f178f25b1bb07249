"""Which memory the settings ask for; and a replay for loops of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dqn_jax.config import Config, ConfigError, HParams, Sampling, asynchronous, updates_per_batch
from dqn_jax.replay.frames import frame_memory
from dqn_jax.replay.memory import Memory, MemoryClear
from dqn_jax.replay.prioritized import prioritized_frames, prioritized_transitions
from dqn_jax.replay.ring import ReplayState
from dqn_jax.replay.rollout import frame_rollout, transition_rollout
from dqn_jax.replay.transitions import transition_memory
from dqn_jax.types import Key, Transition, TransitionRow

Rows = Literal["transitions", "frames"]


def _transitions(config: Config) -> Memory:
    return transition_memory(
        config.replay_capacity, config.batch_size, config.num_envs, sampling=config.sampling, n_step=config.n_step
    )


def _frames(config: Config) -> Memory:
    return frame_memory(
        config.replay_capacity,
        config.batch_size,
        config.num_envs,
        frame_stack=config.frame_stack,
        n_step=config.n_step,
        sampling=config.sampling,
        asynchronous=asynchronous(config),
    )


def _prioritized_transitions(config: Config) -> Memory:
    return prioritized_transitions(
        config.replay_capacity,
        config.batch_size,
        config.num_envs,
        n_step=config.n_step,
        updates_per_batch=updates_per_batch(config),
    )


def _prioritized_frames(config: Config) -> Memory:
    return prioritized_frames(
        config.replay_capacity,
        config.batch_size,
        config.num_envs,
        frame_stack=config.frame_stack,
        n_step=config.n_step,
        asynchronous=asynchronous(config),
        updates_per_batch=updates_per_batch(config),
    )


def _transition_rollout(config: Config) -> Memory:
    return transition_rollout(config.rollout_length, config.num_envs)


def _frame_rollout(config: Config) -> Memory:
    return frame_rollout(config.rollout_length, config.num_envs, frame_stack=config.frame_stack)


MEMORIES: dict[tuple[str, Rows], Callable[[Config], Memory]] = {
    ("uniform", "transitions"): _transitions,
    ("uniform", "frames"): _frames,
    ("prioritized", "transitions"): _prioritized_transitions,
    ("prioritized", "frames"): _prioritized_frames,
    ("rollout", "transitions"): _transition_rollout,
    ("rollout", "frames"): _frame_rollout,
}
"""By how it is drawn, and by what a driver gives it. A new memory is a file of its own and a line here."""


def make_memory(config: Config, rows: Rows) -> Memory:
    """The memory that the settings ask for: by their field `replay`.

    Args:
      config: capacity, batch, and how it is drawn.
      rows: what the driver adds: "transitions" (`TransitionRow`s) or "frames" (`FrameRow`s).

    Raises:
      ConfigError: if there is no such memory for these rows.
      ValueError: if a size is not positive, or a batch is larger than the ring.
    """
    if (config.replay, rows) not in MEMORIES:
        raise ConfigError(f"replay: there is no '{config.replay}' for the {rows} of '{config.env}'.")
    return MEMORIES[config.replay, rows](config)


class ReplayInit(Protocol):
    """An empty replay for transitions shaped and typed as `example` (one transition, no batch axis)."""

    def __call__(self, example: Transition) -> ReplayState: ...


class ReplayAdd(Protocol):
    """Write one row of `N` transitions (leaves `[N, ...]`), overwriting the oldest row when full."""

    def __call__(self, state: ReplayState, transitions: Transition) -> ReplayState: ...


class ReplaySample(Protocol):
    """`batch_size` transitions (leaves `[B, ...]`), drawn from those stored as `sampling` says."""

    def __call__(self, state: ReplayState, key: Key) -> Transition: ...


class Replay(NamedTuple):
    """A memory of transitions without what only drivers need: pure functions. An empty one must not be sampled."""

    init: ReplayInit
    add: ReplayAdd
    sample: ReplaySample
    clear: MemoryClear


def make_replay(capacity: int, batch_size: int, num_envs: int, sampling: Sampling = "with_replacement") -> Replay:
    """A replay of at least `capacity` transitions, written `num_envs` at a time.

    The capacity is rounded up to whole rows of `num_envs`.

    Args:
      capacity: transitions kept before the oldest are overwritten.
      batch_size: transitions per sample.
      num_envs: transitions per `add`.
      sampling: how a batch is drawn. "with_replacement": uniformly. "without_replacement": uniformly, all
        different, in random order; while fewer are stored than a batch needs, with replacement. "latest": the
        newest, oldest of them first (row by row; within a row by environment); while fewer are stored, all of
        them, over and over.

    Raises:
      ValueError: if an argument is not positive, or a batch is larger than the buffer.

    Reference: Lin 1992; Mnih et al. 2013 (arXiv 1312.5602), Algorithm 1.
    """
    memory = transition_memory(capacity, batch_size, num_envs, sampling=sampling)

    def row(transitions: Transition) -> TransitionRow:
        return TransitionRow(transitions, jnp.zeros((num_envs,), bool))  # these memories do not ask where episodes end

    def init(example: Transition) -> ReplayState:
        return memory.init(row(jax.tree.map(lambda x: jnp.broadcast_to(x, (num_envs, *jnp.shape(x))), example)))

    def add(state: ReplayState, transitions: Transition) -> ReplayState:
        return memory.add(state, row(transitions))

    def sample(state: ReplayState, key: Key) -> Transition:
        return memory.sample(state, key, HParams()).transition

    return Replay(init, add, sample, memory.clear)
