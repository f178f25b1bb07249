"""Environments by name: which of the two libraries, gymnax or EnvPool, has one, and its name in full there."""

from __future__ import annotations

from typing import NamedTuple

from dqn_jax.config import ConfigError, UnknownEnvError
from dqn_jax.envs import device, pool_tasks


class FoundEnv(NamedTuple):
    """An environment that one of the libraries has."""

    name: str  # in full
    in_pool: bool  # EnvPool steps it in threads of the host; else gymnax does, on the device


def find_env(name: str) -> FoundEnv:
    """The environment that `name` is for, be it gymnax's or EnvPool's. A full name stands for itself.

    A name that both have is gymnax's: `CartPole-v1`, and `breakout` is MinAtar's. Atari's is `Breakout-v5` or
    `envpool:breakout`.

    Raises:
      UnknownEnvError: if neither has it.
      ConfigError: if it cannot be used here.
    """
    # Importing either library takes seconds, so the other one is asked only where it may have the name.
    if name.lower().startswith(pool_tasks.PREFIX) or name.lower().endswith("-v5"):  # no name of gymnax does
        return FoundEnv(pool_tasks.resolve_pool_env(name), True)
    try:
        return FoundEnv(device.resolve_device_env(name), False)
    except UnknownEnvError as unknown:
        if not pool_tasks.installed():
            raise ConfigError(f"{unknown} EnvPool, which has Atari, is not installed.") from None
        try:
            return FoundEnv(pool_tasks.resolve_pool_env(name), True)
        except UnknownEnvError as unknown_too:
            raise UnknownEnvError(name, [*unknown.choices, *unknown_too.choices]) from None


def resolve_env(name: str) -> str:
    """The full name for `name`; raises as `find_env`."""
    return find_env(name).name
