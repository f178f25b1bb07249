"""QR-DQN: the distribution of returns, as quantiles of fixed fractions."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dqn_jax.agent.algorithm import Algorithm, Head, Loss, LossFn, Prediction, Streams, Views
from dqn_jax.agent.distributional import (
    quantile_expected_sarsa,
    quantile_mean_over_actions,
    quantile_q_learning,
)
from dqn_jax.agent.targets import TargetFn, mean_td_error
from dqn_jax.config import HParams, NetworkSettings, RuleSettings
from dqn_jax.types import Key, Transition


def head(settings: NetworkSettings) -> Head:
    """Quantiles of the fractions in the middle of K equal parts, for each action; a Q-value is their mean."""
    taus = (jnp.arange(settings.atoms, dtype=jnp.float32) + 0.5) / settings.atoms

    def of_features(streams: Streams, features: jax.Array, key: Key, support: jax.Array) -> Prediction:
        del key, support
        quantiles = streams(features, (settings.atoms,))
        everyone = jnp.broadcast_to(taus, (features.shape[0], settings.atoms))
        return Prediction(jnp.mean(quantiles, axis=-1), quantiles, everyone)

    return of_features


def loss(settings: RuleSettings, target: TargetFn) -> LossFn:
    """Quantile regression, between the quantiles of the action taken and those of the target."""
    over_actions = quantile_mean_over_actions if settings.target == "munchausen" else quantile_expected_sarsa

    def of_example(views: Views, transition: Transition, hparams: HParams) -> Loss:
        aim, now, after = target(views, transition, hparams), views.online_tm1, views.target_t.atoms.T
        example = (now.atoms.T, now.taus, transition.a_tm1, aim.r_t, transition.discount_t)
        if aim.policy is None:
            chooser = aim.q_t_selector[None, :]
            loss = quantile_q_learning(*example, chooser, dist_q_t=after, huber_param=hparams.kappa)
        else:
            probs_a_t, bonus_t = aim.policy
            after = after + bonus_t[None, :]
            loss = over_actions(*example, after, probs_a_t=probs_a_t, huber_param=hparams.kappa)
        return Loss(loss, mean_td_error(aim, views, transition))

    return of_example


QR_DQN = Algorithm(
    name="qr-dqn",
    reference="Dabney, Rowland, Bellemare & Munos 2018 (arXiv 1710.10044), Algorithm 1",
    head=head,
    loss=loss,
)
