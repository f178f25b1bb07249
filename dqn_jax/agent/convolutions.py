"""Convolutions and pooling in the forms that XLA compiles well and whose bits do not depend on neighbours."""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from dqn_jax.types import DType

Padding = tuple[int, int]  # zeros before and after, along height and width alike
Convolution = Callable[[jax.Array, jax.Array, int, Padding], jax.Array]
Saved = tuple[jax.Array, jax.Array]  # x and kernel, for the gradients


def plain_convolution(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """XLA's convolution of `[B, H, W, C]`, zeros around it, by `[k, k, C, F]`: `[B, h, w, F]`.

    `h = (H + sum(padding) - k) // stride + 1`, and `w` likewise.
    """
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [padding] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def same_padding(size: int) -> Padding:
    """What keeps height and width at a stride of 1, as 'SAME' has it: of an even size one more after than before."""
    return (size - 1) // 2, size // 2


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def ordered_convolution(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """The same, with gradients written as convolutions in the order (NHWC, HWIO) that XLA computes fast on CPU.

    XLA brings the gradients that jax writes into that order, but not inside a loop, where training runs: there
    they took 20 times as long (https://github.com/jax-ml/jax/issues/12868). Lanes batched by `vmap` become grouped
    convolutions, 3 to 6 times slower than lane after lane, which is what populations do on CPU.
    """
    return plain_convolution(x, kernel, stride, padding)


def _convolution_forward(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> tuple[jax.Array, Saved]:
    return plain_convolution(x, kernel, stride, padding), (x, kernel)


def _convolution_backward(stride: int, padding: Padding, saved: Saved, g: jax.Array) -> tuple[jax.Array, jax.Array]:
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
        padding=[padding] * 2,
        rhs_dilation=(stride, stride),
    )[:, :size, :size].transpose(1, 2, 0, 3)
    # A pixel sums g times the weight that took it there: the turned kernel over g, `stride` apart.
    before = size - 1 - padding[0]
    after = [n - 1 + padding[0] - (m - 1) * stride for n, m in zip(x.shape[1:3], g.shape[1:3], strict=True)]
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

    They start as flax has it, unless `kernel_init` says otherwise: normal with variance one over fan-in (lecun_normal),
    biases 0. Dopamine draws DQN's from a uniform distribution with Glorot's variance, DQN Zoo weights and biases
    uniformly with variance 1 / (3 fan-in).
    """

    features: int
    size: int
    stride: int = 1
    padding: Padding = (0, 0)
    dtype: DType = jnp.float32  # computed in; weights are float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, h, w, features]` with `h = (H + sum(padding) - size) // stride + 1`."""
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, x.shape[3], self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        x, kernel, bias = (value.astype(self.dtype) for value in (x, kernel, bias))
        convolve = fastest_convolution(jax.default_backend())
        return convolve(x, kernel, self.stride, self.padding) + bias[None, None, None]


def max_pool(x: jax.Array, size: int = 3, stride: int = 2) -> jax.Array:
    """Maxima over square windows every `stride` pixels, `[B, H, W, C]` to `[B, ceil(H / s), ceil(W / s), C]`.

    `nn.max_pool` with padding 'SAME', as maxima of slices, whose gradient is fast on CPU: it saves a quarter of the
    gradient of the IMPALA torso. Windows must touch or overlap.
    """
    for axis in (1, 2):
        outputs = -(-x.shape[axis] // stride)
        last = (outputs - 1) * stride  # where the last window begins
        missing = last + size - x.shape[axis]
        around = [(0, 0, 0)] * x.ndim
        around[axis] = (missing // 2, missing - missing // 2, 0)
        x = jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), around)
        slices = [jax.lax.slice_in_dim(x, i, i + last + 1, stride, axis) for i in range(size)]
        x = functools.reduce(jnp.maximum, slices)
    return x
