"""What is remembered, as what, and how it is drawn to learn from."""

from dqn_jax.replay.frames import frame_memory, stack_push
from dqn_jax.replay.make import Replay, make_memory, make_replay
from dqn_jax.replay.memory import Memory, QValuesOf
from dqn_jax.replay.ring import ReplayState
from dqn_jax.replay.transitions import transition_memory

__all__ = [
    "Memory",
    "QValuesOf",
    "Replay",
    "ReplayState",
    "frame_memory",
    "make_memory",
    "make_replay",
    "stack_push",
    "transition_memory",
]
