"""What is refused, in what words; values of the wrong type are taken where they can only mean one thing."""

from __future__ import annotations

import dataclasses
import math
import re

import jax.numpy as jnp
import numpy as np
import pytest

import dqn_jax
from dqn_jax.config import SETTINGS, Config, ConfigError, HParams, fields_of, validate
from dqn_jax.presets import Preset, with_overrides

PLAIN = Preset("plain", "", Config(), HParams())


ODD = [
    math.nan, math.inf, -math.inf, -1, 0, 1, 0.5, 1e39, 1e-320, 2**31, 10**400, True, "", "x", "a\nb", None, (), [], {},
    (64,), [64, 64], (1, "x"), ("a", 1), (("a", 1),), {"a": math.nan}, {1: 2}, object(), 1j, b"x", np.float32(3),
    np.int64(3), np.array([]), np.zeros((2, 2)), np.array(["x"]), [None], Config, {"a"},
]  # fmt: skip


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
    {"frame_stack": 0},
    {"n_step": 0},
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
    {"sampling": "latest", "num_envs": 4, "pool_batch": 3},
    {"n_step": 3, "clear_replay": True},
    {"sampling": "latest", "replay": "prioritized"},
    {"clear_replay": True, "replay": "prioritized"},
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
    {"replay": "newest"},
    {"rollout_length": 0},
    {"minibatch_size": 24, "replay": "rollout"},  # of 32 x 8
    {"minibatch_size": 512, "replay": "rollout"},
    {"double": True, "replay": "rollout"},
    {"n_step": 3, "replay": "rollout"},
    {"train_unit": "episodes", "replay": "rollout"},
    {"sampling": "latest", "replay": "rollout"},
    {"clear_replay": True, "replay": "rollout"},
    {"pool_batch": 4, "replay": "rollout"},
    {"replay_memory": "host", "replay": "rollout"},
    {"rollout_length": 30_000, "replay": "rollout"},
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
        {"torso": "minatar", "hidden": (), "dueling": True},
        {"lane_block": 4},
        {"lane_block": 4, "num_envs": 4, "pool_batch": 4},
        {"lane_block": 1, "num_envs": 4, "pool_batch": 3},
        {"lane_block": 1, "train_unit": "episodes", "total_episodes": 10, "freeze_when": "train5>195"},
        {"replay": "rollout", "rollout_length": 7, "minibatch_size": 14, "replay_capacity": 1},
    ],
    ids=str,
)
def test_good_config_is_accepted(values):
    validate(Config(**values), HParams())


def test_a_batch_larger_than_the_replay_is_refused_with_the_remedy():
    message = refused(Config(batch_size=64, replay_capacity=32), HParams())
    assert re.match(r"batch_size: 64 .*replay_capacity 32.*lower it or raise", message)


def test_pieces_that_do_not_divide_a_rollout_are_refused_with_its_size():
    message = refused(Config(replay="rollout", rollout_length=32, num_envs=128, minibatch_size=100), HParams())
    assert message.startswith("minibatch_size: 100 is not possible; use a divisor of rollout_length x num_envs = 4096")


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


@pytest.mark.parametrize("field", [f for f, setting in fields_of(HParams).items() if setting.optax is None])
@pytest.mark.parametrize("as_array", [list, np.array, jnp.array])
def test_every_value_of_a_sweep_is_checked(field, as_array):
    good, bad = {"munchausen_clip": (-0.5, 1), "v_min": (0.5, 11), "v_max": (0.5, -11)}.get(field, (0.5, -1))
    good = 1 if SETTINGS[field].counts else good
    validate(Config(), HParams(**{field: as_array([good, good])}))
    assert refused(Config(), HParams(**{field: as_array([good, bad])})).startswith(field.replace("v_max", "v_min"))


@pytest.mark.parametrize("scalar", [np.float32, np.float64, np.array, jnp.float32, jnp.array])
def test_numpy_and_jax_scalars_are_values_too(scalar):
    validate(Config(), HParams(learning_rate=scalar(0.5)))
    assert refused(Config(), HParams(learning_rate=scalar(-0.5))).startswith("learning_rate")


def refusal(function, *arguments):
    """What it says if it refuses, and what it gives otherwise."""
    try:
        return None, function(*arguments)
    except ConfigError as error:
        return str(error), None


def changed_to(field, value):
    changed = with_overrides(PLAIN, {field: value})
    validate(changed.config, changed.hparams)
    return changed


@pytest.mark.parametrize("field", SETTINGS)
def test_any_value_of_any_field_is_taken_or_refused_in_one_line(field):
    for value in ODD:
        refused, changed = refusal(changed_to, field, value)
        if refused is not None:
            assert refused.isprintable()
            continue
        # What was taken is of the field's own type, and finite in 32 bits.
        if field in HParams._fields:
            taken = getattr(changed.hparams, field)
            assert taken is None or np.all(np.isfinite(np.asarray(taken, np.float32)))
            assert taken is None or np.all(np.asarray(taken) == 0) == np.all(np.asarray(taken, np.float32) == 0)
        else:
            hash(changed.config)
            assert type(getattr(changed.config, field)) in (int, float, bool, str, tuple, type(None))


