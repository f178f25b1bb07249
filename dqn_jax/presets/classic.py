"""Presets for classic control, chosen on other seeds than those reported in the README."""

from __future__ import annotations

import dataclasses

from dqn_jax.config import Config, HParams
from dqn_jax.presets.preset import Preset

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

# Agents that stay where they converged: layers are normalised, and an average of the weights is evaluated and kept.
_STAYING = dataclasses.replace(_CLASSIC, hidden=(64, 64), layer_norm=True)
_STAYING_HPARAMS = _CLASSIC_HPARAMS._replace(average_decay=0.9998)

# CartPole as a step that is worth nothing and a fall that costs 1 (Barto, Sutton & Anderson 1983): values of an agent
# that balances for ever are 0, and need not grow by bootstrapping first. Munchausen's target keeps the gap between
# actions open, which is else a few hundredths, and then lost in the noise of learning.
_BALANCING = dataclasses.replace(
    _STAYING,
    env="CartPole-v1",
    target="munchausen",
    double=False,
    reward_shift=-1.0,
    terminal_reward=-1.0,
    reward_scale=1.0,
    eval_every=2_500,
)
_BALANCING_HPARAMS = _CLASSIC_HPARAMS._replace(
    discount=0.998,  # with 0.99, drifting off the track after 300 steps is too far away to matter
    epsilon_end=0.15,  # falls go on being seen
    epsilon_decay_steps=1_400,
    munchausen_temperature=0.003,
)

# DQN with one of its two stabilisers left out, whose parts Mnih et al. 2015 compare (extended data table 3). Layers are
# normalised, as in PQN, which has neither: without that no replay ended between 117 and 200 (4 seeds, slower target).
_WITHOUT = dataclasses.replace(_CLASSIC, env="CartPole-v1", double=False, hidden=(64, 64), layer_norm=True)
_WITHOUT_HPARAMS = _CLASSIC_HPARAMS._replace(learning_rate_end=5e-5, epsilon_end=0.1)

CLASSIC_PRESETS = (
    Preset(
        "cartpole",
        "CartPole-v1 to a greedy mean of 475 in few environment steps, and to stay there: the main job",
        dataclasses.replace(_BALANCING, total_steps=81_000),
        _BALANCING_HPARAMS._replace(
            learning_rate=1.9e-3, learning_rate_decay_updates=12_000, target_mixing=0.05, average_decay=0.9998
        ),
    ),
    Preset(
        "cartpole-fast",
        "CartPole-v1 to a greedy mean of 475 in the fewest seconds, to stay there",
        # Half the updates for a step, with steps of nearly twice the size that come down sooner: the fewest updates of
        # eighteen settings tried (24 tuning seeds), and no average of the weights to keep.
        dataclasses.replace(_BALANCING, train_every=4, total_steps=51_000),
        _BALANCING_HPARAMS._replace(learning_rate=3e-3, learning_rate_decay_updates=6_000, target_mixing=0.08),
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
        dataclasses.replace(_STAYING, env="Acrobot-v1", total_steps=61_000, eval_every=2_500),
        _STAYING_HPARAMS._replace(learning_rate_decay_updates=25_000, epsilon_end=0.02, epsilon_decay_steps=18_000),
    ),
    Preset(
        "mountaincar",
        "MountainCar-v0 to a greedy mean of -110, each action held for four frames",
        # Without the frame skip random actions hardly ever reach the goal; returns still count every frame.
        dataclasses.replace(_STAYING, env="MountainCar-v0", action_repeat=4, total_steps=61_000, eval_every=2_500),
        _STAYING_HPARAMS._replace(
            learning_rate=2.7e-3,
            learning_rate_end=5e-5,
            learning_rate_decay_updates=25_000,
            discount=0.98,
            epsilon_end=0.02,
            epsilon_decay_steps=9_000,
        ),
    ),
    Preset(
        "dqn-no-replay",
        "CartPole-v1 by DQN without replay: each step of 64 environments is one batch, and then forgotten",
        dataclasses.replace(
            _WITHOUT,
            num_envs=64,
            sampling="latest",
            batch_size=64,
            replay_capacity=64,
            min_replay=64,
            train_every=64,
            total_steps=500_000,
            eval_every=25_600,
        ),
        _WITHOUT_HPARAMS._replace(
            learning_rate=2e-3,
            learning_rate_decay_updates=7_800,
            discount=0.995,
            epsilon_decay_steps=100_000,
            target_mixing=0.2,
        ),
    ),
    Preset(
        "dqn-no-target",
        "CartPole-v1 by DQN without target network: targets are the online network's own values",
        dataclasses.replace(_WITHOUT, target_network=False, total_steps=61_000, eval_every=2_500),
        _WITHOUT_HPARAMS._replace(learning_rate=1e-3, learning_rate_decay_updates=20_000, epsilon_decay_steps=5_000),
    ),
)
