"""Environments behind one interface: `make_env(config)` gives pure `reset` and `step` for one environment."""

from dqn_jax.envs.device import DeviceEnvState, Env, env_names, make_env, resolve_env

__all__ = ["DeviceEnvState", "Env", "env_names", "make_env", "resolve_env"]
