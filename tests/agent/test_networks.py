"""Torsos and heads: equality with flax's own layers, the dueling identity, shapes and dtypes."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dqn_jax.agent.convolutions import ordered_convolution, plain_convolution
from dqn_jax.agent.networks import ACTIVATIONS, Network, choose_torso, smallest_image

ROWS = 5
TORSOS = ("mlp", "minatar", "dqn2013", "nature", "impala")
PIXELS = ("dqn2013", "nature", "impala")
CONVOLUTIONS = [plain_convolution, ordered_convolution]


class QNetwork:
    """A network whose head is DQN's, of which the Q-values are asked."""

    def __init__(self, *fields, **more):
        self._network = Network(*fields, **more)

    def init(self, key, obs):
        return self._network.init(key, obs, jax.random.key(0))

    def apply(self, params, obs):
        return self._network.apply(params, obs, jax.random.key(0)).q_values


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 2, (ROWS, 7, 6, 3)).astype(np.float32)


def pixels(torso):
    """A few images of bytes, not square and little larger than `torso` needs."""
    height = max(smallest_image(torso), 6)
    return np.random.default_rng(0).integers(0, 256, (ROWS, height, height + 5, 3)).astype(np.uint8)


def operations(function, *args):
    """The convolutions and matrix products of a function as it is given to the compiler, a line each."""
    lines = jax.jit(function).lower(*args).as_text().splitlines()
    return [line for line in lines if "stablehlo.convolution" in line or "stablehlo.dot_general" in line]


# -- networks


def test_both_forms_serve_the_same_weights_of_a_whole_network(monkeypatch):
    obs, network = pixels("nature"), QNetwork(3, "nature", (8,))
    found = []
    for convolve in CONVOLUTIONS:
        monkeypatch.setattr("dqn_jax.agent.convolutions.fastest_convolution", lambda _, convolve=convolve: convolve)
        params = network.init(jax.random.key(0), obs)
        values = jax.jit(jax.value_and_grad(lambda p: jnp.mean(network.apply(p, obs) ** 2)))(params)
        found.append((params, values))
    (plain, expected), (ordered, got) = found
    jax.tree.map(np.testing.assert_array_equal, ordered, plain)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, expected)


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


@pytest.mark.parametrize("torso", TORSOS)
def test_dueling_values_average_to_the_value_stream_and_ignore_a_common_advantage(torso, images):
    images = pixels(torso) if torso in PIXELS else images
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
@pytest.mark.parametrize(
    ("torso", "shape"), [("mlp", (4,)), ("mlp", (5, 4)), ("minatar", (10, 10, 4)), *((t, (84, 84, 4)) for t in PIXELS)]
)
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


@pytest.mark.parametrize("torso", TORSOS)
def test_rows_do_not_see_each_other(torso, images):
    images = pixels(torso) / np.float32(255) if torso in PIXELS else images
    network = QNetwork(3, torso, (8,))
    params = network.init(jax.random.key(0), images)
    together = network.apply(params, images)
    changed = network.apply(params, np.concatenate([images[:1], 1.0 - images[1:]]))
    np.testing.assert_allclose(changed[0], together[0], rtol=1e-5, atol=1e-6)
    assert not np.allclose(changed[1:], together[1:])


# -- pixels


class Plain(nn.Module):
    """The published pixel networks in flax's own layers, for images whose values are 0 to 1."""

    torso: str
    hidden: int

    @nn.compact
    def __call__(self, x):
        if self.torso == "dqn2013":
            x = nn.relu(nn.Conv(16, (8, 8), (4, 4), padding="VALID")(x))
            x = nn.relu(nn.Conv(32, (4, 4), (2, 2), padding="VALID")(x))
        if self.torso == "nature":
            x = nn.relu(nn.Conv(32, (8, 8), (4, 4), padding="VALID")(x))
            x = nn.relu(nn.Conv(64, (4, 4), (2, 2), padding="VALID")(x))
            x = nn.relu(nn.Conv(64, (3, 3), (1, 1), padding="VALID")(x))
        if self.torso == "impala":
            for features in (16, 32, 32):
                x = ImpalaStage(features)(x)
            x = nn.relu(x)
        x = nn.relu(nn.Dense(self.hidden)(x.reshape(x.shape[0], -1)))
        return nn.Dense(3)(x)


