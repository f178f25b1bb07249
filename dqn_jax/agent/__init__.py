"""What learns: the members of the family, their networks and optimisers, and the learner that they share."""

from dqn_jax.agent.algorithm import Algorithm, Loss, Prediction, Views
from dqn_jax.agent.algorithms import ALGORITHMS
from dqn_jax.agent.learner import (
    Agent,
    AgentState,
    UpdateInfo,
    make_agent,
)

__all__ = [
    "ALGORITHMS",
    "Agent",
    "AgentState",
    "Algorithm",
    "Loss",
    "Prediction",
    "UpdateInfo",
    "Views",
    "make_agent",
]
