"""What no Q-value can be: where rewards are bounded, so is every sum of discounted rewards."""

from __future__ import annotations

import numpy as np

from dqn_jax.config import Config, HParams
from dqn_jax.envs.names import resolve_env
from dqn_jax.envs.rewards import largest_reward


def value_bound(config: Config, hparams: HParams, lanes: int) -> np.ndarray:
    """The largest absolute value that a policy can have, however many steps are summed before the bootstrap.

    With rewards of at most `r` for ever it is `r / (1 - discount)`; a last reward of `e` after T steps makes of it a
    mean of that and `e`, with weights `1 - discount ** T` and `discount ** T`, and so at most the larger one.

    A mean Q-value above it is no estimate of anything: the bootstrap feeds on its own errors (Mnih et al. 2015 clip
    for this reason; van Hasselt et al. 2018, arXiv 1812.02648, call such values "soft divergence").

    Args:
      config: of the run.
      hparams: its discount is a scalar or `[lanes]`.
      lanes: L.

    Returns:
      `[L]`, float64; NaN where nothing bounds the rewards, or nothing is discounted.
    """
    reward = largest_reward(resolve_env(config.env), config)
    discount = np.broadcast_to(np.asarray(hparams.discount, np.float64), (lanes,))
    if reward is None:
        return np.full(lanes, np.nan)
    for_ever = reward.step / np.maximum(1.0 - discount, np.finfo(float).tiny)
    return np.where(discount < 1.0, np.maximum(for_ever, reward.end), np.nan)
