"""Torsos and heads. A network is a flax Linen module used only through its pure `init` and `apply`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Activation = Callable[[jax.Array], jax.Array]
Convolution = Callable[[jax.Array, jax.Array, int, int], jax.Array]

ACTIVATIONS: dict[str, Activation] = {
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

CONVOLUTIONS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "minatar": ((16, 3, 1),),
    "dqn2013": ((16, 8, 4), (32, 4, 2)),
    "nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
}
"""Torsos that are convolutions one after another: features, size and stride of each."""

IMPALA_STAGES = (16, 32, 32)
"""Features of the stages of the residual torso."""

PIXEL_TORSOS = ("dqn2013", "nature", "impala")
"""Torsos for camera images: bytes are scaled to 0..1. MinAtar's planes are 0 or 1 already."""


def smallest_image(torso: str) -> int:
    """The least height and width of an image from which all of the torso's convolutions give something."""
    least = 1
    for _, size, stride in reversed(CONVOLUTIONS.get(torso, ())):
        least = (least - 1) * stride + size
    return least


def choose_torso(obs_shape: tuple[int, ...], obs_dtype: Any) -> str:
    """What 'auto' stands for: nature for images of bytes large enough, minatar for others, else mlp.

    Images are `[H, W, C]`, or `[H, W, C, frame_stack]`.
    """
    if len(obs_shape) not in (3, 4):
        return "mlp"
    pixels = jnp.dtype(obs_dtype) == jnp.uint8 and min(obs_shape[:2]) >= smallest_image("nature")
    return "nature" if pixels else "minatar"


