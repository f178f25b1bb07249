"""Losses of distributions of returns: pure functions of ONE example, in the signatures of rlax where it has them.

`K` is the atoms or quantiles of a prediction, `J` those of a target. Targets are constants for the gradient. What would
come after the sixth argument is given by its name.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from dqn_jax.agent.losses import huber_loss

Array = jax.Array


def categorical_l2_project(z_p: Array, probs: Array, z_q: Array) -> Array:
    """The distribution on `z_q` nearest to (`z_p`, `probs`): what lies between two atoms is shared by nearness.

    Args:
      z_p: `[J]`, float, where the distribution is; what lies outside `z_q` goes to its ends.
      probs: `[J]`, float, its probabilities.
      z_q: `[K]`, float, the support, ascending and evenly spaced.

    Returns:
      `[K]`, float, probabilities.

    Raises:
      AssertionError: if a rank or a dtype is not as above.

    Reference: Bellemare, Dabney & Munos 2017 (arXiv 1707.06887), equation 7; it is the nearest by Cramer's distance:
    Rowland et al. 2018 (arXiv 1802.08163), proposition 1.
    """
    chex.assert_rank([z_p, probs, z_q], 1)
    chex.assert_type([z_p, probs, z_q], float)
    # Distances in spacings, for the support is even: one hat over each atom, no search for neighbours.
    spacings = (z_q.shape[0] - 1) / (z_q[-1] - z_q[0])
    away = spacings * jnp.abs(jnp.clip(z_p, z_q[0], z_q[-1])[None, :] - z_q[:, None])
    return jnp.sum(jnp.maximum(1.0 - away, 0.0) * probs[None, :], axis=-1)


def categorical_cross_entropy(labels: Array, logits: Array) -> Array:
    """`-sum_k labels[k] log softmax(logits)[k]`, `[]`, of `labels` `[K]` that sum to one and `logits` `[K]`."""
    chex.assert_rank([labels, logits], 1)
    return -jnp.sum(labels * jax.nn.log_softmax(logits))


def categorical_double_q_learning(
    q_atoms_tm1: Array,
    q_logits_tm1: Array,
    a_tm1: Array,
    r_t: Array,
    discount_t: Array,
    q_atoms_t: Array,
    *,
    q_logits_t: Array,
    q_t_selector: Array,
) -> Array:
    """Cross-entropy of the returns of the next action that is greatest for `q_t_selector`, taken a step back.

    Args:
      q_atoms_tm1: `[K]`, float, support at t-1, evenly spaced.
      q_logits_tm1: `[num_actions, K]`, float, logits at t-1 (those being learnt).
      a_tm1: `[]`, int, action taken at t-1.
      r_t: `[]`, float, reward.
      discount_t: `[]`, float, discount, 0 where the episode terminated.
      q_atoms_t: `[J]`, float, support at t.
      q_logits_t: `[num_actions, J]`, float, logits at t (target network).
      q_t_selector: `[num_actions]`, float, Q-values that choose the next action: means of the same logits (C51), or
        the online network's (Double).

    Returns:
      `[]`, float, the loss.

    Raises:
      AssertionError: if a rank or a dtype is not as above.

    Reference: Bellemare, Dabney & Munos 2017 (arXiv 1707.06887), Algorithm 1.
    """
    chex.assert_rank([q_atoms_tm1, q_logits_tm1, a_tm1, r_t, discount_t, q_atoms_t], [1, 2, 0, 0, 0, 1])
    chex.assert_rank([q_logits_t, q_t_selector], [2, 1])
    chex.assert_type([q_atoms_tm1, q_logits_tm1, a_tm1, r_t, discount_t], [float, float, int, float, float])
    probs_t = jax.nn.softmax(q_logits_t[jnp.argmax(q_t_selector)])
    target = categorical_l2_project(r_t + discount_t * q_atoms_t, probs_t, q_atoms_tm1)
    return categorical_cross_entropy(jax.lax.stop_gradient(target), q_logits_tm1[a_tm1])


def categorical_expected_sarsa(
    q_atoms_tm1: Array,
    q_logits_tm1: Array,
    a_tm1: Array,
    r_t: Array,
    discount_t: Array,
    q_atoms_t: Array,
    *,
    q_logits_t: Array,
    probs_a_t: Array,
) -> Array:
    """Cross-entropy of the returns of a next action drawn from a policy, taken a step back.

    Args:
      q_atoms_tm1: `[K]`, float, support at t-1, evenly spaced.
      q_logits_tm1: `[num_actions, K]`, float, logits at t-1 (those being learnt).
      a_tm1: `[]`, int, action taken at t-1.
      r_t: `[]`, float, reward.
      discount_t: `[]`, float, discount, 0 where the episode terminated.
      q_atoms_t: `[num_actions, J]`, float, returns at t, by action: an action may have a bonus of its own.
      q_logits_t: `[num_actions, J]`, float, logits at t (target network).
      probs_a_t: `[num_actions]`, float, probabilities of the policy.

    Returns:
      `[]`, float, the loss.

    Raises:
      AssertionError: if a rank is not as above.

    Reference: Bellemare, Dabney & Munos 2017 (arXiv 1707.06887), section 3.3: the distribution over next states and
    actions is a mixture, and its projection that of its parts.
    """
    chex.assert_rank([q_atoms_tm1, q_logits_tm1, a_tm1, r_t, discount_t, q_atoms_t], [1, 2, 0, 0, 0, 2])
    chex.assert_rank([q_logits_t, probs_a_t], [2, 1])
    probs_t = probs_a_t[:, None] * jax.nn.softmax(q_logits_t)
    target = categorical_l2_project((r_t + discount_t * q_atoms_t).reshape(-1), probs_t.reshape(-1), q_atoms_tm1)
    return categorical_cross_entropy(jax.lax.stop_gradient(target), q_logits_tm1[a_tm1])


def hl_gauss_probs(target: Array, edges: Array, sigma: Array | float) -> Array:
    """What a Gaussian around `target` gives to each class, as shares of what it gives to all of them.

    Args:
      target: `[]`, float, a value; outside the edges it counts as the nearest of them.
      edges: `[K + 1]`, float, ascending, evenly spaced: class k is between edges k and k + 1.
      sigma: `[]`, float, standard deviation in widths of a class, positive.

    Returns:
      `[K]`, float, sums to one.

    Raises:
      AssertionError: if a rank is not as above.

    Reference: Farebrother et al. 2024 (arXiv 2403.03950), section 3.1, equation 3.
    """
    chex.assert_rank([target, edges], [0, 1])
    width = (edges[-1] - edges[0]) / (edges.shape[0] - 1)
    away = (edges - jnp.clip(target, edges[0], edges[-1])) / (sigma * width)
    below = jax.scipy.stats.norm.cdf(away)
    return (below[1:] - below[:-1]) / (below[-1] - below[0])


def quantile_regression_loss(
    dist_src: Array, tau_src: Array, dist_target: Array, huber_param: Array | float = 0.0
) -> Array:
    """Huber loss of each quantile against each sample of a target, weighted by the side that the sample is on.

    `sum_i mean_j |tau_i - 1{u_ij < 0}| L(u_ij)` with `u_ij = dist_target[j] - dist_src[i]`; `L` is the Huber loss, not
    divided by `huber_param`, or the absolute value where that is 0.

    Args:
      dist_src: `[K]`, float, quantiles (those being learnt).
      tau_src: `[K]`, float, the fractions that they are of.
      dist_target: `[J]`, float, samples of the target, a constant for the gradient.
      huber_param: `[]`, float, where the loss becomes linear, 0 or more.

    Returns:
      `[]`, float, the loss.

    Raises:
      AssertionError: if a rank is not as above.

    Reference: Dabney, Rowland, Bellemare & Munos 2018 (arXiv 1710.10044), equations 8 to 10.
    """
    chex.assert_rank([dist_src, tau_src, dist_target], 1)
    delta = jax.lax.stop_gradient(dist_target)[None, :] - dist_src[:, None]
    weight = jnp.abs(tau_src[:, None] - (delta < 0.0))
    # Both, and a choice: lanes differ in it.
    loss = jnp.where(huber_param > 0.0, huber_loss(delta, huber_param), jnp.abs(delta))
    return jnp.sum(jnp.mean(weight * loss, axis=-1))


def quantile_q_learning(
    dist_q_tm1: Array,
    tau_q_tm1: Array,
    a_tm1: Array,
    r_t: Array,
    discount_t: Array,
    dist_q_t_selector: Array,
    *,
    dist_q_t: Array,
    huber_param: Array | float = 0.0,
) -> Array:
    """Quantile regression to the returns of the next action whose quantiles in `dist_q_t_selector` have most mean.

    Args:
      dist_q_tm1: `[K, num_actions]`, float, quantiles at t-1 (those being learnt).
      tau_q_tm1: `[K]`, float, the fractions that they are of.
      a_tm1: `[]`, int, action taken at t-1.
      r_t: `[]`, float, reward.
      discount_t: `[]`, float, discount, 0 where the episode terminated.
      dist_q_t_selector: `[I, num_actions]`, float, quantiles at t that choose the next action.
      dist_q_t: `[J, num_actions]`, float, quantiles at t (target network).
      huber_param: `[]`, float, where the loss becomes linear, 0 or more.

    Returns:
      `[]`, float, the loss.

    Raises:
      AssertionError: if a rank or a dtype is not as above.

    Reference: Dabney, Rowland, Bellemare & Munos 2018 (arXiv 1710.10044), Algorithm 1.
    """
    chex.assert_rank([dist_q_tm1, tau_q_tm1, a_tm1, r_t, discount_t, dist_q_t_selector], [2, 1, 0, 0, 0, 2])
    chex.assert_rank(dist_q_t, 2)
    chex.assert_type([dist_q_tm1, tau_q_tm1, a_tm1, r_t, discount_t], [float, float, int, float, float])
    best = jnp.argmax(jnp.mean(dist_q_t_selector, axis=0))
    return quantile_regression_loss(dist_q_tm1[:, a_tm1], tau_q_tm1, r_t + discount_t * dist_q_t[:, best], huber_param)


def quantile_expected_sarsa(
    dist_q_tm1: Array,
    tau_q_tm1: Array,
    a_tm1: Array,
    r_t: Array,
    discount_t: Array,
    dist_q_t: Array,
    *,
    probs_a_t: Array,
    huber_param: Array | float = 0.0,
) -> Array:
    """Quantile regression to the returns of a next action drawn from a policy: a mixture, not their mean.

    Args:
      dist_q_tm1: `[K, num_actions]`, float, quantiles at t-1 (those being learnt).
      tau_q_tm1: `[K]`, float, the fractions that they are of.
      a_tm1: `[]`, int, action taken at t-1.
      r_t: `[]`, float, reward.
      discount_t: `[]`, float, discount, 0 where the episode terminated.
      dist_q_t: `[J, num_actions]`, float, quantiles at t (target network).
      probs_a_t: `[num_actions]`, float, probabilities of the policy.
      huber_param: `[]`, float, where the loss becomes linear, 0 or more.

    Returns:
      `[]`, float, the loss.

    Raises:
      AssertionError: if a rank is not as above.

    Reference: Dabney, Rowland, Bellemare & Munos 2018 (arXiv 1710.10044), equation 10, for the target that
    van Seijen et al. 2009 take the mean of.
    """
    chex.assert_rank([dist_q_tm1, tau_q_tm1, a_tm1, r_t, discount_t, dist_q_t], [2, 1, 0, 0, 0, 2])
    chex.assert_rank(probs_a_t, 1)
    targets, own = r_t + discount_t * dist_q_t, dist_q_tm1[:, a_tm1]
    of_action = jax.vmap(lambda target: quantile_regression_loss(own, tau_q_tm1, target, huber_param), in_axes=1)
    return jnp.sum(probs_a_t * of_action(targets))


def quantile_mean_over_actions(
    dist_q_tm1: Array,
    tau_q_tm1: Array,
    a_tm1: Array,
    r_t: Array,
    discount_t: Array,
    dist_q_t: Array,
    *,
    probs_a_t: Array,
    huber_param: Array | float = 0.0,
) -> Array:
    """Quantile regression to the mean over next actions, quantile by quantile: what Munchausen's IQN learns.

    Arguments, result and errors are those of `quantile_expected_sarsa`; `dist_q_t` has the bonus of each action in it.

    Reference: Vieillard, Pietquin & Geist 2020 (arXiv 2007.14430), section 4.2 and its authors' implementation.
    """
    chex.assert_rank([dist_q_tm1, tau_q_tm1, a_tm1, r_t, discount_t, dist_q_t], [2, 1, 0, 0, 0, 2])
    chex.assert_rank(probs_a_t, 1)
    target = r_t + discount_t * jnp.sum(dist_q_t * probs_a_t[None, :], axis=1)
    return quantile_regression_loss(dist_q_tm1[:, a_tm1], tau_q_tm1, target, huber_param)
