"""DQN and Double DQN: one Q-value for each action, and the TD error of the action taken."""

from __future__ import annotations

import jax

from dqn_jax.agent.algorithm import Algorithm, Head, Loss, LossFn, TargetFn, Views
from dqn_jax.agent.losses import huber_loss, q_learning, squared_loss
from dqn_jax.agent.networks import q_head
from dqn_jax.agent.targets import mean_td_error
from dqn_jax.config import HParams, NetworkSettings, RuleSettings
from dqn_jax.types import Transition


def head(settings: NetworkSettings) -> Head:
    """One Q-value for each action: nothing in the settings changes that."""
    del settings
    return q_head


def loss(settings: RuleSettings, target: TargetFn) -> LossFn:
    """The squared or Huber loss of the TD error.

    The bootstrap is the target network's greatest Q-value, or with `double` its Q-value of the action that is
    greatest for the online network; other targets are as in `targets`.
    """

    def error(views: Views, transition: Transition, hparams: HParams) -> jax.Array:
        if settings.target == "greedy" and not settings.double:
            q_tm1, q_t = views.online_tm1.q_values, views.target_t.q_values
            return q_learning(q_tm1, transition.a_tm1, transition.r_t, transition.discount_t, q_t)
        return mean_td_error(target(views, transition, hparams), views, transition)

    def of_example(views: Views, transition: Transition, hparams: HParams) -> Loss:
        td_error = error(views, transition, hparams)
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
