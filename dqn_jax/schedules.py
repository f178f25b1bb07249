"""Exploration schedules: epsilon as a pure function of how far training is."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dqn_jax.config import Config, HParams


def epsilon_at(config: Config, hparams: HParams, count: jax.Array) -> jax.Array:
    """Epsilon after `count` units of `config.epsilon_unit`.

    linear: `start + (end - start) * min(count / decay_steps, 1)`;
    multiplicative: `max(end, start * decay ** count)`; constant: `start`.

    Args:
      count: `[]`, int32.

    Returns:
      `[]`, float32.
    """
    start, end = jnp.float32(hparams.epsilon_start), jnp.float32(hparams.epsilon_end)
    count = jnp.asarray(count, jnp.float32)
    if config.epsilon_schedule == "constant":
        return start
    if config.epsilon_schedule == "linear":
        return start + (end - start) * jnp.minimum(count / hparams.epsilon_decay_steps, 1.0)
    # A floor above the start would otherwise raise epsilon at once.
    return jnp.maximum(jnp.minimum(end, start), start * jnp.float32(hparams.epsilon_decay) ** count)
