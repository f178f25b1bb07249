"""The options that EnvPool is given: which are refused, and why."""

from __future__ import annotations

import dataclasses

import pytest

from dqn_jax.config import Config, ConfigError, HParams, validate
from dqn_jax.envs import make_pool

PONG = Config(env="Pong-v5", action_repeat=4, frame_stack=4)
CARTPOLE = Config(env="envpool:CartPole-v1")
EMPTY = "MiniGrid-Empty-5x5-v0"


# -- names


# -- bad options


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dataclasses.replace(PONG, pool_options=(("mod", "1"),)), r"pool_options.*'mod'.*Did you mean 'mode'.*It has:"),
        (dataclasses.replace(PONG, pool_options=(("mode", "x"),)), r"pool_options: mode is 'x'; use an integer"),
        (dataclasses.replace(PONG, pool_options=(("mode", "99"),)), r"pool_options.*Pong-v5.*Invalid game mode"),
        (dataclasses.replace(PONG, pool_options=(("use_inter_area_resize", "2"),)), r"use true or false"),
        (dataclasses.replace(PONG, pool_options=(("frame_skip", "2"),)), r"pool_options: frame_skip.*action_repeat"),
        (dataclasses.replace(PONG, pool_options=(("reward_clip", "true"),)), r"pool_options.*reward_clip"),
        (dataclasses.replace(PONG, pool_options=(("stack_num", "2"),)), r"pool_options.*stack_num.*frame_stack"),
        (dataclasses.replace(PONG, pool_options=(("seed", "2"),)), r"pool_options.*seed"),
        (dataclasses.replace(PONG, pool_options=(("batch_size", "2"),)), r"pool_options: batch_size.*pool_batch"),
        (dataclasses.replace(PONG, pool_options=(("gray_scale", "false"),)), r"pool_options.*the setting grayscale"),
        (
            dataclasses.replace(PONG, pool_options=(("base_path", "x"),)),
            r"base_path is fixed, for EnvPool finds its own",
        ),
        (dataclasses.replace(PONG, obs_key="image"), r"obs_key: Pong-v5 gives one array; leave it out"),
        (Config(env=EMPTY, obs_key="imag"), r"obs_key: .* gives no 'imag'; use one of direction, image, mission\."),
        (Config(env="PacMan-v1"), r"obs_key: .* several arrays; use one of grid, player_locations\.y, .*, score\."),
        (Config(env=EMPTY, pool_options=(("agent_start_pos", "2;2"),)), r"'2;2'; use a tuple as Python writes it"),
        (Config(env="Basic-v1", life_loss="bootstrap"), r"life_loss.*Basic-v1"),
        (Config(env="Basic-v1", pool_options=(("use_combined_action", "0"),)), r"use_combined_action is fixed"),
        (dataclasses.replace(PONG, max_episode_steps=10), r"max_episode_steps: 10 frames.*action_repeat 4; use 8"),
        (dataclasses.replace(PONG, max_episode_steps=3), r"max_episode_steps: 3 frames.*use 4"),
        (dataclasses.replace(PONG, env_params=(("gravity", 9.0),)), r"env_params.*pool_options"),
        (dataclasses.replace(PONG, action_bins=3), r"action_bins"),
        (dataclasses.replace(CARTPOLE, action_repeat=4), r"action_repeat.*envpool:CartPole-v1"),
        (dataclasses.replace(CARTPOLE, sticky_actions=0.25), r"sticky_actions.*envpool:CartPole-v1"),
        (dataclasses.replace(CARTPOLE, life_loss="bootstrap"), r"life_loss.*envpool:CartPole-v1"),
        (dataclasses.replace(CARTPOLE, fire_reset=True), r"fire_reset.*envpool:CartPole-v1"),
        (dataclasses.replace(CARTPOLE, noop_max=1), r"noop_max.*envpool:CartPole-v1"),
        (dataclasses.replace(CARTPOLE, full_action_space=True), r"full_action_space.*envpool:CartPole-v1"),
        (dataclasses.replace(CARTPOLE, frame_size=42), r"frame_size.*envpool:CartPole-v1"),
        (Config(env="CliffWalking-v1", max_episode_steps=10), r"max_episode_steps.*CliffWalking-v1"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(config, message):
    with pytest.raises(ConfigError, match=message) as error:
        make_pool(config, 1, 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [{"noop_max": 0}, {"frame_stack": 0}, {"frame_size": 0}, {"pool_threads": -1}, {"life_loss": "sometimes"}],
)
def test_values_that_no_environment_takes_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        validate(dataclasses.replace(PONG, **change), HParams())
