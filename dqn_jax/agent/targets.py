"""Targets: what a step is said to be worth, in a form that every loss of the family can take.

Each is a reward, what the target adds included, and a choice among the next actions: the greatest of some values, or a
mean over actions under a policy, each with a bonus of its own. A loss puts the returns of those actions in.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dqn_jax.agent.algorithm import Policy, Target, TargetFn, Views
from dqn_jax.agent.losses import double_q_learning, expected_sarsa, scaled_log_softmax
from dqn_jax.config import ExplorationSettings, HParams, RuleSettings
from dqn_jax.types import Transition


def target_for(settings: RuleSettings, exploration: ExplorationSettings) -> TargetFn:
    """The target that the settings name."""

    def selector(views: Views) -> jax.Array:
        return (views.online_t if settings.double else views.target_t).q_values

    def greedy(views: Views, transition: Transition, hparams: HParams) -> Target:
        """Watkins & Dayan 1992; with `double` van Hasselt et al. 2016 (arXiv 1509.06461), equation 4."""
        del hparams
        return Target(transition.r_t, selector(views))

    def sarsa(views: Views, transition: Transition, hparams: HParams) -> Target:
        """Expected Sarsa of the policy that exploration ends with: van Seijen et al. 2009, equation 5."""
        last = hparams.epsilon_start if exploration.epsilon_schedule == "constant" else hparams.epsilon_end
        q_t = selector(views)
        if exploration.exploration == "boltzmann":
            otherwise = jax.nn.softmax(q_t / hparams.temperature)
        else:
            otherwise = jax.nn.one_hot(jnp.argmax(q_t), q_t.shape[0])
        policy = Policy((1.0 - last) * otherwise + last / q_t.shape[0], jnp.zeros_like(q_t))
        return Target(transition.r_t, q_t, policy)

    def munchausen(views: Views, transition: Transition, hparams: HParams) -> Target:
        """Vieillard, Pietquin & Geist 2020 (arXiv 2007.14430), equation 2, the log-policy clipped as in section 3."""
        temperature, q_t = hparams.munchausen_temperature, views.target_t.q_values
        log_pi_tm1 = scaled_log_softmax(views.target_tm1.q_values, temperature)[transition.a_tm1]
        r_t = transition.r_t + hparams.munchausen_alpha * jnp.clip(log_pi_tm1, hparams.munchausen_clip, 0.0)
        log_pi_t = scaled_log_softmax(q_t, temperature)
        return Target(r_t, q_t, Policy(jnp.exp(log_pi_t / temperature), -log_pi_t))

    def advantage(views: Views, transition: Transition, hparams: HParams) -> Target:
        """Advantage learning: Bellemare et al. 2016 (arXiv 1512.04860), equation 7 with `advantage_alpha` for alpha."""
        q_tm1 = views.target_tm1.q_values
        gap = jnp.max(q_tm1) - q_tm1[transition.a_tm1]
        return Target(transition.r_t - hparams.advantage_alpha * gap, selector(views))

    table = {"greedy": greedy, "expected_sarsa": sarsa, "munchausen": munchausen, "advantage": advantage}
    return table[settings.target]


def mean_td_error(target: Target, views: Views, transition: Transition) -> jax.Array:
    """TD error of the mean returns of one example, `[]` float32: target minus prediction."""
    q_tm1, q_t = views.online_tm1.q_values, views.target_t.q_values
    a_tm1, discount_t = transition.a_tm1, transition.discount_t
    if target.policy is None:
        return double_q_learning(q_tm1, a_tm1, target.r_t, discount_t, q_t, target.q_t_selector)
    probs_a_t, bonus_t = target.policy
    return expected_sarsa(q_tm1, a_tm1, target.r_t, discount_t, q_t + bonus_t, probs_a_t)
