"""Settings: `Config` (static), `HParams` (traced), their rules, and the errors that name one."""

from dqn_jax.config.elsewhere import (
    meant_by,
)
from dqn_jax.config.errors import (
    ConfigError,
    RunError,
    UnknownEnvError,
    suggest,
)
from dqn_jax.config.fields import (
    Bounds,
    OnlyWhere,
    Optax,
    Setting,
    fields_of,
)
from dqn_jax.config.hparams import (
    HParams,
)
from dqn_jax.config.seeds import (
    check_seed,
    seeds_from,
)
from dqn_jax.config.settings import (
    OPTIMIZERS,
    Config,
    DeviceSettings,
    EnvSettings,
    EvaluationSettings,
    ExecutionSettings,
    ExplorationSettings,
    NetworkSettings,
    PoolSettings,
    ReplaySettings,
    RhythmSettings,
    RuleSettings,
    Sampling,
    asynchronous,
    changed,
    envs_per_step,
    own_fields,
    own_rhythm,
    steps_between,
    transitions_drawn,
    updates_each_time,
    updates_per_batch,
)
from dqn_jax.config.validation import (
    check_optimizer,
    validate,
)
from dqn_jax.config.values import (
    INT_MAX,
    UnfitError,
    as_type,
    exact,
    show,
    whole_number,
)

SETTINGS = {**fields_of(Config), **fields_of(HParams)}
"""All settings by name, static and traced, with what is known of each."""

__all__ = [
    "INT_MAX",
    "OPTIMIZERS",
    "SETTINGS",
    "Bounds",
    "Config",
    "ConfigError",
    "DeviceSettings",
    "EnvSettings",
    "EvaluationSettings",
    "ExecutionSettings",
    "ExplorationSettings",
    "HParams",
    "NetworkSettings",
    "OnlyWhere",
    "Optax",
    "PoolSettings",
    "ReplaySettings",
    "RhythmSettings",
    "RuleSettings",
    "RunError",
    "Sampling",
    "Setting",
    "UnfitError",
    "UnknownEnvError",
    "as_type",
    "asynchronous",
    "changed",
    "check_optimizer",
    "check_seed",
    "envs_per_step",
    "exact",
    "fields_of",
    "meant_by",
    "own_fields",
    "own_rhythm",
    "seeds_from",
    "show",
    "steps_between",
    "suggest",
    "transitions_drawn",
    "updates_each_time",
    "updates_per_batch",
    "validate",
    "whole_number",
]
