"""A new member of the family, all in this file: returns in atoms, a noisy head, and a loss that looks at three views.

The atoms are logits of a distribution over fixed returns, fitted to the two that a target lies between (the two-hot
targets of Schrittwieser et al. 2020, MuZero, appendix F). The next action is chosen by the online network.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from dqn_jax.agent import Algorithm, Loss, Prediction
from dqn_jax.config import Config

RETURNS = jnp.linspace(-4.0, 4.0, 17)
WIDTH = 0.5
NOISE = 0.01


@dataclasses.dataclass(frozen=True)
class Choice(Config):
    """Settings that choose it by its loss."""

    loss: str = "newcomer"


def head(config):
    """Logits `[A, K]`, not the same twice."""

    def of_features(streams, features, key, support):
        logits = streams(features, RETURNS.shape)
        logits = logits + NOISE * jax.random.normal(key, logits.shape)
        return Prediction(jax.nn.softmax(logits) @ RETURNS, atoms=logits)

    return of_features


def loss(config, target):
    """The cross-entropy of the atoms, of one example."""

    def of_example(views, transition, hparams):
        _, a_tm1, r_t, discount_t, _ = transition
        best = jnp.argmax(views.online_t.q_values)
        target = r_t + discount_t * views.target_t.q_values[best]
        two_hot = jnp.maximum(0.0, 1.0 - jnp.abs(RETURNS - jnp.clip(target, RETURNS[0], RETURNS[-1])) / WIDTH)
        log_p = jax.nn.log_softmax(views.online_tm1.atoms[a_tm1])
        return Loss(-jnp.sum(two_hot * log_p), target - views.online_tm1.q_values[a_tm1])

    return of_example


NEWCOMER = Algorithm(
    name="newcomer",
    reference="none",
    head=head,
    loss=loss,
    refuses=(("double", "it always chooses by the online network"),),
)
