"""Schedules: exploration and step size as pure functions of how far training is."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dqn_jax.config import ExplorationSettings, HParams


def epsilon_at(config: ExplorationSettings, hparams: HParams, count: jax.Array) -> jax.Array:
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


def learning_rate_at(hparams: HParams, updates: jax.Array) -> jax.Array:
    """Step size of the update after `updates` (`[]`, int32): constant, or linear down to `learning_rate_end`."""
    start = jnp.float32(hparams.learning_rate)
    if hparams.learning_rate_end is None:
        return start
    done = jnp.minimum(jnp.asarray(updates, jnp.float32) / hparams.learning_rate_decay_updates, 1.0)
    return start + (jnp.float32(hparams.learning_rate_end) - start) * done
