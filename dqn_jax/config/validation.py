"""Whether settings are possible: each by what stands beside its type, and some by others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dqn_jax.config.errors import ConfigError, suggest
from dqn_jax.config.fields import Setting, fields_of
from dqn_jax.config.hparams import HParams
from dqn_jax.config.settings import OPTIMIZERS, Config, asynchronous, own_rhythm, transitions_drawn
from dqn_jax.config.values import INT_MAX, UnfitError, as_type, check_float, exact, fits, numbers


def validate(config: Config, hparams: HParams) -> None:
    """Check every field and their combinations; what an environment allows is checked when it is made.

    Raises:
      ConfigError: one line naming the field and the remedy.
    """
    for setting in fields_of(Config).values():
        _check_static(setting, getattr(config, setting.name))
    for possible, field, remedy in _combinations(config):
        if not possible:
            raise _impossible(field, getattr(config, field), remedy)
    check_optimizer(config.optimizer)
    for setting in fields_of(HParams).values():
        value = getattr(hparams, setting.name)
        if value is not None:
            _check_traced(setting, value)
        elif not setting.optional:
            raise _impossible(setting.name, "None", "give a number")
        if value is not None and setting.optax is not None and setting.name not in OPTIMIZERS[config.optimizer]:
            raise ConfigError(f"{setting.name}: optimizer '{config.optimizer}' has no such setting; leave it out.")
    _check_support(hparams)


def _impossible(field: str, value: Any, remedy: object) -> ConfigError:
    return ConfigError(f"{field}: {value!r} is not possible; {remedy}.")


def _check_static(setting: Setting, value: Any) -> None:
    """A field of Config must be of its type, and within its bounds."""
    try:
        fitting = fits(setting.kind, value)
    except UnfitError as unfit:
        raise _impossible(setting.name, value, unfit) from None
    if not fitting:
        raise _impossible(setting.name, value, f"use {as_type(setting.kind, value)!r}")
    bounds = setting.bounds
    each = value if isinstance(value, tuple) else () if value is None else (value,)
    if bounds is not None and not all(bounds.hold(x) for x in each):
        raise _impossible(setting.name, value, bounds.words)


def _check_traced(setting: Setting, value: Any) -> None:
    """A hyperparameter must be a number, or one for each lane, within its bounds and those of 32 bits."""
    try:
        lanes = numbers(value)
    except UnfitError as unfit:
        raise _impossible(setting.name, value, unfit) from None
    for x in lanes:
        if setting.bounds is not None and not setting.bounds.hold(x):
            raise _impossible(setting.name, x, setting.bounds.words)
        try:
            check_float(x)
        except UnfitError as unfit:
            raise _impossible(setting.name, x, unfit) from None
        if setting.counts and not float(x).is_integer():
            raise _impossible(setting.name, x, "it counts something: use an integer")


def _check_support(hparams: HParams) -> None:
    """In every lane the support begins below its end."""
    low, high = (np.array(numbers(value), np.float32) for value in (hparams.v_min, hparams.v_max))
    if len({1, len(low), len(high)}) > 2:
        return  # values for two numbers of lanes: refused where lanes are made
    for least, greatest in np.broadcast(low, high):
        if not least < greatest:
            raise _impossible("v_min", float(least), f"use a number below v_max {exact(greatest)}, or raise v_max")


def _combinations(config: Config) -> Iterator[tuple[bool, str, str]]:
    """What settings demand of each other: whether it is so, the field to name, and the remedy."""
    pieces, batch, envs = config.minibatch_size, config.pool_batch, config.num_envs
    rollout, drawn = config.replay == "rollout", transitions_drawn(config)
    what = f"rollout_length x num_envs = {drawn}" if rollout else f"batch_size {drawn}"
    yield (
        pieces is None or (pieces >= 1 and drawn % pieces == 0),
        "minibatch_size",
        f"use a divisor of {what}, or leave it out",
    )
    yield batch is None or 1 <= batch <= envs, "pool_batch", f"use 1 to num_envs {envs}, or leave it out"
    yield (
        rollout or config.batch_size <= config.replay_capacity,
        "batch_size",
        f"it is larger than replay_capacity {config.replay_capacity}: lower it or raise replay_capacity",
    )
    yield (
        config.min_replay <= config.total_steps,
        "min_replay",
        f"learning would never start within total_steps {config.total_steps}: lower it or raise total_steps",
    )
    yield (
        config.n_step == 1 or not config.clear_replay,
        "n_step",
        "with clear_replay too little is left to look ahead in: use 1, or leave clear_replay out",
    )
    yield (
        config.sampling != "latest" or not asynchronous(config),
        "sampling",
        "environments in steps of their own have no order in common: leave it out, or leave pool_batch out",
    )
    yield (
        not config.dueling or config.hidden != () or config.torso not in ("auto", "mlp"),
        "hidden",
        "a dueling head needs at least one hidden layer, or the name of a torso of convolutions",
    )
    yield (
        config.target_network or not config.double,
        "double",
        "without a target network there is no second opinion: use target_network too, or leave double out",
    )
    if config.replay == "prioritized":
        yield config.sampling == "with_replacement", "sampling", "priorities say what is drawn: leave it out"
        yield not config.clear_replay, "clear_replay", "what is thrown away has no priorities to keep: leave it out"
    if rollout:
        yield from _beside_a_rollout(config)
    yield (
        config.target != "munchausen" or not config.double,
        "double",
        "Munchausen's targets average over the next actions, so there is no greatest to choose twice: leave it out",
    )
    yield (
        config.exploration == "epsilon_greedy" or config.freeze_when is None,
        "exploration",
        "freeze_when makes an agent act greedily: use epsilon_greedy, or leave freeze_when out",
    )
    yield (
        config.target_network or config.acting_network == "online",
        "acting_network",
        "without a target network there is only one to act with: use target_network too, or online",
    )
    yield (
        config.total_steps + config.eval_every + envs <= INT_MAX,
        "total_steps",
        f"with eval_every and num_envs it must stay below {INT_MAX}, for steps are counted in 32 bits",
    )
    yield (
        config.lane_block >= 0 and (config.lane_block <= 1 or not own_rhythm(config)),
        "lane_block",
        "use 0 or more; 0 or 1 where each lane steps, trains, freezes or rests in its own time",
    )


def _beside_a_rollout(config: Config) -> Iterator[tuple[bool, str, str]]:
    """What `replay` "rollout" demands: its targets are lambda-returns, made once, when it is full."""
    yield not config.double, "double", "a rollout's targets are made before there is a second opinion: leave it out"
    yield (
        config.target == "greedy",
        "target",
        "a rollout's targets are lambda-returns of the greatest values: use greedy",
    )
    yield config.n_step == 1, "n_step", "a rollout sums rewards by trace_decay: leave it out"
    yield config.train_unit == "env_steps", "train_unit", "agents train when a rollout is full: use env_steps"
    yield config.sampling == "with_replacement", "sampling", "every pass shuffles the whole rollout: leave it out"
    yield not config.clear_replay, "clear_replay", "the next rollout takes the place of the last one: leave it out"
    yield (
        not asynchronous(config),
        "pool_batch",
        "a rollout has the same steps of every environment: leave it out",
    )
    yield (
        config.replay_memory == "device",
        "replay_memory",
        "a rollout's targets are made by the network beside it: use device",
    )
    yield (
        config.min_replay + transitions_drawn(config) <= config.total_steps,
        "rollout_length",
        f"{config.num_envs} environments would never fill a rollout within total_steps {config.total_steps}: "
        "lower it or num_envs, or raise total_steps",
    )


def check_optimizer(name: str) -> None:
    """Raises a ConfigError that lists the optimisers unless `name` is one of them."""
    if name not in OPTIMIZERS:
        raise ConfigError(
            f"optimizer: '{name}' is not an optimiser that is supported here.{suggest(name, OPTIMIZERS)} "
            f"Try {', '.join(OPTIMIZERS)}."
        )
