"""Presets for Atari: DQN in the settings of its papers, and one that is fast on Pong."""

from __future__ import annotations

import dataclasses

from dqn_jax.config import Config, HParams
from dqn_jax.presets.preset import Preset
from dqn_jax.presets.protocols import PROTOCOLS
from dqn_jax.presets.thresholds import criteria_of

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
ATARI_HPARAMS = HParams(
    learning_rate=6.25e-5,
    optimizer_eps=1.5e-4,
    epsilon_end=0.01,
    epsilon_decay_steps=250_000,
    target_period=2_000,
)
_OF_GAMES = tuple(
    Preset(
        name,
        f"{env} from pixels, 10 million frames: Nature DQN with Adam; converged at 50 % of human",
        dataclasses.replace(_ATARI, env=env),
        ATARI_HPARAMS,
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
_OF_PAPERS = (
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

ATARI_PRESETS = (*_OF_GAMES, _PONG_FAST, *_OF_PAPERS)
