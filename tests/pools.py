"""Small settings over pools: vectors without pictures, and pictures."""

from __future__ import annotations

from dqn_jax.config import Config

# Episodes of CartPole under a random policy end every 20 steps or so; 7 updates do not divide anything.
CARTPOLE = Config(
    env="envpool:CartPole-v1",
    hidden=(8,),
    num_envs=4,
    batch_size=8,
    replay_capacity=400,
    min_replay=50,
    train_every=7,
    updates_per_train=2,
    n_step=3,
    total_steps=600,
    eval_every=180,
    eval_episodes=3,
    pool_threads=1,
)
PONG = Config(
    env="Pong-v5",
    torso="dqn2013",
    hidden=(8,),
    frame_size=36,
    frame_stack=3,
    action_repeat=4,
    num_envs=2,
    batch_size=4,
    replay_capacity=300,
    min_replay=20,
    train_every=4,
    total_steps=120,
    eval_every=50,
    eval_episodes=2,
    max_episode_steps=80,
    reward_clip=1.0,
    pool_threads=1,
)
