"""Named settings: what `dqn-jax train NAME` runs. Chosen on other seeds than those reported in the README."""

from __future__ import annotations

import dataclasses
from typing import Any

from dqn_jax.config import Config, ConfigError, HParams, suggest
from dqn_jax.envs import env_names, resolve_env


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings under a name, with the criteria that say when its agents have converged."""

    name: str
    summary: str
    config: Config
    hparams: HParams = HParams()  # noqa: RUF009 - immutable
    criteria: tuple[str, ...] = ()
    seeds: int = 16


_ENV_CRITERIA = {
    "CartPole-v0": ("eval>=195x3", "train100>=195"),
    "CartPole-v1": ("eval>=475x3", "train100>=475", "train100>=195"),
    "Acrobot-v1": ("eval>=-100x3", "train100>=-100"),
    "MountainCar-v0": ("eval>=-110x3", "train100>=-110"),
    "Pendulum-v1": ("eval>=-200", "eval>=-160", "train100>=-200"),
    "MountainCarContinuous-v0": ("eval>=90", "train100>=90"),
}

# What the classic-control presets share: Double DQN on rewards scaled to Q-values of about 10, a soft target, and a
# step size that comes down once the task is learnt, so that agents stay where they converged.
_CLASSIC = Config(
    num_envs=4,
    double=True,
    hidden=(120, 84),
    batch_size=64,
    replay_capacity=100_000,
    min_replay=1_000,
    train_every=2,
    reward_scale=0.1,
)
_CLASSIC_HPARAMS = HParams(learning_rate=1.5e-3, learning_rate_end=1e-5, target_period=1, target_mixing=0.02)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "cartpole",
            "CartPole-v1 to a greedy mean of 475: the main job",
            dataclasses.replace(_CLASSIC, env="CartPole-v1", total_steps=81_000, eval_every=2_500),
            _CLASSIC_HPARAMS._replace(
                learning_rate=1.7e-3,
                learning_rate_end=5e-5,
                learning_rate_decay_updates=25_000,
                discount=0.995,  # with 0.99, drifting off the track after 300 steps is too far away to matter
                epsilon_end=0.1,
                epsilon_decay_steps=11_000,
            ),
        ),
        Preset(
            "pendulum",
            "Pendulum-v1 with five torque bins, swung up and held",
            dataclasses.replace(_CLASSIC, env="Pendulum-v1", action_bins=5, total_steps=31_000, eval_every=1_000),
            _CLASSIC_HPARAMS._replace(
                discount=0.98,
                learning_rate_decay_updates=12_000,
                epsilon_end=0.05,
                epsilon_decay_steps=8_000,
                target_mixing=0.03,
            ),
        ),
        Preset(
            "acrobot",
            "Acrobot-v1 to a greedy mean of -100",
            dataclasses.replace(_CLASSIC, env="Acrobot-v1", total_steps=61_000, eval_every=2_500),
            _CLASSIC_HPARAMS._replace(learning_rate_decay_updates=25_000, epsilon_end=0.02, epsilon_decay_steps=18_000),
        ),
        Preset(
            "mountaincar",
            "MountainCar-v0 to a greedy mean of -110, each action held for four frames",
            # Without the frame skip random actions hardly ever reach the goal; returns still count every frame.
            dataclasses.replace(_CLASSIC, env="MountainCar-v0", action_repeat=4, total_steps=61_000, eval_every=2_500),
            _CLASSIC_HPARAMS._replace(
                learning_rate=2.7e-3,
                learning_rate_end=5e-5,
                learning_rate_decay_updates=25_000,
                discount=0.98,
                epsilon_end=0.02,
                epsilon_decay_steps=9_000,
            ),
        ),
    )
}


def resolve_preset(name: str) -> Preset:
    """The preset called `name`, or the default settings for the environment of that name.

    Raises:
      ConfigError: if it is neither; the message suggests the nearest.
    """
    if name.lower() in PRESETS:
        preset = PRESETS[name.lower()]
    else:
        try:
            env = resolve_env(name)
        except ConfigError as error:
            if "cannot be used" in str(error):
                raise
            nearest = suggest(name, [*PRESETS, *env_names()])
            raise ConfigError(
                f"preset: there is no preset or environment '{name}'.{nearest} 'dqn-jax list' shows all."
            ) from None
        preset = Preset(env, f"default settings on {env}", Config(env=env))
    if not preset.criteria:
        criteria = _ENV_CRITERIA.get(resolve_env(preset.config.env), ())
        preset = dataclasses.replace(preset, criteria=criteria)
    return preset


def with_overrides(preset: Preset, overrides: dict[str, Any]) -> Preset:
    """The preset with Config or HParams fields changed by name.

    Raises:
      ConfigError: for a name that is neither.
    """
    config_fields = {field.name for field in dataclasses.fields(Config)}
    unknown = [name for name in overrides if name not in config_fields and name not in HParams._fields]
    if unknown:
        nearest = suggest(unknown[0], [*config_fields, *HParams._fields])
        raise ConfigError(f"{unknown[0]}: there is no such setting.{nearest} 'dqn-jax train --help' shows all.")
    return dataclasses.replace(
        preset,
        config=dataclasses.replace(preset.config, **{k: v for k, v in overrides.items() if k in config_fields}),
        hparams=preset.hparams._replace(**{k: v for k, v in overrides.items() if k in HParams._fields}),
    )
