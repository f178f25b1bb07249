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

_CLASSIC_PRESETS = (
    Preset(
        "cartpole",
        "CartPole-v1 to a greedy mean of 475 in the fewest environment steps: the main job",
        dataclasses.replace(_CLASSIC, env="CartPole-v1", batch_size=128, total_steps=81_000, eval_every=2_500),
        # The best of 1,024 settings on held-out seeds (experiments/convergence/cartpole.py).
        _CLASSIC_HPARAMS._replace(
            learning_rate=1.9e-3,
            learning_rate_end=5e-5,
            learning_rate_decay_updates=33_000,
            discount=0.998,  # with 0.99, drifting off the track after 300 steps is too far away to matter
            epsilon_end=0.083,
            epsilon_decay_steps=1_400,
            target_mixing=0.05,
        ),
    ),
    Preset(
        "cartpole-fast",
        "CartPole-v1 to a greedy mean of 475 in the fewest seconds",
        dataclasses.replace(
            _CLASSIC,
            env="CartPole-v1",
            hidden=(64, 64),
            batch_size=128,
            train_every=4,
            total_steps=81_000,
            eval_every=2_500,
        ),
        _CLASSIC_HPARAMS._replace(
            learning_rate=3.1e-3,
            learning_rate_end=5e-5,
            learning_rate_decay_updates=39_000,
            discount=0.998,
            epsilon_end=0.086,
            epsilon_decay_steps=5_100,
            target_mixing=0.13,
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

# What the five tutorials share, in their own cadence: one environment, and one number of every kind as Keras has it
# (initial weights, Adam's epsilon).
_TUTORIAL = Config(
    env="CartPole-v1",
    num_envs=1,
    hidden=(24, 24),
    weight_init="glorot_uniform",
    target_network=False,
    batch_size=32,
    replay_capacity=2_000,
    min_replay=31,  # learning starts with the step that stores the 32nd transition
    sampling="without_replacement",
    train_every=1,
    epsilon_schedule="multiplicative",
    epsilon_unit="trainings",
)
_TUTORIAL_HPARAMS = HParams(
    learning_rate=1e-3, optimizer_eps=1e-7, discount=0.95, epsilon_end=0.01, epsilon_decay=0.995
)


def _tutorial(
    name: str, summary: str, criteria: tuple[str, ...], config: Config, hparams: HParams, **vectorised: Any
) -> tuple[Preset, Preset]:
    """A tutorial as its document has it, and the same algorithm on many environments at once with minibatches."""
    many = dataclasses.replace(config, **{"num_envs": 8, "minibatch_size": None, **vectorised})
    return (
        Preset(name, summary, config, hparams, criteria, seeds=20),
        Preset(f"{name}-vectorised", f"{name} on {many.num_envs} environments at once", many, hparams, criteria, 20),
    )


_TUTORIALS = (
    *_tutorial(
        "tutorial-1",
        "Keras CartPole: 32 one-sample fits at every step, no target network, -10 for a fall",
        ("train100>=195", "train100>=475", "epsilon<=0.01", "eval>=475x3"),
        dataclasses.replace(
            _TUTORIAL,
            terminal_reward=-10.0,
            minibatch_size=1,
            total_steps=500_000,
            total_episodes=1_000,
            eval_every=5_000,
        ),
        _TUTORIAL_HPARAMS,
    ),
    *_tutorial(
        "tutorial-2",
        "keras-rl CartPole: 5,000 steps, one small hidden layer, soft target updates, constant exploration",
        ("eval>=195", "train100>=195"),
        dataclasses.replace(
            _TUTORIAL,
            env="CartPole-v0",
            hidden=(16,),
            target_network=True,
            replay_capacity=50_000,
            min_replay=10,
            epsilon_schedule="constant",
            total_steps=5_000,
            eval_every=499,
        ),
        _TUTORIAL_HPARAMS._replace(discount=0.99, epsilon_start=0.1, target_period=1, target_mixing=0.01),
    ),
    *_tutorial(
        "tutorial-3",
        "Pendulum with 20 torque bins: one pass over the last episode, then thrown away",
        ("eval>=-250", "train100>=-250"),
        dataclasses.replace(
            _TUTORIAL,
            env="Pendulum-v1",
            action_bins=20,
            max_episode_steps=250,
            hidden=(128, 64),
            batch_size=250,
            minibatch_size=1,
            replay_capacity=250,
            sampling="latest",
            clear_replay=True,
            min_replay=0,
            train_unit="episodes",
            epsilon_unit="episodes",
            total_steps=250_000,
            eval_every=10_000,
        ),
        _TUTORIAL_HPARAMS._replace(learning_rate=2e-4, discount=0.9, epsilon_end=0.02, epsilon_decay=0.9999),
        num_envs=10,
        train_every=10,
        batch_size=2_500,
        minibatch_size=10,
        replay_capacity=2_500,
    ),
    *_tutorial(
        "tutorial-4",
        "Deep Q-Network: learning stops once five episodes average over 195, then greedy test episodes",
        ("train100>195", "train5>195", "eval>195"),
        dataclasses.replace(
            _TUTORIAL,
            max_episode_steps=210,
            batch_size=24,
            min_replay=23,
            replay_capacity=2_500,
            freeze_when="train5>195",
            total_steps=105_000,
            total_episodes=500,
            eval_every=1_000,
        ),
        _TUTORIAL_HPARAMS._replace(epsilon_end=0.001),
    ),
    *_tutorial(
        "tutorial-5",
        "PoleCart notebook: 32 one-sample fits at the end of each of 200 episodes",
        ("eval>=475", "train100>=195"),
        dataclasses.replace(
            _TUTORIAL,
            minibatch_size=1,
            train_unit="episodes",
            total_steps=100_000,
            total_episodes=200,
            eval_every=1_000,
        ),
        _TUTORIAL_HPARAMS,
        updates_per_train=32,
    ),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (*_CLASSIC_PRESETS, *_TUTORIALS)}


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
