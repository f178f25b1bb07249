"""Layer normalisation whose sums, six a layer, are fast on CPU: as products with ones.

XLA's own sums add one number after another there, for it may not change their order; products do not wait for each
other. At 256-256 and batch 128 an update takes a sixth less; elsewhere XLA's sums are as fast, and more precise.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from dqn_jax.types import DType

Saved = tuple[jax.Array, jax.Array, jax.Array]  # normalised x, one over its deviation, the scale


def row_means(x: jax.Array) -> jax.Array:
    """The mean of each row: `[M, H]` to `[M, 1]`."""
    if jax.default_backend() != "cpu":
        return jnp.mean(x, axis=1, keepdims=True)
    return x @ jnp.full((x.shape[1], 1), 1.0 / x.shape[1], x.dtype)


def column_sums(x: jax.Array) -> jax.Array:
    """The sum of each column: `[M, H]` to `[H]`."""
    if jax.default_backend() != "cpu":
        return jnp.sum(x, axis=0)
    return (jnp.ones((1, x.shape[0]), x.dtype) @ x)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """`scale * (x - mean) / sqrt(variance + epsilon) + bias`, with mean and variance of each row: `[M, H]` to `[M, H]`.

    `scale` and `bias` are `[H]`. Reference: Ba et al. 2016 (arXiv 1607.06450), equation 3.
    """
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> tuple[jax.Array, Saved]:
    centred = x - row_means(x)
    inverse = jax.lax.rsqrt(row_means(jnp.square(centred)) + epsilon)
    normal = centred * inverse
    return normal * scale[None] + bias[None], (normal, inverse, scale)


def _backward(epsilon: float, saved: Saved, g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of x, scale and bias, from the gradient `g` (`[M, H]`) of the result."""
    del epsilon
    normal, inverse, scale = saved
    weighted = g * scale[None]
    along = row_means(weighted * normal)
    x_grad = inverse * (weighted - row_means(weighted) - normal * along)
    return x_grad, column_sums(g * normal), column_sums(g)


normalise.defvjp(_forward, _backward)


class LayerNorm(nn.Module):
    """`nn.LayerNorm` over the last axis, with the same names, shapes and first values of its weights."""

    dtype: DType = jnp.float32  # of what comes out; sums are float32
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., H]` to `[..., H]`."""
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],))
        rows = x.astype(jnp.float32).reshape(-1, x.shape[-1])
        return normalise(rows, scale, bias, self.epsilon).reshape(x.shape).astype(self.dtype)
