"""`HParams`, the traced part of a run: scalars inside the compiled program.

Every lane of a population may have its own values, at no cost. A new one is one line here, and its use.
"""

# Annotations are types here and not texts, for `fields` reads them: no `from __future__ import annotations`.

import math
from typing import Annotated, NamedTuple

from dqn_jax.config.fields import Bounds, OnlyWhere, Optax
from dqn_jax.config.values import INT_MAX

_SHARE = Bounds(0, 1)
_POSITIVE = Bounds(0, math.inf, open=True)
_COUNT = Bounds(1, INT_MAX)
_NO_MORE_THAN_0 = Bounds(-math.inf, 0, remedy="use a number at most 0")
_ANY = Bounds(-math.inf, remedy="use a finite number")


class HParams(NamedTuple):
    """Traced part of a run: scalars, or `[lanes]` arrays with one value per lane.

    None leaves a feature out of the program (or leaves the optimiser's own default in place). An int counts something
    and is traced as int32, all others as float32.
    """

    learning_rate: Annotated[float, _POSITIVE] = 1e-3
    """Step size of the optimiser (at the start, if learning_rate_end is given)."""
    learning_rate_end: Annotated[float | None, Bounds(0)] = None
    """Step size at the end of a linear decay (None: constant)."""
    learning_rate_decay_updates: Annotated[int, _COUNT, OnlyWhere("learning_rate_end")] = 20_000
    """Length of that decay, in updates."""
    discount: Annotated[float, _SHARE] = 0.99
    """Discount per agent step."""
    trace_decay: Annotated[float, _SHARE, OnlyWhere("replay", "rollout")] = 0.65
    """Lambda of a rollout's targets: 0 is one step, 1 the whole return to the end of the episode or rollout."""
    epsilon_start: Annotated[float, _SHARE] = 1.0
    """Exploration at the start (all along, if constant)."""
    epsilon_end: Annotated[float, _SHARE, OnlyWhere("epsilon_schedule", "linear", "multiplicative")] = 0.05
    """Exploration at the end."""
    epsilon_decay_steps: Annotated[int, _COUNT, OnlyWhere("epsilon_schedule", "linear")] = 20_000
    """Length of the linear schedule, in epsilon_unit."""
    epsilon_decay: Annotated[float, Bounds(0, 1, open=True), OnlyWhere("epsilon_schedule", "multiplicative")] = 0.995
    """Factor of the multiplicative schedule, per epsilon_unit."""
    target_period: Annotated[int, _COUNT, OnlyWhere("target_network", True)] = 50
    """Updates between moves of the target network."""
    target_mixing: Annotated[float, Bounds(0, 1, open=True), OnlyWhere("target_network", True)] = 1.0
    """Share of the online network in each move: 1 is a copy; small, with target_period 1, is a soft target."""
    average_decay: Annotated[float | None, Bounds(0, 1)] = None
    """Evaluate, film and keep an exponential average of the weights with this decay per update (None: the weights
    themselves)."""
    huber_delta: Annotated[float, _POSITIVE, OnlyWhere("loss", "huber")] = 1.0
    """Where the Huber loss becomes linear."""
    v_min: Annotated[float, _ANY, OnlyWhere("loss", "categorical", "hl_gauss")] = -10.0
    """Least return that atoms or classes are for, as learnt from (scaled and discounted)."""
    v_max: Annotated[float, _ANY, OnlyWhere("loss", "categorical", "hl_gauss")] = 10.0
    """Greatest return that atoms or classes are for."""
    hl_sigma: Annotated[float, _POSITIVE, OnlyWhere("loss", "hl_gauss")] = 0.75
    """Width of the Gaussian around a target, its standard deviation in widths of a class."""
    kappa: Annotated[float, Bounds(0), OnlyWhere("loss", "quantile", "implicit_quantile")] = 1.0
    """Where the loss of quantiles becomes linear; 0: linear all along, the loss of quantile regression."""
    munchausen_alpha: Annotated[float, _SHARE, OnlyWhere("target", "munchausen")] = 0.9
    """Share of the log-policy of the action taken that is added to the reward."""
    munchausen_temperature: Annotated[float, _POSITIVE, OnlyWhere("target", "munchausen")] = 0.03
    """Temperature of the soft policy, in units of the rewards learnt from."""
    munchausen_clip: Annotated[float, _NO_MORE_THAN_0, OnlyWhere("target", "munchausen")] = -1.0
    """The least that temperature times log-policy may be."""
    advantage_alpha: Annotated[float, _SHARE, OnlyWhere("target", "advantage")] = 0.9
    """Share of what the action taken falls short of the best by that is taken off the reward."""
    temperature: Annotated[float, _POSITIVE, OnlyWhere("exploration", "boltzmann")] = 0.1
    """Boltzmann exploration's: Q-values are divided by it before their softmax."""
    noisy_sigma: Annotated[float, _POSITIVE, OnlyWhere("noisy", True)] = 0.5
    """Standard deviations that noisy layers start with, times the square root of their inputs."""
    priority_exponent: Annotated[float, Bounds(0), OnlyWhere("replay", "prioritized")] = 0.6
    """How far priority counts: transitions are drawn in proportion to this power of it (0: uniformly)."""
    priority_eps: Annotated[float, _POSITIVE, OnlyWhere("replay", "prioritized")] = 1e-6
    """Added to the absolute TD error, so that no transition is lost."""
    importance_exponent: Annotated[float, _SHARE, OnlyWhere("replay", "prioritized")] = 0.4
    """How far importance weights correct for draws by priority, at the start (1: fully)."""
    importance_exponent_end: Annotated[float, _SHARE, OnlyWhere("replay", "prioritized")] = 1.0
    """The same, after importance_anneal_updates."""
    importance_anneal_updates: Annotated[int, _COUNT, OnlyWhere("replay", "prioritized")] = 20_000
    """Updates in which it goes there linearly."""
    max_grad_norm: Annotated[float | None, _POSITIVE] = None
    """Clip gradients to this global norm (None: no clipping)."""
    optimizer_eps: Annotated[float | None, Bounds(0), Optax("eps")] = None
    """The optimiser's eps, for a loss averaged over the batch (None: optax's default)."""
    b1: Annotated[float | None, _SHARE, Optax("b1")] = None
    """First-moment decay of Adam-like optimisers (None: optax's default)."""
    b2: Annotated[float | None, _SHARE, Optax("b2")] = None
    """Second-moment decay of Adam-like optimisers (None: optax's default)."""
    rms_decay: Annotated[float | None, _SHARE, Optax("decay")] = None
    """Decay of RMSProp (None: optax's default)."""
    momentum: Annotated[float | None, _SHARE, Optax("momentum")] = None
    """Momentum of SGD or RMSProp (None: optax's default)."""
    weight_decay: Annotated[float | None, Bounds(0), Optax("weight_decay")] = None
    """Weight decay of optimisers that have one (None: optax's default)."""