def plain_convolution(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """XLA's convolution of `[B, H, W, C]`, zeros around it, by `[k, k, C, F]`: `[B, h, w, F]`.

    `h = (H + 2 padding - k) // stride + 1`, and `w` likewise.
    """
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def ordered_convolution(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """The same, with gradients written as convolutions in the order (NHWC, HWIO) that XLA computes fast on CPU.

    XLA brings the gradients that jax writes into that order, but not inside a loop, where training runs: there
    they took 20 times as long (https://github.com/jax-ml/jax/issues/12868). Lanes batched by `vmap` become grouped
    convolutions, 3 to 6 times slower than lane after lane, which is what populations do on CPU.
    """
    return plain_convolution(x, kernel, stride, padding)


def _convolution_forward(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> tuple[jax.Array, Any]:
    return plain_convolution(x, kernel, stride, padding), (x, kernel)


def _convolution_backward(stride: int, padding: int, saved: Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gradients of x and kernel, from the gradient `g` (`[B, h, w, F]`) of the result."""
    x, kernel = saved
    size = kernel.shape[0]
    convolve = functools.partial(
        jax.lax.conv_general_dilated, window_strides=(1, 1), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    # A weight sums, over batch and positions, g times the pixel it met there: a convolution of images `[C, H, W, B]`
    # by g as a kernel `[h, w, B, F]` whose taps lie `stride` apart. Pixels that no window reached add offsets to cut.
    kernel_grad = convolve(
        x.transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        padding=[(padding, padding)] * 2,
        rhs_dilation=(stride, stride),
    )[:, :size, :size].transpose(1, 2, 0, 3)
    # A pixel sums g times the weight that took it there: the turned kernel over g, `stride` apart.
    before = size - 1 - padding
    after = [n - 1 + padding - (m - 1) * stride for n, m in zip(x.shape[1:3], g.shape[1:3], strict=True)]
    x_grad = convolve(
        g,
        kernel[::-1, ::-1].swapaxes(2, 3),
        padding=[(before, after[0]), (before, after[1])],
        lhs_dilation=(stride, stride),
    )
    return x_grad, kernel_grad


ordered_convolution.defvjp(_convolution_forward, _convolution_backward)


def fastest_convolution(backend: str) -> Convolution:
    """The convolution for `backend`, a name as `jax.default_backend` gives it."""
    return ordered_convolution if backend == "cpu" else plain_convolution


class Conv(nn.Module):
    """A square convolution of `[B, H, W, C]` with the weights of `nn.Conv`: the same names, shapes and first values.

    They start as flax has it: normal with variance one over fan-in (lecun_normal), biases 0. Dopamine draws DQN's from
    a uniform distribution with Glorot's variance, DQN Zoo weights and biases uniformly with variance 1 / (3 fan-in).
    """

    features: int
    size: int
    stride: int = 1
    padding: int = 0
    dtype: Any = jnp.float32  # computed in; weights are float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, h, w, features]` with `h = (H + 2 padding - size) // stride + 1`."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.size, self.size, x.shape[3], self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        x, kernel, bias = (value.astype(self.dtype) for value in (x, kernel, bias))
        convolve = fastest_convolution(jax.default_backend())
        return convolve(x, kernel, self.stride, self.padding) + bias[None, None, None]


def max_pool(x: jax.Array) -> jax.Array:
    """Maxima over windows of 3x3 every 2 pixels, `[B, H, W, C]` to `[B, ceil(H / 2), ceil(W / 2), C]`.

    `nn.max_pool` with padding 'SAME', as maxima of slices, whose gradient is fast on CPU: it saves a quarter of the
    gradient of the IMPALA torso.
    """
    for axis in (1, 2):
        outputs = -(-x.shape[axis] // 2)
        missing = 2 * outputs + 1 - x.shape[axis]  # 1 or 2 pixels
        around = [(0, 0, 0)] * x.ndim
        around[axis] = (missing // 2, missing - missing // 2, 0)
        x = jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), around)
        slices = [jax.lax.slice_in_dim(x, i, i + 2 * outputs - 1, 2, axis) for i in range(3)]
        x = functools.reduce(jnp.maximum, slices)
    return x


class ImpalaStage(nn.Module):
    """Convolution, max pool and two residual blocks: `[B, H, W, C]` to `[B, ceil(H / 2), ceil(W / 2), features]`."""

    features: int
    activate: Activation
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = functools.partial(Conv, self.features, size=3, padding=1, dtype=self.dtype)
        x = max_pool(conv()(x))
        for _ in range(2):
            block = conv()(self.activate(x))
            x = x + conv()(self.activate(block))
        return x


class QNetwork(nn.Module):
    """Observations to Q-values: `[B, *obs_shape]` to `[B, num_actions]`, float32.

    torso "mlp" flattens the observation; the others are convolutions of `[H, W, C]` observations, or of
    `[H, W, C, frame_stack]`, all frames' channels taken together: "minatar" of Young & Tian 2019 (arXiv 1903.03176),
    "dqn2013" of Mnih et al. 2013 (arXiv 1312.5602), "nature" of Mnih et al. 2015 (Nature 518:529), "impala" the
    residual one of Espeholt et al. 2018 (arXiv 1802.01561, figure 3, without the LSTM). `hidden` are the dense
    layers behind any of them.
    `dueling` splits the head into a value and an advantage stream, each with a last hidden layer of its
    own: Wang et al. 2016 (arXiv 1511.06581), equation 9. `weight_init` is that of the dense layers.
    `compute_dtype` is what all layers compute in; weights are float32.
    """

    num_actions: int
    torso: str = "mlp"
    hidden: tuple[int, ...] = (120, 84)
    activation: str = "relu"
    dueling: bool = False
    weight_init: str = "lecun_normal"
    compute_dtype: str = "float32"

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """`[B, *obs_shape]` to `[B, num_actions]`."""
        activate = ACTIVATIONS[self.activation]
        dtype = jnp.dtype(self.compute_dtype)
        dense = functools.partial(nn.Dense, kernel_init=INITIALIZERS[self.weight_init], dtype=dtype)
        x = obs.astype(jnp.float32)
        if self.torso in PIXEL_TORSOS and obs.dtype == jnp.uint8:
            x = x / 255.0
        x = x.astype(dtype)
        if self.torso != "mlp":
            x = x.reshape(*x.shape[:3], -1)
        for features, size, stride in CONVOLUTIONS.get(self.torso, ()):
            x = activate(Conv(features, size, stride, dtype=dtype)(x))
        if self.torso == "impala":
            for features in IMPALA_STAGES:
                x = ImpalaStage(features, activate, dtype)(x)
            x = activate(x)
        x = x.reshape(x.shape[0], -1)
        shared, last = (self.hidden[:-1], self.hidden[-1:]) if self.dueling else (self.hidden, ())
        for width in shared:
            x = activate(dense(width)(x))
        if not self.dueling:
            return dense(self.num_actions)(x).astype(jnp.float32)
        streams = []
        for outputs in (1, self.num_actions):
            stream = x
            for width in last:
                stream = activate(dense(width)(stream))
            streams.append(dense(outputs)(stream).astype(jnp.float32))
        value, advantage = streams
        return value + advantage - jnp.mean(advantage, axis=-1, keepdims=True)
