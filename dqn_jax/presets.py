"""Named settings: what `dqn-jax train NAME` runs. Chosen on other seeds than those reported in the README."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from dqn_jax.config import ONLY_WHERE, Config, ConfigError, HParams, UnknownEnvError, field_types, suggest
from dqn_jax.envs import kind_of, resolve_env
from dqn_jax.envs.pool import gives_pixels, is_atari
from dqn_jax.field_types import UnfitError, as_type
from dqn_jax.protocols import PROTOCOLS
from dqn_jax.thresholds import ATARI_SCORES, criteria_of


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings under a name, with the criteria that say when its agents have converged."""

    name: str
    summary: str
    config: Config
    hparams: HParams = HParams()  # noqa: RUF009 - immutable
    criteria: tuple[str, ...] = ()
    seeds: int = 16
    note: str = ""
    """Said when it runs: which settings a bare name of an environment got."""


# Atari games that have presets of their own.
GAMES = {
    "pong": "Pong-v5",
    "breakout": "Breakout-v5",
    "ms-pacman": "MsPacman-v5",
    "space-invaders": "SpaceInvaders-v5",
    "beam-rider": "BeamRider-v5",
    "seaquest": "Seaquest-v5",
    "enduro": "Enduro-v5",
    "qbert": "Qbert-v5",
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
        "CartPole-v1 to a greedy mean of 475 in the fewest seconds per solved seed, in most seeds",
        dataclasses.replace(
            _CLASSIC,
            env="CartPole-v1",
            hidden=(64, 64),
            batch_size=32,
            train_every=2,
            total_steps=81_000,
            eval_every=2_500,
        ),
        _CLASSIC_HPARAMS._replace(
            learning_rate=3.3e-3,
            learning_rate_end=5e-5,
            learning_rate_decay_updates=13_000,
            discount=0.998,
            epsilon_end=0.136,
            epsilon_decay_steps=1_200,
            target_mixing=0.08,
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

# What the Atari presets share: the agent and the game of Mnih et al. 2015 in the numbers of the field today (Adam of
# Dopamine's JAX baselines), eight games at a time with the paper's four steps to an update.
_ATARI = Config(
    env="Pong-v5",
    torso="nature",
    hidden=(512,),
    num_envs=8,
    batch_size=32,
    loss="huber",
    replay_capacity=1_000_000,
    min_replay=20_000,
    train_every=4,
    epsilon_from="learning",  # as Dopamine and dqn_zoo do
    total_steps=2_500_000,  # 10 million frames
    eval_every=250_000,
    eval_episodes=20,
    **PROTOCOLS["nature"].settings,
)
_ATARI_HPARAMS = HParams(
    learning_rate=6.25e-5,
    optimizer_eps=1.5e-4,
    epsilon_end=0.01,
    epsilon_decay_steps=250_000,
    target_period=2_000,
)
_ATARI_PRESETS = tuple(
    Preset(
        name,
        f"{env} from pixels, 10 million frames: Nature DQN with Adam; converged at 50 % of human",
        dataclasses.replace(_ATARI, env=env),
        _ATARI_HPARAMS,
        criteria_of(env),
        seeds=1,
    )
    for name, env in GAMES.items()
)

_PONG_FAST = Preset(
    "pong-fast",
    "Pong to a greedy mean of 15 in the fewest minutes on two cores: small frames and network, 3-step Double DQN",
    dataclasses.replace(
        _ATARI,
        torso="dqn2013",
        hidden=(256,),
        frame_size=60,
        double=True,
        n_step=3,
        replay_capacity=200_000,
        min_replay=10_000,
        train_every=2,
        epsilon_from="start",
        total_steps=1_000_000,
        eval_every=40_000,
        eval_episodes=8,
        eval_epsilon=0.001,
    ),
    HParams(
        learning_rate=2e-4,
        optimizer_eps=1.5e-4,
        epsilon_end=0.02,
        epsilon_decay_steps=100_000,
        target_period=500,
    ),
    ("eval>=15", "eval>=18"),
    seeds=1,
)

# The agents of the papers, 200 million frames. Periods are theirs in frames, divided by 4 frames a step and 4 steps an
# update; RMSProp's 0.01 is for a loss that is summed over the batch of 32, here it is a mean.
_PAPER = dataclasses.replace(
    _ATARI, optimizer="rmsprop_centered", min_replay=50_000, total_steps=50_000_000, eval_every=250_000
)
_PAPER_HPARAMS = HParams(
    learning_rate=2.5e-4,
    rms_decay=0.95,
    optimizer_eps=0.01 / 32**2,
    epsilon_end=0.1,
    epsilon_decay_steps=1_000_000,
    target_period=2_500,
)
_PAPER_PRESETS = (
    Preset(
        "nature-dqn",
        "DQN of Mnih et al. 2015 (Nature 518:529); any game by --env Breakout-v5",
        _PAPER,
        _PAPER_HPARAMS,
        criteria_of("Pong-v5"),
        seeds=1,
    ),
    Preset(
        "double-dqn",
        "Double DQN of van Hasselt et al. 2016 (arXiv 1509.06461), tuned as there; any game by --env Breakout-v5",
        dataclasses.replace(_PAPER, double=True, eval_epsilon=0.01),
        _PAPER_HPARAMS._replace(epsilon_end=0.01, target_period=7_500),
        criteria_of("Pong-v5"),
        seeds=1,
    ),
)

PRESETS: dict[str, Preset] = {
    preset.name: preset for preset in (*_CLASSIC_PRESETS, *_TUTORIALS, *_ATARI_PRESETS, _PONG_FAST, *_PAPER_PRESETS)
}


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
        env = resolve_env(name)
    except UnknownEnvError as unknown:
        nearest = suggest(name, [*unknown.choices, *PRESETS])
        raise ConfigError(
            f"preset: there is no preset or environment '{name}'.{nearest} 'dqn-jax list' shows all."
        ) from None
    config, hparams, seeds, what = _suited_to(env)
    criteria = criteria_of(env)
    note = f"{env}: {what}"
    if env in ATARI_SCORES:
        note += "; criteria at 50, 25 and 100 % of human"
    elif not criteria:
        note += "; no criteria: there is no published " + ("human score" if is_atari(env) else "threshold")
    return Preset(env, note, dataclasses.replace(config, env=env), hparams, criteria, seeds, note)


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


def _suited_to(env: str) -> tuple[Config, HParams, int, str]:
    """Settings for the environment of this full name (which is still to be put in), a number of seeds, and words."""
    pool = kind_of(env) == "pool"
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
        return _PIXELS, _ATARI_HPARAMS, 1, "the network and step size of 'pong', on 4 frames in colour"
    return _POOL if pool else Config(), HParams(), 4 if pool else 16, "default settings"


def with_overrides(preset: Preset, overrides: dict[str, Any]) -> Preset:
    """The preset with Config or HParams fields changed by name; on another environment, with that one's criteria.

    Raises:
      ConfigError: for a name that is neither, a value of another type, or one that has no effect beside the others.
    """
    types = field_types(Config)
    unknown = [name for name in overrides if name not in types and name not in HParams._fields]
    if unknown:
        nearest = suggest(unknown[0], [*types, *HParams._fields])
        raise ConfigError(f"{unknown[0]}: there is no such setting.{nearest} 'dqn-jax train --help' shows all.")
    static: dict[str, Any] = {}
    for name, value in overrides.items():
        try:
            static |= {name: as_type(types[name], value)} if name in types else {}
        except UnfitError as unfit:
            raise ConfigError(f"{name}: {value!r} is not possible; {unfit}.") from None
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
    for name, (other, holds, words) in ONLY_WHERE.items():
        if not holds(new[other]) and not np.array_equal(old[name], new[name]):
            raise ConfigError(
                f"{name}: it has no effect unless {other} is {words}; change that too, or leave {name} out."
            )
