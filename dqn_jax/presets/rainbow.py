"""Presets of Rainbow, and of the family on MinAtar beside it, in the settings of their papers; what differs is said.

`rainbow` is Hessel et al. 2018 (arXiv 1710.02298), table 4. Different here: first weights are those of flax; eight
games at a time, with the paper's four steps to an update; priorities are the cross-entropy in place of the KL
divergence, as in DQN Zoo and Dopamine; evaluations play by the mean weights.

The others are of Obando-Ceron & Castro 2021 (arXiv 2011.14826). Different here: time limits bootstrap; a noise is drawn
anew for every batch (theirs is drawn once and kept); a dueling head takes the mean over actions (theirs over atoms),
and has the last hidden layer twice; Glorot's weights are of dense layers only. On CartPole observations are as they
are, not scaled to [-1, 1]. On MinAtar the convolution is that of Young & Tian 2019, of all planes and without padding
(theirs slides over the planes too); games are gymnax's, of which most have a cap of 1,000 steps; four games at a time,
with their four steps to an update. C51 has no file there: it has the support of their Rainbow and the rest of QR-DQN.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from dqn_jax.config import Config, HParams
from dqn_jax.presets.distributional import DISTRIBUTIONAL_PRESETS
from dqn_jax.presets.preset import Preset
from dqn_jax.presets.protocols import PROTOCOLS
from dqn_jax.presets.thresholds import criteria_of

_KNOWN = {preset.name: preset for preset in DISTRIBUTIONAL_PRESETS}


RAINBOW: dict[str, Any] = {
    "loss": "categorical",
    "double": True,
    "dueling": True,
    "noisy": True,
    "replay": "prioritized",
    "n_step": 3,
}
"""All parts of Rainbow, as settings."""


# 200 million frames. Periods are the paper's in frames, divided by 4 frames a step and 4 steps an update.
_ATARI = Config(
    env="Pong-v5",
    torso="nature",
    hidden=(512,),
    atoms=51,
    num_envs=8,
    batch_size=32,
    replay_capacity=1_000_000,
    min_replay=20_000,
    train_every=4,
    epsilon_schedule="constant",  # at 0: noise explores
    total_steps=50_000_000,
    eval_every=250_000,
    eval_episodes=20,
    **PROTOCOLS["nature"].settings | {"eval_epsilon": 0.0},
)
_ATARI_HPARAMS = HParams(
    learning_rate=6.25e-5,
    optimizer_eps=1.5e-4,
    epsilon_start=0.0,
    target_period=2_000,
    noisy_sigma=0.5,
    priority_exponent=0.5,
    importance_exponent=0.4,
    importance_exponent_end=1.0,
    importance_anneal_updates=12_500_000,
)


def _as_dopamine(hparams: HParams) -> HParams:
    """Priorities that are square roots of losses, weights that are one over the square root of a probability."""
    return hparams._replace(
        priority_exponent=0.5,
        priority_eps=1e-10,
        importance_exponent=0.5,
        importance_exponent_end=0.5,
        noisy_sigma=0.1,  # there 0.1 / sqrt(fan-in) too
    )


_MINATAR = Config(
    env="Breakout-MinAtar",
    torso="minatar",
    hidden=(),  # the head is behind the convolution
    weight_init="glorot_uniform",
    num_envs=4,
    batch_size=32,
    replay_capacity=100_000,
    min_replay=1_000,
    train_every=4,
    epsilon_from="learning",
    sticky_actions=0.1,
    total_steps=10_000_000,
    eval_every=100_000,
    eval_episodes=30,
    eval_epsilon=0.001,
)
_MINATAR_HPARAMS = HParams(
    learning_rate=1e-4,
    optimizer_eps=3.125e-4,
    epsilon_end=0.01,
    epsilon_decay_steps=250_000,
    target_period=250,
)
_MINATAR_SUPPORT = _MINATAR_HPARAMS._replace(v_min=-100.0, v_max=100.0)

_ON_MINATAR = (
    ("dqn-minatar", "DQN", _MINATAR, _MINATAR_HPARAMS._replace(learning_rate=2.5e-4)),
    ("c51-minatar", "C51", dataclasses.replace(_MINATAR, loss="categorical", atoms=51), _MINATAR_SUPPORT),
    ("qr-dqn-minatar", "QR-DQN", dataclasses.replace(_MINATAR, loss="quantile", atoms=51), _MINATAR_HPARAMS),
    ("iqn-minatar", "IQN", dataclasses.replace(_MINATAR, loss="implicit_quantile", atoms=32), _MINATAR_HPARAMS),
    ("rainbow-minatar", "Rainbow", dataclasses.replace(_MINATAR, **RAINBOW), _as_dopamine(_MINATAR_SUPPORT)),
)

RAINBOW_PRESETS = (
    Preset(
        "rainbow",
        "Rainbow of Hessel et al. 2018 (arXiv 1710.02298): all six parts; any game by --env Breakout-v5",
        dataclasses.replace(_ATARI, **RAINBOW),
        _ATARI_HPARAMS,
        criteria_of("Pong-v5"),
        seeds=1,
    ),
    Preset(
        "rainbow-cartpole",
        "Rainbow for CartPole-v0, in the settings of Revisiting Rainbow (arXiv 2011.14826)",
        dataclasses.replace(_KNOWN["c51-cartpole"].config, **RAINBOW),
        _as_dopamine(_KNOWN["c51-cartpole"].hparams),
    ),
    *(
        Preset(
            name,
            f"{what} for MinAtar, in the settings of Revisiting Rainbow (arXiv 2011.14826); any game by --env "
            "Asterix-MinAtar",
            config,
            hparams,
            seeds=4,
        )
        for name, what, config, hparams in _ON_MINATAR
    ),
)
