"""The Hadamax torso: its paper's network in flax's own layers, with any head, on small images and over pools."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pools import PONG
from probes import scalars

from dqn_jax.agent import make_agent
from dqn_jax.agent.convolutions import ordered_convolution, plain_convolution
from dqn_jax.agent.networks import Network
from dqn_jax.config import Config, HParams
from dqn_jax.lanes.pool import make_pool_loop
from dqn_jax.presets import PRESETS
from dqn_jax.types import EnvSpec, Transition

QUICK = {"xla_backend_optimization_level": 0}


class Published(nn.Module):
    """Kooi et al. 2025, appendix B, for images whose values are 0 to 1: layer after layer, and the layers behind it."""

    hidden: int

    @nn.compact
    def __call__(self, x):
        for features, size, pool, stride in ((32, 8, 4, 4), (64, 4, 2, 2), (64, 3, 3, 1)):
            left, right = (
                nn.Conv(features, (size, size), padding="SAME", kernel_init=nn.initializers.xavier_normal())(x)
                for _ in range(2)
            )
            left, right = nn.LayerNorm()(left), nn.LayerNorm()(right)
            x = nn.max_pool(nn.gelu(left) * nn.gelu(right), (pool, pool), (stride, stride), padding="SAME")
        x = nn.Dense(self.hidden, kernel_init=nn.initializers.he_normal())(x.reshape(x.shape[0], -1))
        return nn.Dense(3)(nn.gelu(nn.LayerNorm()(x)))


def flat(params):
    """Our weights under the names of a network whose layers are all in one module."""
    ours = dict(params["params"])
    plain = {name: ours.pop(name) for name in ("Dense_0", "Dense_1")} | {"LayerNorm_6": ours.pop("LayerNorm_0")}
    for block in range(3):
        for name, layer in ours.pop(f"HadamaxBlock_{block}").items():
            kind, branch = name.split("_")
            plain[f"{kind}_{2 * block + int(branch)}"] = layer
    assert not ours
    return {"params": plain}


def network_of(hidden):
    return Network(3, "hadamax", (hidden,), "gelu", layer_norm=True, weight_init="he_normal")


def shaken(params):
    """Scales and biases count too."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + np.float32(0.1) * rng.normal(size=x.shape).astype(np.float32), params)


@pytest.mark.parametrize("convolve", [plain_convolution, ordered_convolution])
def test_it_is_the_published_network_in_values_and_gradients(convolve, monkeypatch):
    monkeypatch.setattr("dqn_jax.agent.convolutions.fastest_convolution", lambda _: convolve)
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 256, (2, 22, 17, 3)).astype(np.uint8)
    g = rng.normal(size=(2, 3)).astype(np.float32)
    network, published = network_of(8), Published(8)

    def ours(params):
        return network.apply(params, obs, jax.random.key(0)).q_values

    def theirs(params):
        return published.apply(flat(params), np.float32(obs) / 255)

    key = jax.random.key(0)
    params = shaken(jax.jit(network.init, compiler_options=QUICK)(key, obs, key))

    def both(params):
        def of(f):
            return *jax.value_and_grad(lambda p: jnp.sum(g * f(p)))(params), f(params)

        return of(ours), of(theirs)

    got, expected = jax.jit(both, compiler_options=QUICK)(params)
    np.testing.assert_allclose(got[2], expected[2], rtol=1e-4, atol=1e-5)
    size = max(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(expected[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * size), got[1], expected[1])


def test_it_has_the_published_weights_and_the_deviations_they_start_with():
    obs = jnp.zeros((1, 84, 84, 4), jnp.uint8)
    network = Network(6, "hadamax", (512,), "gelu", layer_norm=True, weight_init="he_normal")
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), obs, jax.random.key(0)))
    # Two branches a block, of kernels, biases, and scales and biases of the normalisation.
    blocks = 2 * (8 * 8 * 4 * 32 + 3 * 32) + 2 * (4 * 4 * 32 * 64 + 3 * 64) + 2 * (3 * 3 * 64 * 64 + 3 * 64)
    behind = 11 * 11 * 64 * 512 + 3 * 512 + 512 * 6 + 6
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == blocks + behind
    assert params["params"]["Dense_0"]["kernel"].shape == (11 * 11 * 64, 512)  # 84, 21, 11, 11

    init, key = jax.jit(network_of(4).init, compiler_options=QUICK), jax.random.key(0)
    small = init(key, jnp.zeros((1, 8, 8, 4)), key)["params"]
    for name, size, inputs, features in (("0", 8, 4, 32), ("1", 4, 32, 64), ("2", 3, 64, 64)):
        first, second = (small[f"HadamaxBlock_{name}"][f"Conv_{branch}"]["kernel"] for branch in "01")
        assert not np.array_equal(first, second)
        expected = np.sqrt(2 / (size**2 * (inputs + features)))
        assert np.std([first, second]) == pytest.approx(expected, rel=0.03)


