"""Presets of distributional and Munchausen agents, in the settings of their papers; what differs here is said.

On Atari, everywhere: first weights are those of flax; eight games at a time, with the papers' four steps to an update.
IQN draws as many fractions for acting as for learning (the papers 32), and its targets choose the next action by those
that value it. Quantile losses are not divided by kappa, which is 1.

On CartPole they are quantile_cartpole and implicit_cartpole of Obando-Ceron & Castro 2021 (arXiv 2011.14826).
Different here: observations are as they are, not scaled to [-1, 1]; time limits bootstrap. C51 has no file there; it
has the support of their Rainbow and the rest of quantile_cartpole.
"""

from __future__ import annotations

import dataclasses

from dqn_jax.config import Config, HParams
from dqn_jax.presets.preset import Preset
from dqn_jax.presets.protocols import PROTOCOLS
from dqn_jax.presets.thresholds import criteria_of

# 200 million frames. Periods are the papers' in frames, divided by 4 frames a step and 4 steps an update.
_NATURE = Config(
    env="Pong-v5",
    torso="nature",
    hidden=(512,),
    num_envs=8,
    batch_size=32,
    replay_capacity=1_000_000,
    min_replay=50_000,
    train_every=4,
    epsilon_from="learning",
    total_steps=50_000_000,
    eval_every=250_000,
    eval_episodes=20,
    **PROTOCOLS["nature"].settings | {"eval_epsilon": 0.001},
)
_NATURE_HPARAMS = HParams(
    learning_rate=5e-5, optimizer_eps=0.01 / 32, epsilon_end=0.01, epsilon_decay_steps=1_000_000, target_period=2_500
)
_DOPAMINE = dataclasses.replace(_NATURE, target="munchausen", min_replay=20_000, **PROTOCOLS["dopamine"].settings)
_DOPAMINE_HPARAMS = _NATURE_HPARAMS._replace(epsilon_decay_steps=250_000, target_period=2_000)

_ON_ATARI = (
    (
        "c51",
        "C51 of Bellemare, Dabney & Munos 2017 (arXiv 1707.06887)",
        dataclasses.replace(_NATURE, loss="categorical", atoms=51),
        _NATURE_HPARAMS._replace(learning_rate=2.5e-4, v_min=-10.0, v_max=10.0, max_grad_norm=10.0),
    ),
    (
        "qr-dqn",
        "QR-DQN of Dabney et al. 2018 (arXiv 1710.10044)",
        dataclasses.replace(_NATURE, loss="quantile", atoms=201),
        _NATURE_HPARAMS,
    ),
    (
        "iqn",
        "IQN of Dabney et al. 2018 (arXiv 1806.06923)",
        dataclasses.replace(_NATURE, loss="implicit_quantile", atoms=64, min_replay=20_000),
        _NATURE_HPARAMS,
    ),
    (
        "munchausen-dqn",
        "Munchausen DQN of Vieillard et al. 2020 (arXiv 2007.14430), squared error and Adam, sticky actions",
        _DOPAMINE,
        _DOPAMINE_HPARAMS,
    ),
    (
        "munchausen-iqn",
        "Munchausen IQN of Vieillard et al. 2020 (arXiv 2007.14430), sticky actions",
        dataclasses.replace(_DOPAMINE, loss="implicit_quantile", atoms=64),
        _DOPAMINE_HPARAMS,
    ),
)

_CARTPOLE = Config(
    env="CartPole-v0",
    hidden=(512, 512),
    weight_init="glorot_uniform",
    num_envs=1,
    batch_size=128,
    replay_capacity=50_000,
    min_replay=500,
    train_every=2,
    epsilon_schedule="constant",
    total_steps=30_000,
    eval_every=1_000,
    eval_epsilon=0.001,
)
_CARTPOLE_HPARAMS = HParams(learning_rate=1e-4, optimizer_eps=3.125e-4, epsilon_start=0.01, target_period=50)

_ON_CARTPOLE = (
    (
        "c51-cartpole",
        "C51 for CartPole-v0, in the settings that Revisiting Rainbow has for QR-DQN",
        dataclasses.replace(_CARTPOLE, loss="categorical"),
        _CARTPOLE_HPARAMS._replace(v_min=-200.0, v_max=200.0),
    ),
    (
        "qr-dqn-cartpole",
        "QR-DQN for CartPole-v0, in the settings of Revisiting Rainbow (arXiv 2011.14826)",
        dataclasses.replace(_CARTPOLE, loss="quantile"),
        _CARTPOLE_HPARAMS,
    ),
    (
        "iqn-cartpole",
        "IQN for CartPole-v0, in the settings of Revisiting Rainbow (arXiv 2011.14826)",
        dataclasses.replace(_CARTPOLE, loss="implicit_quantile", atoms=32),
        _CARTPOLE_HPARAMS,
    ),
)

DISTRIBUTIONAL_PRESETS = (
    *(
        Preset(name, f"{what}; any game by --env Breakout-v5", config, hparams, criteria_of("Pong-v5"), seeds=1)
        for name, what, config, hparams in _ON_ATARI
    ),
    *(Preset(name, what, config, hparams) for name, what, config, hparams in _ON_CARTPOLE),
)
