"""What a member of the DQN family is: a head and a loss of one example. Each has a file and a line in `algorithms`.

Shapes are those of ONE observation or example; the learner adds the batch by `vmap`. `A` is actions, `K` is atoms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax

from dqn_jax.config import HParams, NetworkSettings, RuleSettings
from dqn_jax.types import Key, PyTree, Transition


class Prediction(NamedTuple):
    """What a network says of an observation. Acting, evaluation and films read `q_values` and nothing else."""

    q_values: jax.Array  # [A], float32, the expected return of each action
    atoms: PyTree = ()  # [A, K], float32, of a distribution: logits (C51, HL-Gauss), quantiles (QR-DQN, IQN); else ()
    taus: PyTree = ()  # [K], float32, the fractions that quantiles are of; else ()
    support: PyTree = ()  # the returns that logits are for, [K] (C51), or between which they are, [K + 1] (HL-Gauss)


class Views(NamedTuple):
    """What a loss may look at: the observation acted on (`tm1`) and the next (`t`), by both networks.

    Gradients flow through `online_tm1` alone. Without a target network the online one takes its place. XLA removes
    the views that a loss does not read.
    """

    online_tm1: Prediction  # what is learnt
    target_tm1: Prediction  # for Munchausen's log-policy of the action taken
    online_t: Prediction  # for Double Q-learning's choice of the next action
    target_t: Prediction  # for the bootstrap


class Policy(NamedTuple):
    """A policy over next actions, for targets that average."""

    probs_a_t: jax.Array  # [A], float32, sums to one
    bonus_t: jax.Array  # [A], float32, added to the return of each action


class Target(NamedTuple):
    """What the target of one example is made of, beside the returns of the next actions: constants for the gradient.

    `r_t + discount_t * return of the action with the greatest q_t_selector`, or, with a policy,
    `r_t + discount_t * (return of an action a drawn from the policy + its bonus)`.
    """

    r_t: jax.Array  # [], float32, the reward, with what the target adds
    q_t_selector: jax.Array  # [A], float32
    policy: Policy | None = None  # None where the greatest is chosen


class TargetFn(Protocol):
    """The target of one example, without leading axes; `targets` has them."""

    def __call__(self, views: Views, transition: Transition, hparams: HParams, /) -> Target: ...


class Loss(NamedTuple):
    """What a loss gives of one example."""

    loss: jax.Array  # [], float32, what is minimised, before the example's weight
    td_error: jax.Array  # [], float32, target minus prediction
    priority: jax.Array | None = None  # [], float32, what a prioritised replay draws by; None for the TD error


class LossFn(Protocol):
    """The loss of one example: a pure function, whose gradient the learner takes in the weights of `online_tm1`.

    The transition has no leading axis, and its `discount_t` is the whole discount of the bootstrap, the agent's
    factor included: 0 where the episode terminated.
    """

    def __call__(self, views: Views, transition: Transition, hparams: HParams, /) -> Loss: ...


class Streams(Protocol):
    """The dense layers behind the torso, dueling or not: features `[..., F]` to `[..., A, *shape]`, float32.

    It makes layers: a head calls it once.
    """

    def __call__(self, features: jax.Array, shape: tuple[int, ...] = (), /) -> jax.Array: ...


class Head(Protocol):
    """From the torso's features `[B, F]` to predictions with leaves `[B, ...]`.

    A plain function, called in the network's compact scope: layers that it makes are the network's. `key` is for
    what it draws, such as fractions or noise; `support` is kept beside the weights (see `Algorithm`), () without one.
    """

    def __call__(self, streams: Streams, features: jax.Array, key: Key, support: PyTree, /) -> Prediction: ...


class Support(Protocol):
    """What a network keeps beside its weights, float32: the returns that its outputs are for.

    It is of the lane, set as the network is made. Whoever has the network has it, and no optimiser moves it.
    """

    def __call__(self, settings: NetworkSettings, hparams: HParams, /) -> jax.Array: ...


class Algorithm(NamedTuple):
    """A member of the family, as its file gives it and the table lists it.

    Attributes:
      name: as in papers.
      reference: the paper, and where in it.
      head: from the settings of the network, what it predicts.
      loss: from those of the learning rule and the target that they name, what it minimises.
      support: what its networks keep beside their weights, if anything.
      refuses: settings that must be left at their defaults, and why.
    """

    name: str
    reference: str
    head: Callable[[NetworkSettings], Head]
    loss: Callable[[RuleSettings, TargetFn], LossFn]
    support: Support | None = None
    refuses: tuple[tuple[str, str], ...] = ()
