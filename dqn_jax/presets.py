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

_CARTPOLE = Config(env="CartPole-v1", double=True)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (Preset("cartpole", "CartPole-v1 to a greedy mean of 475: the main job", _CARTPOLE, seeds=32),)
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
