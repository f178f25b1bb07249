"""Settings: `Config` (static), `HParams` (traced), their rules, and the errors that name one."""

from dqn_jax.config.elsewhere import (
    meant_by,
)
from dqn_jax.config.errors import (
    ConfigError,
    RunError,
    UnknownEnvError,
    exact,
    show,
    suggest,
    whole_number,
)
from dqn_jax.config.seeds import (
    check_seed,
    seeds_from,
)
from dqn_jax.config.settings import (
    INTEGER_HPARAMS,
    ONLY_WHERE,
    OPTIMIZER_HPARAMS,
    Config,
    HParams,
    Sampling,
    asynchronous,
    envs_per_step,
    field_types,
    own_rhythm,
    validate,
)

__all__ = [
    "INTEGER_HPARAMS",
    "ONLY_WHERE",
    "OPTIMIZER_HPARAMS",
    "Config",
    "ConfigError",
    "HParams",
    "RunError",
    "Sampling",
    "UnknownEnvError",
    "asynchronous",
    "check_seed",
    "envs_per_step",
    "exact",
    "field_types",
    "meant_by",
    "own_rhythm",
    "seeds_from",
    "show",
    "suggest",
    "validate",
    "whole_number",
]
