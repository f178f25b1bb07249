"""What is remembered."""

from dqn_jax.replay.transitions import (
    Replay,
    ReplayState,
    make_replay,
)

__all__ = [
    "Replay",
    "ReplayState",
    "make_replay",
]
