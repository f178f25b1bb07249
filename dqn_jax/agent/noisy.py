"""Noisy dense layers: weights that are means plus learnt multiples of noise, in place of epsilon's coin.

Reference: Fortunato et al. 2018 (arXiv 1706.10295), factorised Gaussian noise: section 3, equations 9 to 11.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dqn_jax.prng import rolled
from dqn_jax.types import DType, Key, Params

Factors = tuple[jax.Array, jax.Array]  # p [F] and q [features], float32, of one layer

_SIGMAS = ("kernel_sigma", "bias_sigma")


def factor(key: Key, size: int) -> jax.Array:
    """`f(x) = sign(x) sqrt(|x|)` of standard normal x, `[size]` float32: mean 0, variance sqrt(2 / pi)."""
    x = jax.random.normal(rolled(key), (size,))
    return jnp.sign(x) * jnp.sqrt(jnp.abs(x))


class Noise:
    """The factors of all layers of a network in one call: XLA compiles one draw much faster than many."""

    def __init__(self) -> None:
        self._left: jax.Array | None = None

    def draw(self, key: Key, shared: Sequence[int], streams: Sequence[Sequence[int]]) -> None:
        """Draw for layers one after another, of widths `shared`, inputs first, and then for streams that part."""
        chains = [shared, *((shared[-1], *stream) for stream in streams)]
        self._left = factor(key, sum(sum(pair) for chain in chains for pair in itertools.pairwise(chain)))

    def take(self, inputs: int, features: int) -> Factors | None:
        """Those of the next layer; None where nothing was drawn."""
        if self._left is None:
            return None
        size = inputs + features
        own, self._left = self._left[:size], self._left[size:]
        return own[:inputs], own[inputs:]


class NoisyDense(nn.Module):
    """A dense layer whose weights are `mu + sigma * eps`: with p and q from `factor`, eps is `p q^T`, of the bias q.

    One p and one q serve all rows of a call, as the paper has it: one noise for each batch. Means start as those of
    `nn.Dense` do (the paper draws both evenly from +-1 / sqrt(fan-in), in which biases of 0 differ here), sigmas at
    1 / sqrt(fan-in), which `with_sigma` multiplies.
    """

    features: int
    kernel_init: nn.initializers.Initializer
    dtype: DType = jnp.float32  # computed in; weights and noise are float32

    @nn.compact
    def __call__(self, x: jax.Array, noise: Factors | None) -> jax.Array:
        """`[..., F]` to `[..., features]`, with p `[F]` and q `[features]`; None leaves the means alone."""
        inputs = x.shape[-1]
        sigma_init = nn.initializers.constant(inputs**-0.5)
        kernel = self.param("kernel", self.kernel_init, (inputs, self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        kernel_sigma = self.param("kernel_sigma", sigma_init, (inputs, self.features))
        bias_sigma = self.param("bias_sigma", sigma_init, (self.features,))
        if noise is not None:
            p, q = noise
            kernel, bias = kernel + kernel_sigma * (p[:, None] * q[None]), bias + bias_sigma * q
        x, kernel, bias = (value.astype(self.dtype) for value in (x, kernel, bias))
        return x @ kernel + bias.reshape((1,) * (x.ndim - 1) + (-1,))


def with_sigma(params: Params, sigma: jax.Array | float) -> Params:
    """Fresh weights with the sigmas of their noisy layers at `sigma` (`[]`) / sqrt(fan-in), sigma_0 of the paper."""

    def scaled(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.Array) -> jax.Array:
        return leaf * sigma if path[-1].key in _SIGMAS else leaf

    return jax.tree_util.tree_map_with_path(scaled, params)
