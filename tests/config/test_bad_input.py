"""Settings of the wrong type, size or kind: taken where they can only mean one thing, else one line that says why."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest

import dqn_jax
from dqn_jax.config import Config, ConfigError, HParams, RunError, check_seed, field_types, seeds_from, validate
from dqn_jax.convergence import parse_criteria, parse_criterion
from dqn_jax.envs import make_env
from dqn_jax.presets import Preset, check_changes, resolve_preset, with_overrides

PLAIN = Preset("plain", "", Config(), HParams())
ODD = [
    math.nan, math.inf, -math.inf, -1, 0, 1, 0.5, 1e39, 1e-320, 2**31, 10**400, True, "", "x", "a\nb", None, (), [], {},
    (64,), [64, 64], (1, "x"), ("a", 1), (("a", 1),), {"a": math.nan}, {1: 2}, object(), 1j, b"x", np.float32(3),
    np.int64(3), np.array([]), np.zeros((2, 2)), np.array(["x"]), [None], Config, {"a"},
]  # fmt: skip


def one_line(error):
    assert str(error.value).isprintable()


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


@pytest.mark.parametrize("field", [*field_types(Config), *HParams._fields])
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


@pytest.mark.parametrize("field", field_types(Config))
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": "64"}, r"hidden: '64' is not possible; use integers such as \(64, 64\)\."),
        ({"num_envs": "8"}, r"num_envs: '8' is not possible; use an integer\."),
        ({"num_envs": True}, r"num_envs: True is not possible; use an integer\."),
        ({"double": 1}, r"double: 1 is not possible; use true or false\."),
        ({"loss": "l1"}, r"loss: 'l1' is not possible; choose one of squared, huber\."),
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


def test_what_a_preset_has_to_no_effect_is_left_alone():
    preset = resolve_preset("cartpole")  # whose target_mixing is not the default
    changed = with_overrides(preset, {"target_network": False, "double": False, "target_mixing": 0.05})
    validate(changed.config, changed.hparams)
    check_changes(preset, changed)
    with pytest.raises(ConfigError, match="target_mixing"):
        check_changes(preset, dataclasses.replace(changed, hparams=changed.hparams._replace(target_mixing=0.5)))


def test_criteria_may_be_one_text():
    assert [c.name for c in parse_criteria("eval>=475x3 train100>=195")] == ["eval>=475x3", "train100>=195"]
    assert parse_criteria(("eval>=1",)) == parse_criteria("eval>=1") == [parse_criterion("eval>=1")]
    assert parse_criteria("") == parse_criteria(()) == []


@pytest.mark.parametrize(
    "criteria", ["eval>=1e999", "eval>=-1e999", "eval>=nan", "eval>=1x9999999", "train0>=1", 5, [5]]
)
def test_criteria_that_nothing_can_meet_are_refused(criteria):
    with pytest.raises(ConfigError, match="criteria: ") as error:
        parse_criteria(criteria)
    one_line(error)


@pytest.mark.parametrize(
    "seeds", [0, -1, 2.5, "3", [], [1, 1], [-1], [2**31], ["x"], None, True, 10**9, object(), [[1]], b"12"]
)
def test_seeds_that_are_none(seeds):
    with pytest.raises(ConfigError, match="seed") as error:
        seeds_from(seeds)
    one_line(error)


@pytest.mark.parametrize("seed", [-1, 2**31, 0.5, "x", None, 2**31 - 1])
def test_first_seeds_that_are_none(seed):
    with pytest.raises(ConfigError, match="seed: ") as error:
        seeds_from(2, seed)
    one_line(error)
    if seed != 2**31 - 1:
        with pytest.raises(ConfigError, match="start: "):
            check_seed("start", seed)


def test_seeds_of_any_kind():
    assert seeds_from(3, 5) == (5, 6, 7)
    assert seeds_from(np.arange(2)) == seeds_from(np.int64(2)) == seeds_from(2.0) == (0, 1)


@pytest.mark.parametrize("preset", [5, ["cartpole"], "cart\npole"])
def test_what_is_no_preset(preset):
    with pytest.raises(ConfigError, match="preset: ") as error:
        dqn_jax.train(preset)
    one_line(error)


@pytest.mark.parametrize(
    ("env", "params", "message"),
    [
        ("CartPole-v1", {"masscart": 0.0}, "env_params: masscart is 0, .*use more than 0"),
        ("CartPole-v1", {"tau": 0.0}, "env_params: tau is 0"),
        ("CartPole-v1", {"length": -1.0}, "env_params: length is -1"),
        ("Pendulum-v1", {"m": 0.0}, "env_params: m is 0"),
        ("Pendulum-v1", {"dt": 0.0}, "env_params: dt is 0"),
        ("Acrobot-v1", {"link_moi": 0.0}, "env_params: link_moi is 0"),
        ("FourRooms-misc", {"fail_prob": 1.5}, "env_params: fail_prob is 1.5; use a probability"),
        ("Freeway-MinAtar", {"player_speed": 2.5}, "env_params: player_speed is 2.5; use an integer"),
        ("CartPole-v1", {"gravity": math.inf}, "env_params: .*finite"),
    ],
)
def test_a_world_that_cannot_be(env, params, message):
    config = Config(env=env, env_params=tuple(params.items()), action_bins=3 if env == "Pendulum-v1" else None)
    refused, _ = refusal(lambda: (validate(config, HParams()), make_env(config)))
    assert re.match(message, refused)
    assert refused.isprintable()


def test_messages_are_one_line_whatever_is_in_them():
    for kind in (ConfigError, RunError):
        assert str(kind("out: a\nb\r\x1b[31m does not exist")) == r"out: a\nb\r\x1b[31m does not exist"
