"""dqn_jax: how fast, and how reliably, does a DQN agent converge, and what changes that?

    result = dqn_jax.train("cartpole", seeds=16, learning_rate=1e-3)
    result.metrics, result.converged, result.summary

and, for loops of your own, the pure functions `make_env`, `make_agent`, `make_replay`, `make_loop`.
"""

from dqn_jax import _import_time  # isort: skip - it takes the time of all that follows, and hears Ctrl-C

import importlib.metadata

from dqn_jax.agent import Agent, AgentState, UpdateInfo, make_agent
from dqn_jax.agent.schedules import epsilon_at
from dqn_jax.config import Config, ConfigError, HParams, RunError
from dqn_jax.envs import Env, make_env
from dqn_jax.lanes.device import Loop, make_loop
from dqn_jax.lanes.evaluation import Evaluation, evaluate
from dqn_jax.presets import PRESETS, Preset
from dqn_jax.prng import make_key
from dqn_jax.replay import Replay, ReplayState, make_replay
from dqn_jax.training import TrainResult, train
from dqn_jax.types import EnvOutput, EnvSpec, Transition, to_transition

try:
    __version__ = importlib.metadata.version("dqn_jax")
except importlib.metadata.PackageNotFoundError:  # read where it lies, never installed
    __version__ = "unknown"

__all__ = [
    "PRESETS",
    "Agent",
    "AgentState",
    "Config",
    "ConfigError",
    "Env",
    "EnvOutput",
    "EnvSpec",
    "Evaluation",
    "HParams",
    "Loop",
    "Preset",
    "Replay",
    "ReplayState",
    "RunError",
    "TrainResult",
    "Transition",
    "UpdateInfo",
    "__version__",
    "epsilon_at",
    "evaluate",
    "make_agent",
    "make_env",
    "make_key",
    "make_loop",
    "make_replay",
    "to_transition",
    "train",
]

_import_time.done()
