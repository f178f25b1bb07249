"""Hyperparameter sweeps: spaces, the points drawn from them, and the programs those need."""

from dqn_jax.sweep.space import Choice, Group, Range, Space, Trial, compile_groups, parse_space, points

__all__ = ["Choice", "Group", "Range", "Space", "Trial", "compile_groups", "parse_space", "points"]