def test_what_is_normalised_and_how_is_the_torsos_own_whatever_the_layers_behind_have():
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 9, 2)), jnp.float32)
    plain, key = Network(2, "hadamax", (), "tanh"), jax.random.key(0)
    params = jax.jit(plain.init, compiler_options=QUICK)(key, obs, key)
    assert sorted(params["params"]["HadamaxBlock_0"]) == ["Conv_0", "Conv_1", "LayerNorm_0", "LayerNorm_1"]
    other = Network(2, "hadamax", (), "relu", layer_norm=True)
    values = [jax.jit(net.apply, compiler_options=QUICK)(params, obs, key).q_values for net in (plain, other)]
    np.testing.assert_array_equal(*values)


def test_in_bfloat16_convolutions_are_and_weights_are_not():
    obs = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3)).astype(np.uint8)
    single, half = (dataclasses.replace(network_of(8), compute_dtype=dtype) for dtype in ("float32", "bfloat16"))
    key = jax.random.key(0)
    params = jax.jit(half.init, compiler_options=QUICK)(key, obs, key)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))

    def loss(params):
        return jnp.mean(half.apply(params, obs, key).q_values ** 2)

    lines = jax.jit(jax.grad(loss)).lower(params).as_text().splitlines()
    convolutions = [line for line in lines if "stablehlo.convolution" in line]
    assert len(convolutions) == 6 + 6 + 4
    assert all("bf16" in line and "f32" not in line for line in convolutions)
    exact, rough = (
        jax.jit(network.apply, compiler_options=QUICK)(params, obs, key).q_values for network in (single, half)
    )
    assert 0 < np.max(np.abs(rough - exact)) / np.std(exact) < 0.1


@pytest.mark.parametrize(
    "parts",
    [
        dict(loss="categorical", dueling=True, noisy=True),
        dict(loss="quantile", dueling=True),
        dict(loss="implicit_quantile", noisy=True),
        dict(loss="hl_gauss"),
    ],
    ids=lambda parts: parts["loss"],
)
def test_any_head_stands_behind_it(parts):
    config = Config(torso="hadamax", hidden=(4,), atoms=5, **parts)
    agent = make_agent(config, EnvSpec("test", (10, 10, 4), jnp.float32, 3, 10))  # MinAtar's
    obs, numbers = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((5, 10, 10, 4), (5,)))
    batch = Transition(obs, jax.ShapeDtypeStruct((5,), jnp.int32), numbers, numbers, obs)

    def learn(key, batch):
        state = agent.init(key, HParams())
        return state, agent.update(state, batch, HParams(), jnp.ones(5))[0]

    with jax.debug_key_reuse(False):
        before, after = jax.eval_shape(learn, jax.random.key(0), batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(lambda x: (x.shape, x.dtype), after)


def test_it_learns_from_the_frames_of_a_pool_in_shapes():
    loop = make_pool_loop(dataclasses.replace(PONG, torso="hadamax", frame_size=12))

    def learn(seed):
        lane = loop.start(seed, scalars(HParams()))
        return lane, loop.learn(jnp.int32(2), lane, scalars(HParams()))[0]

    with jax.debug_key_reuse(False):
        before, after = jax.eval_shape(learn, jnp.int32(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
    assert before.agent.params["params"]["HadamaxBlock_0"]["Conv_0"]["kernel"].shape == (8, 8, 3, 32)  # 3 frames


def test_the_preset_is_pqns_but_for_the_torso():
    published, pqn = PRESETS["pqn-hadamax"], PRESETS["pqn"]
    assert published.hparams == pqn.hparams
    torso = dict(torso="nature", activation="relu")
    assert dataclasses.replace(published.config, **torso) == pqn.config
    assert (published.config.layer_norm, published.config.hidden) == (True, (512,))
