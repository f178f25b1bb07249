"""IQN: the distribution of returns, as its quantiles at fractions that are drawn anew for each look at it."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from dqn_jax.agent import qr_dqn
from dqn_jax.agent.algorithm import Algorithm, Head, Prediction, Streams
from dqn_jax.config import NetworkSettings
from dqn_jax.types import Key

COSINES = 64  # n of equation 4, as in the paper


def head(settings: NetworkSettings) -> Head:
    """Quantiles of K fractions drawn for each row, for each action; a Q-value is their mean.

    What the network makes of an observation is multiplied by what is made of the cosines of a fraction (equation 4):
    what a torso of convolutions gives, or the last hidden layer of an MLP, as Obando-Ceron & Castro 2021 have it (arXiv
    2011.14826). With `dueling` an MLP's last hidden layer comes behind it, for it is in both streams.
    """

    def of_features(streams: Streams, features: jax.Array, key: Key, support: jax.Array) -> Prediction:
        del support
        rows, width = features.shape
        taus = jax.random.uniform(key, (rows, settings.atoms))
        angles = jnp.pi * jnp.arange(COSINES, dtype=jnp.float32)
        cosines = jnp.cos(taus[:, :, None] * angles[None, None])
        embedding = nn.relu(nn.Dense(width, name="Cosines", dtype=features.dtype)(cosines.astype(features.dtype)))
        quantiles = streams(features[:, None] * embedding)  # [B, K, A]
        quantiles = jnp.swapaxes(quantiles, 1, 2)
        return Prediction(jnp.mean(quantiles, axis=-1), quantiles, taus)

    return of_features


IQN = Algorithm(
    name="iqn",
    reference="Dabney, Ostrovski, Silver & Munos 2018 (arXiv 1806.06923), equations 3 and 4",
    head=head,
    loss=qr_dqn.loss,  # the same quantile regression, at the fractions drawn
)
