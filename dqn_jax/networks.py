"""Torsos and heads. A network is a flax Linen module used only through its pure `init` and `apply`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "tanh": nn.tanh,
    "gelu": nn.gelu,
    "silu": nn.silu,
}

INITIALIZERS: dict[str, Callable[..., jax.Array]] = {
    "lecun_normal": nn.initializers.lecun_normal(),
    "glorot_uniform": nn.initializers.glorot_uniform(),
    "he_normal": nn.initializers.he_normal(),
}


class PatchConv(nn.Module):
    """A stride-1 'VALID' convolution written as patches times a matrix.

    Same weights and result as `nn.Conv(features, (size, size), padding="VALID")`. XLA's small
    convolutions are slow on CPU, forward and above all backward; a matrix product is not.
    """

    features: int
    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, H - size + 1, W - size + 1, features]`."""
        height, width, channels = x.shape[1] - self.size + 1, x.shape[2] - self.size + 1, x.shape[3]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.size, self.size, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        patches = jnp.concatenate(
            [x[:, i : i + height, j : j + width] for i in range(self.size) for j in range(self.size)], axis=-1
        )
        return patches @ kernel.reshape(-1, self.features) + bias[None, None, None]


class QNetwork(nn.Module):
    """Observations to Q-values: `[B, *obs_shape]` to `[B, num_actions]`, float32.

    torso "mlp" flattens the observation; "minatar" is the 16-filter 3x3 convolution of Young & Tian 2019
    (arXiv 1903.03176) for `[H, W, C]` observations; `hidden` are the dense layers behind either.
    `dueling` splits the head into a value and an advantage stream, each with a last hidden layer of its
    own: Wang et al. 2016 (arXiv 1511.06581), equation 9. `weight_init` is that of the dense layers.
    """

    num_actions: int
    torso: str = "mlp"
    hidden: tuple[int, ...] = (120, 84)
    activation: str = "relu"
    dueling: bool = False
    weight_init: str = "lecun_normal"

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """`[B, *obs_shape]` to `[B, num_actions]`."""
        activate = ACTIVATIONS[self.activation]
        dense = functools.partial(nn.Dense, kernel_init=INITIALIZERS[self.weight_init])
        x = obs.astype(jnp.float32)
        if self.torso == "minatar":
            x = activate(PatchConv(features=16, size=3)(x))
        x = x.reshape(x.shape[0], -1)
        shared, last = (self.hidden[:-1], self.hidden[-1:]) if self.dueling else (self.hidden, ())
        for width in shared:
            x = activate(dense(width)(x))
        if not self.dueling:
            return dense(self.num_actions)(x)
        streams = []
        for outputs in (1, self.num_actions):
            stream = x
            for width in last:
                stream = activate(dense(width)(stream))
            streams.append(dense(outputs)(stream))
        value, advantage = streams
        return value + advantage - jnp.mean(advantage, axis=-1, keepdims=True)
