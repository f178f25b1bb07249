"""Adam whose bits do not depend on how lanes are batched or spread. All other optimisers are optax's."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dqn_jax.config import ConfigError, suggest


class AdamState(NamedTuple):
    """Moments, and the powers of their decays that correct the bias."""

    mu: Any  # first moments, shaped as the weights
    nu: Any  # second moments
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

    def init(params: Any) -> AdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(zeros, jax.tree.map(jnp.zeros_like, params), jnp.ones(()), jnp.ones(()))

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, AdamState]:
        del params
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)
        b1_power, b2_power = b1 * state.b1_power, b2 * state.b2_power
        mu_scale, nu_scale = -learning_rate * (1.0 / (1 - b1_power)), 1.0 / (1 - b2_power)
        steps = jax.tree.map(lambda m, v: mu_scale * m / (jnp.sqrt(nu_scale * v) + eps), mu, nu)
        return steps, AdamState(mu, nu, b1_power, b2_power)

    return optax.GradientTransformation(init, update)


def optimizer_factory(name: str) -> tuple[Any, dict[str, Any]]:
    """The constructor for `name` (optax's, but for Adam) and its fixed arguments.

    Raises:
      ConfigError: if optax has no such optimiser, or it is one that DQN's update cannot drive.
    """
    if name == "adam":
        return adam, {}
    if name == "rmsprop_centered":
        return optax.rmsprop, {"centered": True}
    usable = [
        n for n in dir(optax) if n.islower() and not n.startswith("_") and _takes_learning_rate(getattr(optax, n))
    ]
    if name not in usable:
        raise ConfigError(
            f"optimizer: '{name}' is not an optax optimiser with a learning rate."
            f"{suggest(name, [*usable, 'rmsprop_centered'])} Try adam, rmsprop, rmsprop_centered or sgd."
        )
    return getattr(optax, name), {}


def _takes_learning_rate(factory: Any) -> bool:
    if not inspect.isfunction(factory):
        return False
    parameters = inspect.signature(factory).parameters
    required = [p.name for p in parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    return "learning_rate" in parameters and required in ([], ["learning_rate"])
