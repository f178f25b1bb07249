"""Hyperparameter sweeps: many settings times many seeds as populations, and how fast each converges.

from dqn_jax.sweep import sweep

result = sweep("cartpole", {"learning_rate": "log(1e-4,1e-2)"}, samples=64, seeds=5, out="runs/lr")
result.data.lanes, result.data.curves
"""

from dqn_jax.sweep.progress import SweepProgress
from dqn_jax.sweep.runner import SweepResult, join, sweep

__all__ = ["SweepProgress", "SweepResult", "join", "sweep"]
