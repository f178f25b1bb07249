"""Named settings: what `dqn-jax train NAME` runs. Chosen on other seeds than those reported in the README."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from dqn_jax.config import (
    SETTINGS,
    Config,
    ConfigError,
    HParams,
    UnfitError,
    UnknownEnvError,
    as_type,
    fields_of,
    suggest,
)
from dqn_jax.envs import FoundEnv, find_env, resolve_env
from dqn_jax.envs.pool_tasks import gives_pixels, is_atari
from dqn_jax.presets.atari import ATARI_HPARAMS, ATARI_PRESETS
from dqn_jax.presets.classic import CLASSIC_PRESETS
from dqn_jax.presets.distributional import DISTRIBUTIONAL_PRESETS
from dqn_jax.presets.family import FAMILY_PRESETS
from dqn_jax.presets.preset import Preset
from dqn_jax.presets.rainbow import RAINBOW_PRESETS
from dqn_jax.presets.thresholds import ATARI_SCORES, criteria_of
from dqn_jax.presets.tutorials import TUTORIALS

_ALL = (*CLASSIC_PRESETS, *FAMILY_PRESETS, *DISTRIBUTIONAL_PRESETS, *RAINBOW_PRESETS, *TUTORIALS, *ATARI_PRESETS)
PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}


def resolve_preset(name: str | Preset) -> Preset:
    """The preset called `name`, or settings that suit the kind of the environment of that name; a preset is itself.

    Raises:
      ConfigError: if it is neither; the message suggests the nearest.
    """
    if isinstance(name, Preset):
        return name
    if not isinstance(name, str):
        raise ConfigError(f"preset: {name!r} is no name; give that of a preset or an environment, e.g. 'cartpole'.")
    if name.lower() in PRESETS:
        preset = PRESETS[name.lower()]
        return preset if preset.criteria else dataclasses.replace(preset, criteria=criteria_of(preset.config.env))
    try:
        found = find_env(name)
    except UnknownEnvError as unknown:
        nearest = suggest(name, [*unknown.choices, *PRESETS])
        raise ConfigError(
            f"preset: there is no preset or environment '{name}'.{nearest} 'dqn-jax list' shows all."
        ) from None
    env = found.name
    config, hparams, seeds, what = _suited_to(found)
    criteria = criteria_of(env)
    note = f"{env}: {what}"
    if env in ATARI_SCORES:
        note += "; criteria at 50, 25 and 100 % of human"
    elif not criteria:
        note += "; no criteria: there is no published " + ("human score" if is_atari(env) else "threshold")
    return Preset(
        env, note, dataclasses.replace(config, env=env), hparams=hparams, criteria=criteria, seeds=seeds, note=note
    )


# The agent of Young & Tian 2019 (arXiv 1903.03176) for MinAtar. gymnax's games differ: minimal sets of actions and, in
# most of them, a cap of 1,000 steps. The RMSProp of the paper adds 0.01 to the square root, optax 1e-4 within it.
_MINATAR = Config(
    torso="minatar",
    hidden=(128,),
    loss="huber",
    optimizer="rmsprop_centered",
    batch_size=32,
    replay_capacity=100_000,
    min_replay=5_000,
    train_every=1,
    epsilon_from="learning",
    sticky_actions=0.1,
    total_steps=5_000_000,
    eval_every=100_000,
    eval_episodes=30,
)
_MINATAR_HPARAMS = HParams(
    learning_rate=2.5e-4,
    rms_decay=0.95,
    optimizer_eps=1e-4,
    epsilon_end=0.1,
    epsilon_decay_steps=100_000,
    target_period=1_000,
)

# Other tasks of EnvPool: an evaluation starts as many of them as it has episodes, in threads of the host.
_POOL = Config(eval_episodes=20)
_PIXELS = Config(
    hidden=(512,),
    frame_stack=4,
    batch_size=32,
    loss="huber",
    replay_capacity=50_000,
    min_replay=10_000,
    train_every=4,
    total_steps=2_500_000,
    eval_every=100_000,
    eval_episodes=10,
)

_TUNED = {
    "CartPole-v0": "cartpole",
    "CartPole-v1": "cartpole",
    "Pendulum-v1": "pendulum",
    "Acrobot-v1": "acrobot",
    "MountainCar-v0": "mountaincar",
}


def _suited_to(found: FoundEnv) -> tuple[Config, HParams, int, str]:
    """Settings for an environment (whose name is still to be put in), a number of seeds, and words."""
    env, pool = found
    tuned = "pong" if pool and is_atari(env) else _TUNED.get(env)
    if tuned is not None:
        preset = PRESETS[tuned]
        return preset.config, preset.hparams, preset.seeds, f"the settings of '{tuned}'"
    if env.endswith("-MinAtar"):
        return _MINATAR, _MINATAR_HPARAMS, 4, "the agent of MinAtar's paper (Young & Tian 2019)"
    if env == "MountainCarContinuous-v0":
        preset = PRESETS["mountaincar"]
        config = dataclasses.replace(preset.config, action_bins=3)
        return config, preset.hparams, preset.seeds, "the settings of 'mountaincar', its force in 3 bins"
    if pool and gives_pixels(env):
        return _PIXELS, ATARI_HPARAMS, 1, "the network and step size of 'pong', on 4 frames in colour"
    return _POOL if pool else Config(), HParams(), 4 if pool else 16, "default settings"


def with_overrides(preset: Preset, overrides: dict[str, Any]) -> Preset:
    """The preset with Config or HParams fields changed by name; on another environment, with that one's criteria.

    Raises:
      ConfigError: for a name that is neither, a value of another type, or one that has no effect beside the others.
    """
    unknown = [name for name in overrides if name not in SETTINGS]
    if unknown:
        nearest = suggest(unknown[0], SETTINGS)
        raise ConfigError(f"{unknown[0]}: there is no such setting.{nearest} 'dqn-jax train --help' shows all.")
    static: dict[str, Any] = {}
    for name in (name for name in overrides if name in fields_of(Config)):
        try:
            static[name] = as_type(SETTINGS[name].kind, overrides[name])
        except UnfitError as unfit:
            raise ConfigError(f"{name}: {overrides[name]!r} is not possible; {unfit}.") from None
    env = static.get("env", preset.config.env)
    another = env != preset.config.env and resolve_env(env) != resolve_env(preset.config.env)
    changed = dataclasses.replace(
        preset,
        criteria=criteria_of(resolve_env(env)) if another else preset.criteria,
        config=dataclasses.replace(preset.config, **static),
        hparams=preset.hparams._replace(**{k: v for k, v in overrides.items() if k in HParams._fields}),
        note="" if another else preset.note,
    )
    check_changes(preset, changed)
    return changed


def check_changes(before: Preset, after: Preset) -> None:
    """Refuse what somebody changed to no effect. What a preset has of it is left alone: nobody asked for that.

    Raises:
      ConfigError: naming the setting, and the one that it would need.
    """
    old, new = ({**vars(preset.config), **preset.hparams._asdict()} for preset in (before, after))
    for name, setting in SETTINGS.items():
        needs = setting.only_where
        if needs is not None and not needs.holds(new[needs.other]) and not np.array_equal(old[name], new[name]):
            raise ConfigError(
                f"{name}: it has no effect unless {needs.other} is {needs.words}; change that too, or leave {name} out."
            )
