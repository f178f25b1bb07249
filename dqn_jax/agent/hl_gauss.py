"""HL-Gauss: values learnt as classes. The target is a number, as DQN's, and the loss a cross-entropy."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dqn_jax.agent.algorithm import Algorithm, Head, Loss, LossFn, Prediction, Streams, TargetFn, Views
from dqn_jax.agent.distributional import categorical_cross_entropy, hl_gauss_probs
from dqn_jax.agent.targets import mean_td_error
from dqn_jax.config import HParams, NetworkSettings, RuleSettings
from dqn_jax.types import Key, Transition


def support(settings: NetworkSettings, hparams: HParams) -> jax.Array:
    """The edges of the classes, `[K + 1]` float32, evenly spaced from v_min to v_max."""
    return jnp.linspace(jnp.float32(hparams.v_min), jnp.float32(hparams.v_max), settings.atoms + 1)


def head(settings: NetworkSettings) -> Head:
    """Logits of the classes for each action; a Q-value is the mean of their middles."""

    def of_features(streams: Streams, features: jax.Array, key: Key, support: jax.Array) -> Prediction:
        del key
        logits = streams(features, (settings.atoms,))
        middles = 0.5 * (support[1:] + support[:-1])
        everyone = jnp.broadcast_to(support, (features.shape[0], settings.atoms + 1))
        return Prediction(jnp.sum(jax.nn.softmax(logits) * middles[None, None], axis=-1), logits, support=everyone)

    return of_features


def loss(settings: RuleSettings, target: TargetFn) -> LossFn:
    """The cross-entropy between the classes of the action taken and those of a Gaussian around the target."""
    del settings

    def of_example(views: Views, transition: Transition, hparams: HParams) -> Loss:
        now, a_tm1 = views.online_tm1, transition.a_tm1
        td_error = mean_td_error(target(views, transition, hparams), views, transition)
        labels = hl_gauss_probs(td_error + now.q_values[a_tm1], now.support, hparams.hl_sigma)
        return Loss(categorical_cross_entropy(jax.lax.stop_gradient(labels), now.atoms[a_tm1]), td_error)

    return of_example


HL_GAUSS = Algorithm(
    name="hl-gauss",
    reference="Farebrother et al. 2024 (arXiv 2403.03950), section 3.1",
    head=head,
    loss=loss,
    support=support,
)
