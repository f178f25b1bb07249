"""Torsos and heads: equality with flax's own layers, the dueling identity, shapes and dtypes."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dqn_jax.networks import ACTIVATIONS, PatchConv, QNetwork

ROWS = 5


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 2, (ROWS, 7, 6, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def conv_params(images):
    layer = nn.Conv(4, (3, 3), padding="VALID")
    params = layer.init(jax.random.key(0), images)
    params["params"]["bias"] = jnp.arange(4.0)
    return params


def test_patch_conv_has_the_weights_of_flax_conv(images, conv_params):
    ours = PatchConv(features=4, size=3).init(jax.random.key(0), images)
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, conv_params)


def test_patch_conv_equals_flax_conv_in_values_and_gradients(images, conv_params):
    target = np.random.default_rng(1).normal(size=(ROWS, 5, 4, 4)).astype(np.float32)

    def loss(layer):
        return jax.jit(jax.value_and_grad(lambda p, x: jnp.sum(target * layer.apply(p, x)), argnums=(0, 1)))

    conv, ours = nn.Conv(4, (3, 3), padding="VALID"), PatchConv(features=4, size=3)
    np.testing.assert_allclose(ours.apply(conv_params, images), conv.apply(conv_params, images), rtol=1e-4, atol=1e-5)
    expected, got = loss(conv)(conv_params, images), loss(ours)(conv_params, images)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, expected)


def test_mlp_is_dense_layers_with_activations_between():
    obs = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    network = QNetwork(2, "mlp", (4, 6))
    params = network.init(jax.random.key(0), obs)
    layers = [(np.asarray(p["kernel"]), np.asarray(p["bias"])) for _, p in sorted(params["params"].items())]
    assert [w.shape for w, _ in layers] == [(3, 4), (4, 6), (6, 2)]
    x = obs
    for i, (w, b) in enumerate(layers):
        x = x @ w + b
        x = np.maximum(x, 0.0) if i < 2 else x
    np.testing.assert_allclose(network.apply(params, obs), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("torso", ["mlp", "minatar"])
def test_dueling_values_average_to_the_value_stream_and_ignore_a_common_advantage(torso, images):
    network = QNetwork(3, torso, (8, 6), dueling=True)
    params = network.init(jax.random.key(0), images)
    dense = params["params"]
    value_head, advantage_head = (
        next(name for name in dense if name.startswith("Dense") and dense[name]["bias"].shape == (size,))
        for size in (1, 3)
    )
    q = network.apply(params, images)

    # Q's mean over actions is the value: raising V's bias raises all alike.
    dense[value_head]["bias"] = dense[value_head]["bias"] + 5.0
    np.testing.assert_allclose(network.apply(params, images), q + 5.0, rtol=1e-4, atol=1e-5)
    # The mean advantage is taken out: a common shift changes nothing, a single one moves all.
    dense[advantage_head]["bias"] = dense[advantage_head]["bias"] + 7.0
    np.testing.assert_allclose(network.apply(params, images), q + 5.0, rtol=1e-4, atol=1e-4)
    # With no advantage at all, every action is worth the value.
    dense[advantage_head] = jax.tree.map(jnp.zeros_like, dense[advantage_head])
    flat = network.apply(params, images)
    np.testing.assert_allclose(flat, np.repeat(np.mean(q + 5.0, -1, keepdims=True), 3, -1), rtol=1e-4, atol=1e-4)


def test_dueling_streams_have_a_last_hidden_layer_each():
    params = QNetwork(3, "mlp", (8, 6), dueling=True).init(jax.random.key(0), jnp.zeros((1, 4)))["params"]
    shapes = sorted(p["kernel"].shape for p in params.values())
    assert shapes == [(4, 8), (6, 1), (6, 3), (8, 6), (8, 6)]


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize(("torso", "shape"), [("mlp", (4,)), ("mlp", (5, 4)), ("minatar", (10, 10, 4))])
def test_one_float32_value_per_action(torso, shape, dueling):
    network = QNetwork(6, torso, (8,), dueling=dueling)
    obs = jnp.zeros((ROWS, *shape))
    q = jax.eval_shape(lambda: network.apply(network.init(jax.random.key(0), obs), obs))
    assert (q.shape, q.dtype) == ((ROWS, 6), jnp.float32)


def test_no_hidden_layer_is_a_linear_network():
    params = QNetwork(2, "mlp", ()).init(jax.random.key(0), jnp.zeros((1, 4)))["params"]
    assert [p["kernel"].shape for p in params.values()] == [(4, 2)]


@pytest.mark.parametrize("torso", ["mlp", "minatar"])
def test_bytes_and_floats_give_the_same_values(torso, images):
    network = QNetwork(3, torso, (8,))
    params = network.init(jax.random.key(0), images)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    np.testing.assert_array_equal(network.apply(params, images.astype(np.uint8)), network.apply(params, images))


@pytest.mark.parametrize("torso", ["mlp", "minatar"])
def test_rows_do_not_see_each_other(torso, images):
    network = QNetwork(3, torso, (8,))
    params = network.init(jax.random.key(0), images)
    together = network.apply(params, images)
    changed = network.apply(params, np.concatenate([images[:1], 1.0 - images[1:]]))
    np.testing.assert_allclose(changed[0], together[0], rtol=1e-5, atol=1e-6)
    assert not np.allclose(changed[1:], together[1:])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_the_one_named(name):
    obs = jnp.array([[-1.0, 0.5]])
    network = QNetwork(2, "mlp", (3,), activation=name)
    params = network.init(jax.random.key(0), obs)
    first, last = params["params"]["Dense_0"], params["params"]["Dense_1"]
    hidden = getattr(jax.nn, name)(obs @ first["kernel"])
    np.testing.assert_allclose(network.apply(params, obs), hidden @ last["kernel"], rtol=1e-5, atol=1e-6)


def kernels(weight_init, rows=200):
    """All dense kernels of `rows` networks drawn from different keys, `[rows, fan_in, fan_out]` each."""
    network = QNetwork(3, "mlp", (24, 16), **weight_init)
    params = jax.vmap(lambda key: network.init(key, jnp.zeros((1, 5))))(jax.random.split(jax.random.key(0), rows))
    for layer in params["params"].values():
        np.testing.assert_array_equal(layer["bias"], 0.0)
    found = [np.asarray(layer["kernel"]) for layer in params["params"].values()]
    assert [kernel.shape[1:] for kernel in found] == [(5, 24), (24, 16), (16, 3)]
    return found


def test_glorot_uniform_fills_its_interval_evenly():
    for kernel in kernels({"weight_init": "glorot_uniform"}):
        bound = np.sqrt(6.0 / sum(kernel.shape[1:]))
        assert np.max(np.abs(kernel)) <= bound
        assert scipy.stats.kstest(kernel.ravel(), scipy.stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
        assert np.std(kernel) == pytest.approx(bound / np.sqrt(3), rel=0.03)


@pytest.mark.parametrize(("weight_init", "gain"), [({}, 1.0), ({"weight_init": "he_normal"}, 2.0)])
def test_default_weights_have_the_variance_one_over_fan_in_and_he_twice_that(weight_init, gain):
    for kernel in kernels(weight_init):
        assert np.std(kernel) == pytest.approx(np.sqrt(gain / kernel.shape[1]), rel=0.03)
        # A normal cut at two of its standard deviations, 0.88 of which remain; a uniform would end at 1.73.
        assert np.max(np.abs(kernel)) / np.std(kernel) == pytest.approx(2 / 0.88, rel=0.03)


def test_default_weights_are_those_of_flax():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Dense(6)(x))
            return nn.Dense(2)(x)

    obs = jnp.zeros((1, 4))
    ours, plain = (network.init(jax.random.key(1), obs) for network in (QNetwork(2, "mlp", (6,)), Plain()))
    jax.tree.map(np.testing.assert_array_equal, ours, plain)
