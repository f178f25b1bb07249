"""Every preset is valid, and all that there is in one, and a kind of every environment, runs a few steps."""

from __future__ import annotations

import dataclasses
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dqn_jax
from dqn_jax.config import ConfigError, validate
from dqn_jax.convergence import parse_criterion
from dqn_jax.lanes.lane import exploration
from dqn_jax.presets import PRESETS, check_changes, resolve_preset, with_overrides

SHORT = dict(
    seeds=1,
    lane_block=1,  # compiles in two thirds of the time that a block of four takes
    total_steps=80,
    eval_every=40,
    min_replay=16,
    batch_size=8,
    eval_episodes=2,
    max_episode_steps=20,
)


def short(config):
    """Changes that make a preset short and leave what it does as it is."""
    changes = dict(SHORT)
    if config.minibatch_size not in (None, 1):
        changes["minibatch_size"] = 2  # still several of them in a batch
    if config.train_unit == "episodes":
        changes["max_episode_steps"] = 4  # so that episodes end before the run does
    if config.replay == "rollout":
        del changes["batch_size"]
        changes |= {"num_envs": 2, "rollout_length": 4}
    elif config.frame_stack > 1:
        changes["replay_capacity"] = 400
    if config.frame_stack > 1:
        changes |= {"frame_size": 36, "hidden": (8,)}
    return changes


def same_but_for_the_game(name):
    return name != "pong" and PRESETS[name].hparams == PRESETS["pong"].hparams and PRESETS[name].config.frame_stack > 1


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_valid_and_has_criteria(name):
    preset = resolve_preset(name)
    validate(preset.config, preset.hparams)
    assert [parse_criterion(text) for text in preset.criteria]


# What runs in test_learning or, in the tutorials' own cadence, in test_tutorials; and whose every part is among those
# of others here: a head of CartPole's presets with the torso of `dqn-minatar` or of a game, another learning rate.
ELSEWHERE = (
    r"cartpole|pendulum|pqn-cartpole|dqn-no-.*|tutorial-\d|acrobot|(c51|qr-dqn|iqn|pqn|rainbow)-minatar|pqn-hadamax|"
    r"tutorial-4-vectorised|munchausen-iqn|nature-dqn"
)


@pytest.mark.parametrize(
    "name", [name for name in PRESETS if not re.fullmatch(ELSEWHERE, name) and not same_but_for_the_game(name)]
)
def test_preset_trains(name):
    preset = resolve_preset(name)
    result = dqn_jax.train(name, **short(preset.config))
    assert len(result.metrics) >= 1
    assert np.isfinite(result.metrics.eval_return).all()
    assert result.metrics.updates.iloc[-1] > 0
    assert result.summary["diverged"] == []


@pytest.mark.parametrize(
    ("env", "extra"),
    [("Catch", {}), ("FourRooms", {}), ("FrozenLake-misc", {}), ("MountainCarContinuous-v0", {"action_bins": 3})],
)
def test_environments_without_a_preset_train(env, extra):
    result = dqn_jax.train(env, **SHORT, hidden=(8,), **extra)
    assert np.isfinite(result.metrics.loss.iloc[-1])


@pytest.mark.parametrize(
    "variant",
    [
        dict(dueling=True, double=False, loss="huber", max_grad_norm=1.0),
        dict(target_network=False, optimizer="rmsprop_centered", rms_decay=0.95, epsilon_schedule="multiplicative"),
        dict(train_unit="episodes", train_every=1, updates_per_train=3, epsilon_unit="episodes", optimizer="sgd"),
        dict(train_every=3, updates_per_train=2, epsilon_unit="updates", action_repeat=2, sticky_actions=0.2),
    ],
)
def test_variants_of_the_agent_train(variant):
    plain = dataclasses.replace(
        resolve_preset("CartPole-v1"), config=dqn_jax.Config(hidden=(8,), num_envs=2), hparams=dqn_jax.HParams()
    )
    result = dqn_jax.train(plain, **{**SHORT, **variant})
    assert np.isfinite(result.metrics.loss.iloc[-1])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.params))


def test_on_another_environment_a_preset_has_the_criteria_of_that_one():
    def criteria(preset, **overrides):
        return with_overrides(resolve_preset(preset), overrides).criteria

    assert criteria("cartpole", env="Acrobot-v1") == ("eval>=-100x3", "settled>=-100", "train100>=-100")
    assert criteria("cartpole", env="cartpole", num_envs=2) == resolve_preset("cartpole").criteria
    assert criteria("cartpole", env="envpool:CartPole-v1")[0] == "eval>=475x3"
    assert criteria("pong-fast", num_envs=2) == ("eval>=15", "eval>=18")
    assert criteria("pong-fast", env="breakout-v5") == ("eval>=16.1", "eval>=8.9", "eval>=30.5")  # 1.7 to 30.5
    assert criteria("pong-fast", env="Asterix-v5") == ("eval>=4356.65", "eval>=2283.325", "eval>=8503.3")  # from 210
    assert criteria("pong-fast", env="Adventure-v5") == ()


