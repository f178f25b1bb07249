"""Settings: what is refused, in what words, and what is static or traced."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqn_jax.config import (
    INTEGER_HPARAMS,
    OPTIMIZER_HPARAMS,
    Config,
    ConfigError,
    HParams,
    suggest,
    validate,
)


def test_defaults_are_valid():
    validate(Config(), HParams())


def refused(config, hparams):
    with pytest.raises(ConfigError) as error:
        validate(config, hparams)
    message = str(error.value)
    assert "\n" not in message
    return message


BAD_CONFIG = [
    {"num_envs": 0},
    {"action_repeat": 0},
    {"batch_size": 0},
    {"replay_capacity": 0, "batch_size": 0},
    {"train_every": 0},
    {"updates_per_train": -1},
    {"total_steps": 0},
    {"eval_every": 0},
    {"eval_episodes": 0},
    {"max_episode_steps": 0},
    {"terminal_reward": float("nan")},
    {"reward_scale": float("inf")},
    {"action_bins": 1},
    {"reward_clip": 0.0},
    {"reward_clip": -1.0},
    {"sticky_actions": 1.5},
    {"sticky_actions": -0.1},
    {"eval_epsilon": 2.0},
    {"min_replay": -1},
    {"min_replay": 300_000},
    {"hidden": (120, 0)},
    {"hidden": (), "dueling": True},
    {"activation": "rellu"},
    {"torso": "cnn"},
    {"weight_init": "orthogonal"},
    {"compute_dtype": "float16"},
    {"loss": "l1"},
    {"sampling": "newest"},
    {"minibatch_size": 0},
    {"minibatch_size": 3},  # of 128
    {"minibatch_size": 256},
    {"total_episodes": 0},
    {"train_unit": "steps"},
    {"epsilon_schedule": "cosine"},
    {"epsilon_unit": "frames"},
    {"lane_block": -1},
    {"lane_block": 4, "train_unit": "episodes"},
    {"lane_block": 4, "total_episodes": 10},
    {"lane_block": 2, "freeze_when": "train5>195"},
    {"lane_block": 2, "num_envs": 4, "pool_batch": 3},
    {"pool_batch": 5, "num_envs": 4},
    {"pool_batch": 0},
    {"optimizer": "adamm"},
]


@pytest.mark.parametrize("values", BAD_CONFIG, ids=str)
def test_bad_config_is_refused_in_one_line_that_names_the_field(values):
    assert refused(Config(**values), HParams()).startswith(next(iter(values)) + ":") or "replay_capacity" in values


@pytest.mark.parametrize(
    "values",
    [
        {"minibatch_size": 1},
        {"minibatch_size": 32},
        {"minibatch_size": 128},
        {"total_episodes": 1},
        {"sampling": "without_replacement"},
        {"sampling": "latest"},
        {"weight_init": "he_normal"},
        {"compute_dtype": "bfloat16"},
        {"lane_block": 4},
        {"lane_block": 4, "num_envs": 4, "pool_batch": 4},
        {"lane_block": 1, "num_envs": 4, "pool_batch": 3},
        {"lane_block": 1, "train_unit": "episodes", "total_episodes": 10, "freeze_when": "train5>195"},
    ],
    ids=str,
)
def test_good_config_is_accepted(values):
    validate(Config(**values), HParams())


def test_a_batch_larger_than_the_replay_is_refused_with_the_remedy():
    message = refused(Config(batch_size=64, replay_capacity=32), HParams())
    assert re.match(r"batch_size: 64 .*replay_capacity 32.*lower it or raise", message)


BAD_HPARAMS = [
    {"learning_rate": 0.0},
    {"learning_rate": float("nan")},
    {"learning_rate": float("inf")},
    {"learning_rate": None},
    {"discount": 1.01},
    {"discount": -0.1},
    {"epsilon_start": 1.5},
    {"epsilon_end": -0.5},
    {"epsilon_decay_steps": 0},
    {"epsilon_decay_steps": 10.5},
    {"epsilon_decay": 0.0},
    {"target_period": 0},
    {"target_period": 2.5},
    {"target_mixing": 0.0},
    {"target_mixing": 1.1},
    {"huber_delta": 0.0},
    {"max_grad_norm": 0.0},
    {"optimizer_eps": -1e-8},
    {"b1": 1.5},
    {"rms_decay": 0.9},  # adam has none
    {"momentum": 0.9},
    {"weight_decay": 0.1},
]


@pytest.mark.parametrize("values", BAD_HPARAMS, ids=str)
def test_bad_hyperparameter_is_refused_in_one_line_that_names_it(values):
    assert refused(Config(), HParams(**values)).startswith(next(iter(values)) + ":")


@pytest.mark.parametrize("field", [f for f in HParams._fields if f not in OPTIMIZER_HPARAMS])
@pytest.mark.parametrize("as_array", [list, np.array, jnp.array])
def test_every_value_of_a_sweep_is_checked(field, as_array):
    good = 1 if field in INTEGER_HPARAMS else 0.5
    validate(Config(), HParams(**{field: as_array([good, good])}))
    assert refused(Config(), HParams(**{field: as_array([good, -1])})).startswith(field)


@pytest.mark.parametrize("scalar", [np.float32, np.float64, np.array, jnp.float32, jnp.array])
def test_numpy_and_jax_scalars_are_values_too(scalar):
    validate(Config(), HParams(learning_rate=scalar(0.5)))
    assert refused(Config(), HParams(learning_rate=scalar(-0.5))).startswith("learning_rate")


@pytest.mark.parametrize(
    ("name", "choices", "expected"),
    [
        ("adamm", ["sgd", "adam"], " Did you mean 'adam'?"),
        ("CARTPOLE", ["CartPole", "Acrobot"], " Did you mean 'CartPole'?"),
        ("xyz", ["CartPole", "Acrobot"], ""),
        ("xyz", [], ""),
    ],
)
def test_suggestions(name, choices, expected):
    assert suggest(name, choices) == expected


def test_config_is_static_and_hyperparameters_are_traced():
    assert hash(Config()) == hash(Config())
    assert Config() == Config()
    assert Config() != Config(double=True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().double = True
    assert len(jax.tree.leaves(HParams())) == sum(value is not None for value in HParams())
    assert set(OPTIMIZER_HPARAMS) <= set(HParams._fields)
    assert set(HParams._fields) >= INTEGER_HPARAMS
    assert not set(HParams._fields) & {field.name for field in dataclasses.fields(Config)}
