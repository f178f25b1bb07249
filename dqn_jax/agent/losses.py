"""Temporal-difference errors and element losses: pure functions of ONE example.

Callers `vmap` them over a batch. Signatures and meaning follow the functions of the same names in
rlax, against which they are tested. `tm1` is time t-1, `t` is time t; `discount_t` already includes
the environment's termination mask.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

Array = jax.Array


def q_learning(
    q_tm1: Array,
    a_tm1: Array,
    r_t: Array,
    discount_t: Array,
    q_t: Array,
    *,
    stop_target_gradients: bool = True,
) -> Array:
    """TD error of Q-learning: `r_t + discount_t * max_a q_t[a] - q_tm1[a_tm1]`.

    Args:
      q_tm1: `[num_actions]`, float, Q-values at t-1 (those being learnt).
      a_tm1: `[]`, int, action taken at t-1.
      r_t: `[]`, float, reward.
      discount_t: `[]`, float, discount, 0 where the episode terminated.
      q_t: `[num_actions]`, float, Q-values at t (of the target network where there is one).
      stop_target_gradients: whether the target is a constant for the gradient.

    Returns:
      `[]`, float, the TD error (target minus prediction).

    Raises:
      AssertionError: if a rank or a dtype is not as above.

    Reference: Watkins & Dayan 1992; Mnih et al. 2015 (Nature 518:529), the loss of Algorithm 1.
    """
    chex.assert_rank([q_tm1, a_tm1, r_t, discount_t, q_t], [1, 0, 0, 0, 1])
    chex.assert_type([q_tm1, a_tm1, r_t, discount_t, q_t], [float, int, float, float, float])
    target_tm1 = r_t + discount_t * jnp.max(q_t)
    if stop_target_gradients:
        target_tm1 = jax.lax.stop_gradient(target_tm1)
    return target_tm1 - q_tm1[a_tm1]


def double_q_learning(
    q_tm1: Array,
    a_tm1: Array,
    r_t: Array,
    discount_t: Array,
    q_t_value: Array,
    q_t_selector: Array,
    *,
    stop_target_gradients: bool = True,
) -> Array:
    """TD error of Double Q-learning: `r_t + discount_t * q_t_value[argmax_a q_t_selector[a]] - q_tm1[a_tm1]`.

    Args:
      q_tm1: `[num_actions]`, float, Q-values at t-1.
      a_tm1: `[]`, int, action taken at t-1.
      r_t: `[]`, float, reward.
      discount_t: `[]`, float, discount, 0 where the episode terminated.
      q_t_value: `[num_actions]`, float, Q-values at t that evaluate the chosen action (target network).
      q_t_selector: `[num_actions]`, float, Q-values at t that choose it (online network).
      stop_target_gradients: whether the target is a constant for the gradient.

    Returns:
      `[]`, float, the TD error.

    Raises:
      AssertionError: if a rank or a dtype is not as above.

    Reference: van Hasselt, Guez & Silver 2016 (arXiv 1509.06461), equation 4.
    """
    chex.assert_rank([q_tm1, a_tm1, r_t, discount_t, q_t_value, q_t_selector], [1, 0, 0, 0, 1, 1])
    chex.assert_type(
        [q_tm1, a_tm1, r_t, discount_t, q_t_value, q_t_selector],
        [float, int, float, float, float, float],
    )
    target_tm1 = r_t + discount_t * q_t_value[jnp.argmax(q_t_selector)]
    if stop_target_gradients:
        target_tm1 = jax.lax.stop_gradient(target_tm1)
    return target_tm1 - q_tm1[a_tm1]


def squared_loss(td_error: Array) -> Array:
    """`0.5 * td_error ** 2`, any shape. Its gradient is the TD error itself."""
    return 0.5 * jnp.square(td_error)


def huber_loss(td_error: Array, delta: Array | float = 1.0) -> Array:
    """Huber loss, any shape: quadratic within `delta`, linear beyond, so the gradient is clipped to `+-delta`.

    With `delta=1` it is the error clipping of Mnih et al. 2015 (Methods, "Training algorithm"). It hides
    large errors: on CartPole a fall is an error of about -100, and plain networks then diverge.

    Reference: Huber 1964, equation 1 with k = delta.
    """
    abs_error = jnp.abs(td_error)
    quadratic = jnp.minimum(abs_error, delta)
    return 0.5 * jnp.square(quadratic) + delta * (abs_error - quadratic)


def expected_sarsa(
    q_tm1: Array,
    a_tm1: Array,
    r_t: Array,
    discount_t: Array,
    q_t: Array,
    probs_a_t: Array,
    *,
    stop_target_gradients: bool = True,
) -> Array:
    """TD error of Expected Sarsa: `r_t + discount_t * sum_a probs_a_t[a] q_t[a] - q_tm1[a_tm1]`.

    Args:
      q_tm1: `[num_actions]`, float, Q-values at t-1.
      a_tm1: `[]`, int, action taken at t-1.
      r_t: `[]`, float, reward.
      discount_t: `[]`, float, discount, 0 where the episode terminated.
      q_t: `[num_actions]`, float, Q-values at t (target network).
      probs_a_t: `[num_actions]`, float, probabilities of the policy that is valued.
      stop_target_gradients: whether the target is a constant for the gradient.

    Returns:
      `[]`, float, the TD error.

    Raises:
      AssertionError: if a rank or a dtype is not as above.

    Reference: van Seijen et al. 2009 (A theoretical and empirical analysis of Expected Sarsa), equation 5.
    """
    chex.assert_rank([q_tm1, a_tm1, r_t, discount_t, q_t, probs_a_t], [1, 0, 0, 0, 1, 1])
    chex.assert_type([q_tm1, a_tm1, r_t, discount_t, q_t, probs_a_t], [float, int, float, float, float, float])
    target_tm1 = r_t + discount_t * jnp.sum(probs_a_t * q_t)
    if stop_target_gradients:
        target_tm1 = jax.lax.stop_gradient(target_tm1)
    return target_tm1 - q_tm1[a_tm1]


def scaled_log_softmax(q: Array, temperature: Array | float) -> Array:
    """`temperature * log softmax(q / temperature)`, `[num_actions]`: near 0 for the greatest, else its shortfall.

    The greatest is taken off first, so that a small temperature loses no digits: Vieillard et al. 2020
    (arXiv 2007.14430), appendix B.1.
    """
    q = q - jnp.max(q)
    return temperature * jax.nn.log_softmax(q / temperature)
