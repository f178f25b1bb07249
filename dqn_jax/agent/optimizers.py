"""The optimisers: Adams whose bits do not depend on how lanes are batched or spread, and six of optax's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dqn_jax.config import OPTIMIZERS, HParams, RuleSettings, fields_of


class AdamState(NamedTuple):
    """Moments, and the powers of their decays that correct the bias."""

    mu: optax.Updates  # first moments, shaped as the weights
    nu: optax.Updates  # second moments
    b1_power: jax.Array  # [], float32, b1 ** updates
    b2_power: jax.Array  # [], float32, b2 ** updates


def adam(
    learning_rate: jax.Array | float,
    b1: jax.Array | float = 0.9,
    b2: jax.Array | float = 0.999,
    eps: jax.Array | float = 1e-8,
) -> optax.GradientTransformation:
    """Adam, equal to `optax.adam` up to rounding.

    optax divides by one minus a power of the step count. Compiled for another number of lanes or devices, XLA
    takes another power and turns the division into a product or not, and a seed ends elsewhere than it did.
    Here the powers are running products, and the divisions are products as written.

    Reference: Kingma & Ba 2015 (arXiv 1412.6980), Algorithm 1.
    """

    def init(params: optax.Params) -> AdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(zeros, jax.tree.map(jnp.zeros_like, params), jnp.ones(()), jnp.ones(()))

    def update(
        grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        assert isinstance(state, AdamState)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)
        b1_power, b2_power = b1 * state.b1_power, b2 * state.b2_power
        mu_scale, nu_scale = -learning_rate * (1.0 / (1 - b1_power)), 1.0 / (1 - b2_power)
        steps = jax.tree.map(lambda m, v: mu_scale * m / (jnp.sqrt(nu_scale * v) + eps), mu, nu)
        return steps, AdamState(mu, nu, b1_power, b2_power)

    return optax.GradientTransformation(init, update)


class RAdamState(NamedTuple):
    """Moments, and what corrects their bias and rectifies the step."""

    mu: optax.Updates  # first moments, shaped as the weights
    nu: optax.Updates  # second moments
    b1_power: jax.Array  # [], float32, b1 ** updates
    b2_powers: jax.Array  # [], float32, 1 + b2 + ... + b2 ** (updates - 1), which is (1 - b2 ** updates) / (1 - b2)
    updates: jax.Array  # [], int32


def radam(
    learning_rate: jax.Array | float,
    b1: jax.Array | float = 0.9,
    b2: jax.Array | float = 0.999,
    eps: jax.Array | float = 1e-8,
) -> optax.GradientTransformation:
    """Rectified Adam, equal to `optax.radam` up to rounding; for the bits of lanes as `adam`.

    Steps are those of momentum as long as there are too few updates for the second moments (a length of 5 or less).
    A sum of powers takes the place of one minus a power, for 1 - 0.999 ** 5 has only four digits in float32.

    Reference: Liu et al. 2020 (arXiv 1908.03265), Algorithm 2.
    """

    def init(params: optax.Params) -> RAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        count = jnp.zeros((), jnp.int32)
        return RAdamState(zeros, jax.tree.map(jnp.zeros_like, params), jnp.ones(()), jnp.zeros(()), count)

    def update(
        grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        assert isinstance(state, RAdamState)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)
        b1_power, b2_powers, updates = b1 * state.b1_power, b2 * state.b2_powers + 1.0, state.updates + 1
        missing = (1 - b2) * b2_powers  # 1 - b2 ** updates
        longest = 2.0 / (1 - b2) - 1.0
        length = longest - 2.0 * updates * (1.0 - missing) * (1.0 / missing)
        known = length >= 5.0
        product = (length - 4.0) * (length - 2.0) * longest * (1.0 / ((longest - 4.0) * (longest - 2.0) * length))
        rectified = jnp.where(known, jnp.sqrt(jnp.maximum(product, 0.0)), 1.0)
        scale = -learning_rate * rectified * (1.0 / (1 - b1_power))
        # The divisor is 1 where there is none: arithmetic of scalars, for a select of every weight takes longer.
        slope, offset = jnp.where(known, jnp.sqrt(1.0 / missing), 0.0), jnp.where(known, eps, 1.0)
        steps = jax.tree.map(lambda m, v: scale * m / (slope * jnp.sqrt(v) + offset), mu, nu)
        return steps, RAdamState(mu, nu, b1_power, b2_powers, updates)

    return optax.GradientTransformation(init, update)


def clip_by_global_norm(max_norm: jax.Array | float) -> optax.GradientTransformation:
    """Gradients as they are, or shrunk together to this norm: `optax.clip_by_global_norm` up to rounding.

    optax divides every gradient by the norm, which XLA turns into a product or not, as with `adam`; here it is one.
    """

    def update(
        grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        factor = jnp.minimum(1.0, max_norm / optax.tree.norm(grads))
        return jax.tree.map(lambda g: factor * g, grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


CONSTRUCTORS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": adam,
    "adamw": optax.adamw,
    "nadam": optax.nadam,
    "radam": radam,
    "lion": optax.lion,
    "rmsprop": optax.rmsprop,
    "rmsprop_centered": functools.partial(optax.rmsprop, centered=True),
    "sgd": optax.sgd,
}
"""What makes each of `config.OPTIMIZERS`, which says what hyperparameters it has."""


def make_optimizer(
    settings: RuleSettings, hparams: HParams, learning_rate: jax.Array | float
) -> optax.GradientTransformation:
    """The optimiser that `settings` name, with traced hyperparameters, behind clipping if there is any.

    Its state has the same structure for all values. A hyperparameter of None keeps optax's own default.
    """
    known, arguments = fields_of(HParams), {"learning_rate": learning_rate}
    for name in OPTIMIZERS[settings.optimizer]:
        value = getattr(hparams, name)
        if value is not None:
            arguments[known[name].optax or name] = value
    optimizer = CONSTRUCTORS[settings.optimizer](**arguments)
    if hparams.max_grad_norm is None:
        return optimizer
    return optax.chain(clip_by_global_norm(hparams.max_grad_norm), optimizer)
