"""Convolutions and pooling: equality with their definitions and with flax's, in values and in gradients."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqn_jax.agent.convolutions import (
    Conv,
    fastest_convolution,
    max_pool,
    ordered_convolution,
    plain_convolution,
    same_padding,
)

CONVOLUTIONS = [plain_convolution, ordered_convolution]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 2, (5, 7, 6, 3)).astype(np.float32)


def operations(function, *args):
    """The convolutions and matrix products of a function as it is given to the compiler, a line each."""
    lines = jax.jit(function).lower(*args).as_text().splitlines()
    return [line for line in lines if "stablehlo.convolution" in line or "stablehlo.dot_general" in line]


# (height, width, size, stride, padding): with and without pixels that no window reaches, windows apart and overlapping;
# the last ones with more zeros after than before.
WINDOWS = [
    (7, 6, 3, 1, (0, 0)),
    (5, 6, 3, 1, (1, 1)),
    (12, 16, 8, 4, (0, 0)),
    (9, 12, 4, 2, (0, 0)),
    (11, 9, 4, 3, (1, 1)),
    (7, 8, 2, 3, (0, 0)),
    (7, 8, 4, 1, (1, 2)),
    (9, 8, 3, 2, (0, 2)),
]


def numpy_convolution(x, kernel, stride, padding, g=None):
    """The convolution as its definition has it, in float64; with `g`, the gradients of `sum(g * result)`."""
    batch, height, width, channels = x.shape
    size, features = kernel.shape[0], kernel.shape[3]
    inner = np.s_[:, padding[0] : padding[0] + height, padding[0] : padding[0] + width]
    padded = np.zeros((batch, height + sum(padding), width + sum(padding), channels))
    padded[inner] = x
    rows, columns = ((n + sum(padding) - size) // stride + 1 for n in (height, width))
    y = np.zeros((batch, rows, columns, features))
    padded_grad, kernel_grad = np.zeros_like(padded), np.zeros(kernel.shape)
    for r in range(rows):
        for c in range(columns):
            window = np.s_[:, r * stride : r * stride + size, c * stride : c * stride + size]
            y[:, r, c] = np.tensordot(padded[window], kernel, 3)
            if g is not None:
                kernel_grad += np.tensordot(padded[window], g[:, r, c], (0, 0))
                padded_grad[window] += np.tensordot(g[:, r, c], kernel, (1, 3))
    return y if g is None else (padded_grad[inner], kernel_grad)


def window_case(height, width, size, stride, padding):
    rng = np.random.default_rng(size + stride)
    x = rng.normal(size=(2, height, width, 3)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 3, 4)).astype(np.float32)
    rows, columns = ((n + sum(padding) - size) // stride + 1 for n in (height, width))
    return x, kernel, rng.normal(size=(2, rows, columns, 4)).astype(np.float32)


@pytest.mark.parametrize("convolve", CONVOLUTIONS)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_convolution_and_its_gradients_are_those_of_the_definition(window, convolve):
    x, kernel, g = window_case(*window)
    stride, padding = window[3:]

    @jax.jit
    def run(x, kernel, g):
        y, pull = jax.vjp(lambda *inputs: convolve(*inputs, stride, padding), x, kernel)
        return y, pull(g)

    y, grads = run(x, kernel, g)
    np.testing.assert_allclose(y, numpy_convolution(x, kernel, stride, padding), rtol=1e-4, atol=1e-4)
    for got, expected in zip(grads, numpy_convolution(x, kernel, stride, padding, g), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_ordered_convolution_keeps_its_order_in_the_gradients():
    x, kernel, _ = window_case(9, 12, 4, 2, (0, 0))
    order = "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"

    def in_order(convolve):
        grads = jax.grad(lambda x, kernel: jnp.sum(convolve(x, kernel, 2, (0, 0)) ** 2), argnums=(0, 1))
        return [order in line for line in operations(grads, x, kernel)]

    assert in_order(ordered_convolution) == [True, True, True]
    assert sorted(in_order(plain_convolution)) == [False, False, True]


@pytest.mark.parametrize("convolve", CONVOLUTIONS)
def test_lanes_with_kernels_of_their_own_are_convolved_apart(convolve):
    cases = [window_case(9, 12, 4, 2, (0, 0)), tuple(-0.5 * part for part in window_case(9, 12, 4, 2, (0, 0)))]

    def grads(x, kernel, g):
        return jax.grad(lambda x, kernel: jnp.sum(g * convolve(x, kernel, 2, (0, 0))), argnums=(0, 1))(x, kernel)

    together = jax.jit(jax.vmap(grads))(*(np.stack(parts) for parts in zip(*cases, strict=True)))
    for lane, (x, kernel, g) in enumerate(cases):
        for got, expected in zip(together, numpy_convolution(x, kernel, 2, (0, 0), g), strict=True):
            np.testing.assert_allclose(got[lane], expected, rtol=1e-4, atol=1e-4)


def test_only_the_cpu_needs_ordered_gradients():
    assert fastest_convolution("cpu") is ordered_convolution
    assert fastest_convolution("gpu") is fastest_convolution("tpu") is plain_convolution


def test_conv_is_that_of_flax(images):
    ours = Conv(4, size=3, stride=2, padding=(1, 1))
    flax = nn.Conv(4, (3, 3), (2, 2), padding=1)
    params = flax.init(jax.random.key(0), images)
    jax.tree.map(np.testing.assert_array_equal, ours.init(jax.random.key(0), images), params)
    params["params"]["bias"] = jnp.arange(4.0)
    np.testing.assert_allclose(ours.apply(params, images), flax.apply(params, images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [3, 4, 8])
def test_same_padding_is_that_of_flax(size, images):
    """Of an even size one more after than before."""
    ours, flax = Conv(4, size, padding=same_padding(size)), nn.Conv(4, (size, size), padding="SAME")
    params = flax.init(jax.random.key(0), images)
    expected = flax.apply(params, images)
    assert expected.shape == (*images.shape[:3], 4)
    np.testing.assert_allclose(ours.apply(params, images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "size", "stride"),
    [((8, 7), 3, 2), ((1, 2), 3, 2), ((11, 11), 3, 2), ((9, 7), 4, 4), ((1, 2), 2, 2), ((5, 6), 3, 1)],
    ids=str,
)
def test_max_pool_is_that_of_flax_in_values_and_gradients(shape, size, stride):
    rng = np.random.default_rng(0)
    x = -np.abs(rng.normal(size=(2, *shape, 3))).astype(np.float32)  # below zero, which must not come in at the edges
    flax = functools.partial(nn.max_pool, window_shape=(size, size), strides=(stride, stride), padding="SAME")
    expected, pull = jax.vjp(flax, x)
    got, our_pull = jax.vjp(lambda x: max_pool(x, size, stride), x)
    np.testing.assert_array_equal(got, expected)
    g = rng.normal(size=expected.shape).astype(np.float32)
    np.testing.assert_allclose(our_pull(g)[0], pull(g)[0], rtol=1e-5, atol=1e-6)
    assert max_pool(x.astype(jnp.bfloat16), size, stride).dtype == jnp.bfloat16
