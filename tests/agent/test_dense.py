"""Dense layers in forms of their own: the values and gradients of flax's."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqn_jax.agent.dense import Dense, product, relu

INIT = nn.initializers.lecun_normal()


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("inputs", [1, 4, 9])
@pytest.mark.parametrize("outputs", [1, 2, 4, 7])
def test_a_layer_is_flax_s_in_weights_values_and_gradients(inputs, outputs):
    x, wanted, ours = draw(0, 6, inputs), nn.Dense(outputs), Dense(outputs, INIT)
    params = ours.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, params, wanted.init(jax.random.key(1), x))
    params["params"]["bias"] = draw(2, outputs)
    pull = draw(3, 6, outputs)  # the gradient that comes in

    def both(layer):
        value, back = jax.vjp(layer.apply, params, x)
        return value, back(pull)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), both(ours), both(wanted))


def test_it_takes_any_leading_axes_and_computes_in_its_type():
    x = draw(0, 2, 3, 5)
    layer = Dense(4, INIT, jnp.bfloat16)
    params = layer.init(jax.random.key(0), x)
    assert params["params"]["kernel"].dtype == jnp.float32
    y, grads = jax.value_and_grad(lambda p: jnp.sum(layer.apply(p, x).astype(jnp.float32)))(params)
    assert layer.apply(params, x).shape == (2, 3, 4)
    assert layer.apply(params, x).dtype == jnp.bfloat16
    np.testing.assert_allclose(grads["params"]["bias"], 6.0)
    assert np.isfinite(y)


def test_a_batch_of_layers_is_layer_after_layer():
    x, kernel = draw(0, 3, 8, 4), draw(1, 3, 4, 2)
    value, back = jax.vjp(jax.vmap(product), x, kernel)
    each = [jax.vjp(product, x[i], kernel[i]) for i in range(3)]
    np.testing.assert_allclose(value, np.stack([one[0] for one in each]), rtol=1e-5, atol=1e-6)
    pull = draw(2, 3, 8, 2)
    for i, (_, one) in enumerate(each):
        for a, b in zip(back(pull), one(pull[i]), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6)


def test_a_rectifier_is_flax_s_with_no_gradient_at_zero():
    x, pull = jnp.asarray([-2.0, -0.0, 0.0, 1e-30, 3.0]), jnp.asarray([1.0, -2.0, 3.0, -4.0, 5.0])
    (value, back), (wanted, wanted_back) = jax.vjp(relu, x), jax.vjp(nn.relu, x)
    np.testing.assert_array_equal(value, wanted)
    np.testing.assert_array_equal(back(pull)[0], wanted_back(pull)[0])
