"""Environments by name: gymnax ones on the device (`make_env`), EnvPool ones in threads of the host (`make_pool`)."""

from typing import Literal

from dqn_jax.config import ConfigError, UnknownEnvError
from dqn_jax.envs import device, pool_tasks
from dqn_jax.envs.device import DeviceEnvState, Env, env_names, make_env
from dqn_jax.envs.pool import Pool, PoolOutput, make_pool
from dqn_jax.envs.pool_tasks import pool_names


def resolve_env(name: str) -> str:
    """The full name for `name`, be it an environment of gymnax or of EnvPool. A full name stands for itself.

    A name that both have is gymnax's: `CartPole-v1`, and `breakout` is MinAtar's. Atari's is `Breakout-v5` or
    `envpool:breakout`.

    Raises:
      UnknownEnvError: if neither has it.
      ConfigError: if it cannot be used here.
    """
    return _resolve(name)[1]


def kind_of(name: str) -> Literal["device", "pool"]:
    """Whether `name` is a gymnax environment on the device or an EnvPool one.

    Raises:
      ConfigError: as `resolve_env`.
    """
    return _resolve(name)[0]


def _resolve(name: str) -> tuple[Literal["device", "pool"], str]:
    # Importing either library takes seconds, so the other one is asked only where it may have the name.
    if name.lower().startswith(pool_tasks.PREFIX) or name.lower().endswith("-v5"):  # no name of gymnax does
        return "pool", pool_tasks.resolve_pool_env(name)
    try:
        return "device", device.resolve_env(name)
    except UnknownEnvError as unknown:
        if not pool_tasks.installed():
            raise ConfigError(f"{unknown} EnvPool, which has Atari, is not installed.") from None
        try:
            return "pool", pool_tasks.resolve_pool_env(name)
        except UnknownEnvError as unknown_too:
            raise UnknownEnvError(name, [*unknown.choices, *unknown_too.choices]) from None


__all__ = [
    "DeviceEnvState",
    "Env",
    "Pool",
    "PoolOutput",
    "env_names",
    "kind_of",
    "make_env",
    "make_pool",
    "pool_names",
    "resolve_env",
]
