"""Presets of the five tutorials: their agents, in our terms."""

from __future__ import annotations

import dataclasses
from typing import Any

from dqn_jax.config import Config, HParams
from dqn_jax.presets.preset import Preset

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


TUTORIALS = (
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
