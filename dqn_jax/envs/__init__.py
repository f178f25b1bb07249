"""Environments by name: gymnax ones on the device (`make_env`), EnvPool ones in threads of the host (`make_pool`)."""

from dqn_jax.envs.device import (
    DeviceEnvState,
    Env,
    env_names,
    make_env,
)
from dqn_jax.envs.names import (
    FoundEnv,
    find_env,
    resolve_env,
)
from dqn_jax.envs.pool import (
    Pool,
    PoolOutput,
    make_pool,
)
from dqn_jax.envs.pool_tasks import (
    pool_names,
)

__all__ = [
    "DeviceEnvState",
    "Env",
    "FoundEnv",
    "Pool",
    "PoolOutput",
    "env_names",
    "find_env",
    "make_env",
    "make_pool",
    "pool_names",
    "resolve_env",
]