@pytest.mark.parametrize(
    ("written", "like", "criteria", "seeds", "words"),
    [
        ("Asterix-v5", "pong", ("eval>=4356.65", "eval>=2283.325", "eval>=8503.3"), 1, "of 'pong'; criteria at 50"),
        ("adventure", "pong", (), 1, "the settings of 'pong'; no criteria: there is no published human score"),
        (
            "CartPole-v1",
            "cartpole",
            ("eval>=475x3", "settled>=475", "train100>=475", "train100>=195"),
            16,
            "the settings of 'cartpole'",
        ),
        ("CartPole-v0", "cartpole", ("eval>=195x3", "settled>=195", "train100>=195"), 16, "the settings of 'cartpole'"),
        (
            "MountainCarContinuous-v0",
            "mountaincar",
            ("eval>=90", "settled>=90", "train100>=90"),
            16,
            "its force in 3 bins",
        ),
        ("Breakout-MinAtar", None, ("eval>=10", "train100>=10"), 4, "the agent of MinAtar's paper"),
        ("Taxi-v3", None, ("eval>=8", "settled>=8", "train100>=8"), 4, "default settings"),
        ("Basic-v1", None, (), 1, "the network and step size of 'pong'"),
        ("Catch-bsuite", None, (), 16, "default settings; no criteria: there is no published threshold"),
    ],
)
def test_a_bare_name_gets_settings_that_suit_its_kind(written, like, criteria, seeds, words):
    preset = resolve_preset(written)
    assert (preset.criteria, preset.seeds) == (criteria, seeds)
    assert preset.note.startswith(f"{preset.config.env}: ")
    assert words in preset.note
    assert preset.name == preset.config.env
    if like is not None:
        bins = {"action_bins": 3} if "bins" in words else {}
        same = resolve_preset(like)
        assert preset.config == dataclasses.replace(same.config, env=preset.config.env, **bins)
        assert preset.hparams == same.hparams
    validate(preset.config, preset.hparams)
    assert not resolve_preset("cartpole").note
    assert with_overrides(preset, {"env": "Acrobot-v1"}).note == ""


def test_the_papers_exploration_decays_from_where_learning_begins():
    """As dqn_zoo's (`begin_t` is where the replay is filled) and Dopamine's (its `warmup_steps`)."""
    for name in ("nature-dqn", "double-dqn", "pong", "breakout", "Asterix-v5", "Breakout-MinAtar"):
        config, hparams = resolve_preset(name).config, resolve_preset(name).hparams
        lane = types.SimpleNamespace(agent=types.SimpleNamespace(updates=0), trainings=0, episodes=0)
        half = hparams.epsilon_decay_steps // 2
        explored = [exploration(config, hparams, jnp.int32(config.min_replay + n), lane) for n in (-100, 0, half)]
        np.testing.assert_allclose(explored, [1.0, 1.0, (1.0 + hparams.epsilon_end) / 2], rtol=1e-6)
    assert resolve_preset("pong-fast").config.epsilon_from == dqn_jax.Config().epsilon_from == "start"  # as measured


def test_rainbow_has_all_six_parts_and_its_siblings_differ_from_it_by_them():
    """On MinAtar one base for the family; what Revisiting Rainbow's table has for each is what is left."""
    parts = dict(double=True, dueling=True, noisy=True, replay="prioritized", n_step=3, loss="categorical")
    for name in ("rainbow", "rainbow-cartpole", "rainbow-minatar"):
        assert {part: getattr(PRESETS[name].config, part) for part in parts} == parts
    for name, less in (("rainbow-cartpole", "c51-cartpole"), ("rainbow-minatar", "c51-minatar")):
        assert dataclasses.replace(PRESETS[less].config, **parts) == PRESETS[name].config
    minatar = {name: PRESETS[f"{name}-minatar"] for name in ("dqn", "c51", "qr-dqn", "iqn", "rainbow")}
    base = dict.fromkeys(parts) | {"atoms": None}
    shared = [dataclasses.replace(preset.config, **base) for preset in minatar.values()]
    assert all(config == shared[0] for config in shared)
    assert {name: preset.hparams.learning_rate for name, preset in minatar.items()} == {
        name: 2.5e-4 if name == "dqn" else 1e-4 for name in minatar
    }


@pytest.mark.parametrize("preset", [5, ["cartpole"], "cart\npole"])
def test_what_is_no_preset(preset):
    with pytest.raises(ConfigError, match="preset: ") as error:
        dqn_jax.train(preset)
    assert str(error.value).isprintable()


def test_what_a_preset_has_to_no_effect_is_left_alone():
    preset = resolve_preset("cartpole")  # whose target_mixing is not the default
    changed = with_overrides(preset, {"target_network": False, "target_mixing": 0.05})
    validate(changed.config, changed.hparams)
    check_changes(preset, changed)
    with pytest.raises(ConfigError, match="target_mixing"):
        check_changes(preset, dataclasses.replace(changed, hparams=changed.hparams._replace(target_mixing=0.5)))
