"""DQN and Double DQN: one Q-value for each action, and the TD error of the action taken."""

from __future__ import annotations

from dqn_jax.agent.algorithm import Algorithm, Head, Loss, LossFn, Views
from dqn_jax.agent.losses import double_q_learning, huber_loss, q_learning, squared_loss
from dqn_jax.agent.networks import q_head
from dqn_jax.config import HParams, NetworkSettings, RuleSettings
from dqn_jax.types import Transition


def head(settings: NetworkSettings) -> Head:
    """One Q-value for each action: nothing in the settings changes that."""
    del settings
    return q_head


def loss(settings: RuleSettings) -> LossFn:
    """The squared or Huber loss of the TD error.

    The bootstrap is the target network's greatest Q-value, or with `double` its Q-value of the action that is
    greatest for the online network.
    """

    def of_example(views: Views, transition: Transition, hparams: HParams) -> Loss:
        q_tm1, q_t = views.online_tm1.q_values, views.target_t.q_values
        a_tm1, r_t, discount_t = transition.a_tm1, transition.r_t, transition.discount_t
        if settings.double:
            td_error = double_q_learning(q_tm1, a_tm1, r_t, discount_t, q_t, views.online_t.q_values)
        else:
            td_error = q_learning(q_tm1, a_tm1, r_t, discount_t, q_t)
        if settings.loss == "huber":
            return Loss(huber_loss(td_error, hparams.huber_delta), td_error)
        return Loss(squared_loss(td_error), td_error)

    return of_example


DQN = Algorithm(
    name="dqn",
    reference="Mnih et al. 2015 (Nature 518:529), Algorithm 1; Double: van Hasselt et al. 2016 (arXiv 1509.06461)",
    head=head,
    loss=loss,
)
