"""Atari protocols: each sets every knob to what its source says, and the game takes it."""

from __future__ import annotations

import dataclasses

import pytest

from dqn_jax.config import Config, ConfigError, HParams, validate
from dqn_jax.envs import make_pool
from dqn_jax.presets import EVERYWHERE, PROTOCOLS, apply_protocol, describe_protocol

# A run in which no knob is as in any protocol.
OTHER = Config(
    env="Pong-v5",
    num_envs=3,
    action_repeat=2,
    frame_stack=3,
    frame_size=42,
    grayscale=False,
    sticky_actions=0.5,
    noop_max=7,
    max_episode_steps=400,
    reward_clip=2.0,
    reward_scale=0.5,
    reward_shift=0.5,
    terminal_reward=-1.0,
    time_limit_terminates=True,
    eval_epsilon=0.5,
)
SHARED = {
    "frame_stack": 4,
    "frame_size": 84,
    "grayscale": True,
    "reward_clip": 1.0,
    "reward_scale": 1.0,
    "reward_shift": 0.0,
    "terminal_reward": None,
    "time_limit_terminates": False,
}
DIFFERENT = (
    "action_repeat sticky_actions life_loss noop_max fire_reset full_action_space max_episode_steps eval_epsilon"
).split()
EXPECTED = {
    "nature": (4, 0.0, "bootstrap", 30, False, False, 108_000, 0.05),
    "dopamine": (4, 0.25, "ignore", 1, False, False, 108_000, 0.001),
    "machado": (5, 0.25, "ignore", 1, False, True, 18_000, 0.01),
    "cleanrl": (4, 0.0, "episode", 30, True, False, 400_000, 0.01),
}


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("life_loss", ["ignore", "bootstrap", "episode"])
@pytest.mark.parametrize("on", [False, True])
def test_a_protocol_sets_every_knob_whatever_it_was(name, life_loss, on):
    before = dataclasses.replace(OTHER, life_loss=life_loss, fire_reset=on, full_action_space=on)
    after = apply_protocol(before, name)
    expected = SHARED | dict(zip(DIFFERENT, EXPECTED[name], strict=True))
    assert after == dataclasses.replace(before, **expected)
    assert PROTOCOLS[name].settings == expected
    validate(after, HParams())


@pytest.mark.parametrize("name", PROTOCOLS)
def test_games_run_under_a_protocol(name):
    config = apply_protocol(Config(env="pong-v5"), name)
    pool = make_pool(config, 1, 0)
    assert pool.spec.obs_shape == (84, 84, 4)
    assert pool.spec.num_actions == (18 if name == "machado" else 6)
    assert pool.spec.max_episode_steps == config.max_episode_steps
    pool.close()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_says_what_it_sets_and_how_it_differs(name):
    lines = describe_protocol(name)
    protocol = PROTOCOLS[name]
    assert lines[0] == f"{name}: {protocol.summary}"
    for field in protocol.settings:
        assert sum(line.split()[0] == field for line in lines) == 1
    assert f"  sticky_actions {protocol.settings['sticky_actions']}".removesuffix(".0") in lines
    assert protocol.source in "\n".join(lines)
    for departure in (*protocol.departures, *EVERYWHERE):
        assert f"  - {departure}" in lines


def test_unknown_protocols_suggest_the_nearest():
    for call in (lambda: apply_protocol(Config(env="Pong-v5"), "natur"), lambda: describe_protocol("natur")):
        with pytest.raises(ConfigError, match=r"protocol: .*'natur'\. Did you mean 'nature'.*machado"):
            call()


@pytest.mark.parametrize("env", ["CartPole-v1", "Breakout-MinAtar", "FrozenLake-v1", "envpool:CartPole-v1"])
def test_protocols_are_for_atari(env):
    with pytest.raises(ConfigError, match=rf"protocol: 'nature' is for Atari games, and {env} is none"):
        apply_protocol(Config(env=env), "nature")
