"""Presets under the names of papers of the DQN family, in their published settings; what differs here is said.

PQN: Gallici et al. 2024 (arXiv 2407.04811), settings of its own code (PureJaxQL: pqn_cartpole, pqn_minatar and
pqn_atari.yaml). Different here, in all three: a time limit bootstraps (there it is a termination); the step before the
last of a rollout is valued by its own next observation (there by the one after); exploration falls at every step and
not from rollout to rollout; first weights of convolutions are those of flax.
`pqn-hadamax` is the same with the torso of Kooi et al. 2025 (arXiv 2505.15345), whose convolutions have the first
weights of the authors' code.
"""

from __future__ import annotations

import dataclasses

from dqn_jax.config import Config, HParams
from dqn_jax.presets.atari import ATARI_PRESETS
from dqn_jax.presets.classic import CLASSIC_PRESETS
from dqn_jax.presets.preset import Preset
from dqn_jax.presets.protocols import PROTOCOLS
from dqn_jax.presets.thresholds import criteria_of

# Neither replay nor target network: each rollout is learnt from in shuffled passes, and then never again.
_PQN = Config(
    env="Pong-v5",
    replay="rollout",
    num_envs=128,
    rollout_length=32,
    minibatch_size=128,
    updates_per_train=2,
    target_network=False,
    layer_norm=True,
    optimizer="radam",
    min_replay=0,
)
_PQN_HPARAMS = HParams(learning_rate=2.5e-4, max_grad_norm=10.0, trace_decay=0.65)

# Prioritised replay: Schaul et al. 2016 (arXiv 1511.05952), Double DQN with a quarter of its step size (and so of the
# square root of RMSProp's 0.01, as in DQN Zoo); importance is annealed over all updates.
_KNOWN = {preset.name: preset for preset in (*ATARI_PRESETS, *CLASSIC_PRESETS)}
_DOUBLE, _CARTPOLE = _KNOWN["double-dqn"], _KNOWN["cartpole"]
_PRIORITIZED = (
    dataclasses.replace(
        _DOUBLE,
        name="prioritized",
        summary="Prioritised replay of Schaul et al. 2016 (arXiv 1511.05952), with Double DQN; any game by --env",
        config=dataclasses.replace(_DOUBLE.config, replay="prioritized"),
        hparams=_DOUBLE.hparams._replace(
            learning_rate=6.25e-5,
            optimizer_eps=0.01 / 32**2 / 16,
            importance_anneal_updates=12_500_000,
        ),
    ),
    dataclasses.replace(
        _CARTPOLE,
        name="prioritized-cartpole",
        summary="CartPole-v1 in the settings of 'cartpole', drawn by priority; not tuned for it",
        config=dataclasses.replace(_CARTPOLE.config, replay="prioritized"),
        hparams=_CARTPOLE.hparams._replace(importance_anneal_updates=40_000),
    ),
)

_PQN_ATARI = Preset(
    "pqn",
    "PQN of Gallici et al. 2024 (arXiv 2407.04811), 200 million frames; any game by --env Breakout-v5",
    dataclasses.replace(
        _PQN,
        torso="nature",
        hidden=(512,),
        weight_init="he_normal",
        total_steps=50_000_000,
        eval_every=245_760,  # 60 rollouts
        eval_episodes=8,
        # EnvPool's episodic_life and FIRE, as there; its own cap of half an hour, and greedy evaluations.
        **PROTOCOLS["cleanrl"].settings | {"max_episode_steps": 108_000, "eval_epsilon": 0.0},
    ),
    _PQN_HPARAMS._replace(epsilon_end=0.001, epsilon_decay_steps=5_000_000),
    criteria_of("Pong-v5"),
    seeds=1,
)

FAMILY_PRESETS = (
    *_PRIORITIZED,
    _PQN_ATARI,
    dataclasses.replace(
        _PQN_ATARI,
        name="pqn-hadamax",
        summary="PQN with the Hadamax encoder of Kooi et al. 2025 (arXiv 2505.15345); any game by --env Breakout-v5",
        config=dataclasses.replace(_PQN_ATARI.config, torso="hadamax", activation="gelu"),
    ),
    Preset(
        "pqn-minatar",
        "PQN of Gallici et al. 2024 for MinAtar, 10 million steps; any game by --env Asterix-MinAtar",
        dataclasses.replace(
            _PQN,
            env="Breakout-MinAtar",
            torso="minatar",
            hidden=(128,),
            weight_init="he_normal",  # of the last layer too, there lecun_normal; planes are 0 or 1, there 0 or 1/255
            total_steps=10_000_000,
            eval_every=491_520,  # 120 rollouts
            eval_episodes=128,
        ),
        _PQN_HPARAMS._replace(
            learning_rate=5e-4,
            learning_rate_end=0.0,
            learning_rate_decay_updates=156_224,  # 2,441 rollouts of 64 updates
            epsilon_decay_steps=1_000_000,
        ),
        seeds=4,
    ),
    Preset(
        "pqn-cartpole",
        "PQN of Gallici et al. 2024 for CartPole-v1, half a million steps in seconds",
        dataclasses.replace(
            _PQN,
            env="CartPole-v1",
            hidden=(256, 256),
            num_envs=32,
            rollout_length=64,
            updates_per_train=4,
            reward_scale=0.1,
            total_steps=500_000,
            eval_every=20_480,  # 10 rollouts
            eval_episodes=128,
        ),
        _PQN_HPARAMS._replace(
            learning_rate=1e-4,
            learning_rate_end=0.0,
            learning_rate_decay_updates=15_616,  # 244 rollouts of 64 updates
            epsilon_end=0.2,
            epsilon_decay_steps=100_000,
            trace_decay=0.95,
        ),
    ),
)