class ImpalaStage(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.features, (3, 3), padding="SAME")(x)
        x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
        for _ in range(2):
            block = nn.Conv(self.features, (3, 3), padding="SAME")(nn.relu(x))
            x = x + nn.Conv(self.features, (3, 3), padding="SAME")(nn.relu(block))
        return x


@pytest.mark.parametrize("torso", PIXELS)
def test_pixel_networks_are_the_published_ones_with_the_first_weights_of_flax(torso):
    obs, network, plain = pixels(torso), QNetwork(3, torso, (8,)), Plain(torso, 8)
    params = network.init(jax.random.key(0), obs)
    jax.tree.map(np.testing.assert_array_equal, params, plain.init(jax.random.key(0), np.float32(obs)))
    # Biases count too.
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + np.float32(0.1) * rng.normal(size=x.shape).astype(np.float32), params)
    expected = plain.apply(params, np.float32(obs) / 255)
    np.testing.assert_allclose(network.apply(params, obs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("torso", "hidden", "weights"),
    [
        # 8x8x4x32 + 32, 4x4x32x64 + 64, 3x3x64x64 + 64, 7x7x64x512 + 512
        ("nature", 512, 8_224 + 32_832 + 36_928 + 1_606_144),
        # 8x8x4x16 + 16, 4x4x16x32 + 32, 9x9x32x256 + 256
        ("dqn2013", 256, 4_112 + 8_224 + 663_808),
        # Three stages of 3x3 convolutions, to 42x42x16, 21x21x32 and 11x11x32, then 11x11x32x256 + 256
        ("impala", 256, (592 + 4 * 2_320) + (4_640 + 4 * 9_248) + 5 * 9_248 + 991_488),
    ],
)
def test_pixel_networks_have_the_published_number_of_weights(torso, hidden, weights):
    network = QNetwork(6, torso, (hidden,))
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 84, 84, 4), jnp.uint8)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == weights + hidden * 6 + 6


@pytest.mark.parametrize("torso", PIXELS)
def test_bytes_are_scaled_to_one_once_and_floats_are_taken_as_they_are(torso):
    obs, network = pixels(torso), QNetwork(3, torso, (8,))
    params = network.init(jax.random.key(0), obs)
    scaled = network.apply(params, np.float32(obs) / 255)
    np.testing.assert_allclose(network.apply(params, obs), scaled, rtol=1e-5, atol=1e-6)
    assert np.std(scaled) > 1e-3  # a second division would show


def test_no_gradient_is_worked_out_for_the_bytes():
    obs, network = pixels("nature"), QNetwork(3, "nature", (8,))
    params = network.init(jax.random.key(0), obs)

    def loss(params, obs):
        return jnp.mean(network.apply(params, obs) ** 2)

    # Three forward, three for the kernels, two for what came from a layer below: none for the images.
    learning = operations(jax.grad(loss), params, obs)
    assert sum("convolution" in line for line in learning) == 8
    with_images = operations(jax.grad(loss, argnums=(0, 1)), params, np.float32(obs))
    assert sum("convolution" in line for line in with_images) == 9


@pytest.mark.parametrize(("torso", "least"), [("minatar", 3), ("dqn2013", 20), ("nature", 36), ("impala", 1)])
def test_smallest_image_leaves_one_position(torso, least):
    assert smallest_image(torso) == least
    obs, network = jnp.zeros((1, least, least, 2), jnp.uint8), QNetwork(3, torso, (8,))
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), obs))
    features = {"minatar": 16, "dqn2013": 32, "nature": 64, "impala": 32}[torso]
    assert params["params"]["Dense_0"]["kernel"].shape == (features, 8)


@pytest.mark.parametrize(
    ("shape", "dtype", "torso"),
    [
        ((84, 84, 4), np.uint8, "nature"),
        ((36, 36, 1), jnp.uint8, "nature"),
        ((35, 84, 4), jnp.uint8, "minatar"),
        ((10, 10, 4), jnp.uint8, "minatar"),
        ((84, 84, 4), jnp.float32, "minatar"),
        ((84, 84), jnp.uint8, "mlp"),
        ((128,), jnp.uint8, "mlp"),
        ((84, 84, 3, 4), jnp.uint8, "nature"),  # four frames in colour
        ((7, 7, 3, 2), jnp.uint8, "minatar"),
        ((5, 5), jnp.float32, "mlp"),
    ],
)
def test_torso_follows_from_the_observation(shape, dtype, torso):
    assert choose_torso(shape, dtype) == torso


