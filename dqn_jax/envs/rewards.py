"""How large the rewards of an environment can be, where its code says so: what bounds the values of its states."""

from __future__ import annotations

import math
from typing import NamedTuple

from dqn_jax.config import Config

# The largest |reward| of a frame, by full name, read off gymnax's and EnvPool's code.
_OF_A_FRAME = {
    "CartPole-v0": 1.0,
    "CartPole-v1": 1.0,
    "Acrobot-v1": 1.0,
    "MountainCar-v0": 1.0,
    "MountainCarContinuous-v0": 100.0,
    "Pendulum-v1": math.pi**2 + 0.1 * 8.0**2 + 0.001 * 2.0**2,  # angle, speed and torque at their furthest
    "Asterix-MinAtar": 1.0,
    "Breakout-MinAtar": 1.0,
    "Freeway-MinAtar": 1.0,
    "SpaceInvaders-MinAtar": 2.0,  # of ten rows and a shot every five steps: two bullets are under way at most
    "Catch-bsuite": 1.0,
    "DeepSea-bsuite": 1.0,
    "DiscountingChain-bsuite": 1.1,
    "MemoryChain-bsuite": 1.0,
    "SimpleBandit-bsuite": 1.0,
    "UmbrellaChain-bsuite": 1.0,
    "BernoulliBandit-misc": 1.0,
    "FourRooms-misc": 1.0,
    "FrozenLake-misc": 1.0,
    "MetaMaze-misc": 10.0,
    "Pong-misc": 1.0,
    "envpool:CartPole-v0": 1.0,
    "envpool:CartPole-v1": 1.0,
    "envpool:Acrobot-v1": 1.0,
    "envpool:MountainCar-v0": 1.0,
    "Catch-v0": 1.0,
    "CliffWalking-v0": 100.0,
    "CliffWalking-v1": 100.0,
    "FrozenLake-v1": 1.0,
    "FrozenLake8x8-v1": 1.0,
    "Taxi-v3": 20.0,
}
# Which give the same reward at every step that does not begin an episode.
_ALWAYS = {"CartPole-v0": 1.0, "CartPole-v1": 1.0, "envpool:CartPole-v0": 1.0, "envpool:CartPole-v1": 1.0}
# Whose rewards do not depend on their parameters.
_WHATEVER_PARAMS = ("CartPole-v0", "CartPole-v1", "Acrobot-v1", "MountainCar-v0")


class LargestReward(NamedTuple):
    """The largest absolute rewards that an agent can learn from."""

    step: float  # of a step after which the game goes on, or one that ends it without a reward of its own
    end: float  # of a step that terminates, where `terminal_reward` replaces it; else 0


def largest_reward(name: str, config: Config) -> LargestReward | None:
    """How large rewards can be, or None if it is not known.

    Args:
      name: full name of the environment of `config`.
      config: how rewards are summed over held frames, shifted, replaced, scaled and clipped, in this order.
    """
    clip = config.reward_clip
    changed = config.pool_options or (config.env_params and name not in _WHATEVER_PARAMS)
    frame = 1.0 if name.startswith("MiniGrid-") else _OF_A_FRAME.get(name)
    if frame is None or changed:
        return None if clip is None else LargestReward(clip, 0.0)
    step = frame * config.action_repeat
    if config.reward_shift:
        always = config.action_repeat == 1 and name in _ALWAYS
        step = abs(_ALWAYS[name] + config.reward_shift) if always else step + abs(config.reward_shift)
    end = 0.0 if config.terminal_reward is None else abs(config.terminal_reward)
    scaled = (x * abs(config.reward_scale) for x in (step, end))
    return LargestReward(*(x if clip is None else min(x, clip) for x in scaled))