@pytest.mark.parametrize("field", fields_of(Config))
def test_a_config_of_wrong_types_is_refused_in_one_line(field):
    for value in ODD:
        refused, _ = refusal(validate, dataclasses.replace(Config(), **{field: value}), HParams())
        if refused is not None:
            assert refused.startswith(f"{field}: ") or field in ("replay_capacity", "total_steps")
            assert refused.isprintable()


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"hidden": 64}, (64,)),
        ({"hidden": [64, 32]}, (64, 32)),
        ({"total_steps": 1e6}, 1_000_000),
        ({"num_envs": np.int64(4)}, 4),
        ({"reward_scale": 1}, 1.0),
        ({"env_params": {"gravity": 9}}, (("gravity", 9.0),)),
        ({"pool_options": [["mode", "1"]]}, (("mode", "1"),)),
    ],
)
def test_what_can_only_mean_one_thing_is_taken(given, taken):
    (field,) = given
    changed = with_overrides(PLAIN, given)
    assert getattr(changed.config, field) == taken
    assert type(getattr(changed.config, field)) is type(taken)
    validate(changed.config, changed.hparams)


def one_line(error):
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": "64"}, r"hidden: '64' is not possible; use integers such as \(64, 64\)\."),
        ({"num_envs": "8"}, r"num_envs: '8' is not possible; use an integer\."),
        ({"num_envs": True}, r"num_envs: True is not possible; use an integer\."),
        ({"double": 1}, r"double: 1 is not possible; use true or false\."),
        ({"loss": "l1"}, r"loss: 'l1' is not possible; choose one of squared, huber, categorical, "),
        ({"total_steps": 2**31}, "total_steps: 2147483648 .*at most 2147483647"),
        ({"total_steps": 2**31 - 1}, "total_steps: .*counted in 32 bits"),
        ({"eval_seed": -1}, "eval_seed: -1 is not possible; use 0 to 2147483647"),
        ({"reward_clip": math.nan}, "reward_clip: nan is not possible; use a finite number"),
        ({"reward_scale": 1e39}, "reward_scale: 1e[+]39 .*does not fit into 32 bits"),
        ({"learning_rate": 1e-320}, "learning_rate: 1e-320 .*does not fit into 32 bits"),
        ({"learning_rate": 1e39}, "learning_rate: 1e[+]39 .*does not fit into 32 bits"),
        ({"learning_rate": "fast"}, "learning_rate: 'fast' .*use a number, or one for each lane"),
        ({"learning_rate": [1e-3, None]}, "learning_rate: .*use a number, or one for each lane"),
        ({"discount": []}, "discount: .*use a number"),
        ({"double": True, "target_network": False}, "double: .*without a target network"),
        ({"v_min": 10.0, "loss": "categorical"}, r"v_min: 10.0 is not possible; use a number below v_max 10, or raise"),
        ({"v_max": 5.0}, "v_max: it has no effect unless loss is categorical or hl_gauss"),
        ({"atoms": 5}, "atoms: it has no effect unless loss is categorical or hl_gauss or quantile or implicit"),
        ({"munchausen_alpha": 0.5}, "munchausen_alpha: it has no effect unless target is munchausen"),
        ({"target": "munchausen", "double": True}, "double: True is not possible; Munchausen's targets average over"),
        ({"munchausen_clip": 1.0, "target": "munchausen"}, "munchausen_clip: 1.0 .*use a number at most 0"),
        ({"acting_network": "target", "target_network": False}, "acting_network: .*without a target network"),
        ({"exploration": "boltzmann", "freeze_when": "train5>195"}, "exploration: .*freeze_when makes an agent act"),
        ({"temperature": 0.5}, "temperature: it has no effect unless exploration is boltzmann"),
        ({"noisy_sigma": 0.4}, "noisy_sigma: it has no effect unless noisy is on"),
        ({"eval_noise": True}, "eval_noise: it has no effect unless noisy is on"),
        ({"huber_delta": 0.5}, "huber_delta: it has no effect unless loss is huber"),
        ({"target_mixing": 0.5, "target_network": False}, "target_mixing: .*unless target_network is on"),
        ({"epsilon_decay": 0.9}, "epsilon_decay: .*unless epsilon_schedule is multiplicative"),
        ({"env": "two\nlines"}, r"env: 'two\\nlines' is not possible; use text in one line"),
    ],
    ids=str,
)
def test_bad_settings_from_python_are_one_line(settings, message):
    with pytest.raises(ConfigError, match=message) as error:
        dqn_jax.train("tutorial-2", seeds=1, **{"target_network": True, "loss": "squared"} | settings)
    one_line(error)
