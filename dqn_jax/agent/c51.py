"""C51: the distribution of returns, as probabilities of fixed atoms."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dqn_jax.agent.algorithm import Algorithm, Head, Loss, LossFn, Prediction, Streams, Views
from dqn_jax.agent.distributional import categorical_double_q_learning, categorical_expected_sarsa
from dqn_jax.agent.targets import TargetFn, mean_td_error
from dqn_jax.config import HParams, NetworkSettings, RuleSettings
from dqn_jax.types import Key, Transition


def support(settings: NetworkSettings, hparams: HParams) -> jax.Array:
    """The atoms, `[K]` float32, evenly spaced from v_min to v_max."""
    return jnp.linspace(jnp.float32(hparams.v_min), jnp.float32(hparams.v_max), settings.atoms)


def head(settings: NetworkSettings) -> Head:
    """Logits of the atoms for each action; a Q-value is the mean of its distribution."""

    def of_features(streams: Streams, features: jax.Array, key: Key, support: jax.Array) -> Prediction:
        del key
        logits = streams(features, (settings.atoms,))
        everyone = jnp.broadcast_to(support, (features.shape[0], settings.atoms))
        return Prediction(jnp.sum(jax.nn.softmax(logits) * support[None, None], axis=-1), logits, support=everyone)

    return of_features


def loss(settings: RuleSettings, target: TargetFn) -> LossFn:
    """The cross-entropy of the projected target, which is also what a prioritised replay draws by.

    That is what DQN Zoo and Dopamine do; Hessel et al. 2018 write of the KL divergence, which is less by the entropy of
    the target.
    """
    del settings

    def of_example(views: Views, transition: Transition, hparams: HParams) -> Loss:
        aim, now, after = target(views, transition, hparams), views.online_tm1, views.target_t
        example = (now.support, now.atoms, transition.a_tm1, aim.r_t, transition.discount_t)
        if aim.policy is None:
            loss = categorical_double_q_learning(
                *example, after.support, q_logits_t=after.atoms, q_t_selector=aim.q_t_selector
            )
        else:
            probs_a_t, bonus_t = aim.policy
            atoms_t = after.support[None, :] + bonus_t[:, None]
            loss = categorical_expected_sarsa(*example, atoms_t, q_logits_t=after.atoms, probs_a_t=probs_a_t)
        return Loss(loss, mean_td_error(aim, views, transition), priority=loss)

    return of_example


C51 = Algorithm(
    name="c51",
    reference="Bellemare, Dabney & Munos 2017 (arXiv 1707.06887), Algorithm 1",
    head=head,
    loss=loss,
    support=support,
)