@pytest.mark.parametrize("torso", TORSOS)
def test_channels_of_all_frames_of_a_stack_are_seen(torso):
    image = pixels(torso)
    stack = np.stack([image, image[::-1], 255 - image], axis=-1)
    network = QNetwork(4, torso, (16,))
    params = network.init(jax.random.key(0), stack)
    flat = stack.reshape(*image.shape[:3], 9)
    q_values = network.apply(params, stack)
    np.testing.assert_array_equal(q_values, network.apply(params, flat))
    for i in range(3):
        changed = stack.copy()
        changed[..., i] = 0
        assert not np.allclose(network.apply(params, changed), q_values)


# -- precision


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("torso", TORSOS)
def test_bfloat16_is_computed_in_and_nothing_else(torso, dueling):
    obs = pixels(torso)
    single, half = (QNetwork(3, torso, (16, 8), dueling=dueling, compute_dtype=t) for t in ("float32", "bfloat16"))
    params = half.init(jax.random.key(0), obs)
    jax.tree.map(np.testing.assert_array_equal, params, single.init(jax.random.key(0), obs))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))

    def loss(params, network):
        return jnp.mean(network.apply(params, obs) ** 2)

    grads = jax.grad(loss)
    assert all("f32" not in line and "bf16" in line for line in operations(lambda p: grads(p, half), params))
    assert all("bf16" not in line for line in operations(lambda p: grads(p, single), params))

    exact, rough = single.apply(params, obs), half.apply(params, obs)
    assert rough.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(jax.eval_shape(lambda: grads(params, half))))
    # Eight bits of precision, through up to 18 layers.
    error = np.max(np.abs(rough - exact)) / np.std(exact)
    assert 0 < error < 0.1


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_the_one_named(name):
    obs = jnp.array([[-1.0, 0.5]])
    network = QNetwork(2, "mlp", (3,), activation=name)
    params = network.init(jax.random.key(0), obs)
    first, last = params["params"]["Dense_0"], params["params"]["Dense_1"]
    hidden = getattr(jax.nn, name)(obs @ first["kernel"])
    np.testing.assert_allclose(network.apply(params, obs), hidden @ last["kernel"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("torso", ["mlp", "minatar", "impala"])
def test_layer_norm_normalises_what_every_hidden_layer_gives(torso, images):
    network = QNetwork(2, torso, (8, 4), layer_norm=True, dueling=True)
    params = network.init(jax.random.key(0), images)
    plain = QNetwork(2, torso, (8, 4), dueling=True).init(jax.random.key(0), images)

    def count(tree, leaf):
        return sum(jax.tree_util.keystr(path).endswith(f"['{leaf}']") for path, _ in jax.tree.leaves_with_path(tree))

    hidden = {"mlp": 3, "minatar": 1 + 3, "impala": 3 * 4 + 1 + 3}[torso]
    assert count(params, "scale") == hidden
    assert count(params, "kernel") == count(plain, "kernel")
    # Normalised: a factor on all the weights of the first layer changes nothing (up to the epsilon in the variance).
    first = next(name for name in params["params"] if name != "LayerNorm_0")
    if torso != "impala":
        larger = {**params["params"], first: jax.tree.map(lambda x: 100.0 * x, params["params"][first])}
        np.testing.assert_allclose(
            network.apply({"params": larger}, images), network.apply(params, images), rtol=2e-2, atol=2e-2
        )


def test_layer_norm_is_that_of_its_paper():
    obs = jnp.array([[-1.0, 0.5]])
    network = QNetwork(2, "mlp", (3,), layer_norm=True)
    params = network.init(jax.random.key(0), obs)
    first, last = params["params"]["Dense_0"], params["params"]["Dense_1"]
    x = np.float64(obs @ first["kernel"])
    normal = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
    np.testing.assert_allclose(network.apply(params, obs), np.maximum(normal, 0) @ last["kernel"], rtol=1e-4, atol=1e-5)


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
