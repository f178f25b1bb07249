"""What learns: losses, networks, optimisers and the learner that joins them."""

from dqn_jax.agent.learner import (
    Agent,
    AgentState,
    UpdateInfo,
    make_agent,
)

__all__ = [
    "Agent",
    "AgentState",
    "UpdateInfo",
    "make_agent",
]
