"""Noisy layers: mean and variance against the closed form, and draws that are never the same twice."""

from __future__ import annotations

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import scalars, tiny

from dqn_jax.agent import ALGORITHMS, Loss, make_agent
from dqn_jax.agent.dqn import DQN
from dqn_jax.agent.noisy import Noise, NoisyDense, factor, with_sigma
from dqn_jax.config import Config, HParams
from dqn_jax.lanes.device import make_loop
from dqn_jax.prng import make_key
from dqn_jax.types import Batch, EnvSpec, Transition

INPUTS, OUTPUTS, DRAWS = 3, 4, 20_000
QUICK = {"xla_backend_optimization_level": 0}
SPEC = EnvSpec("here", (INPUTS,), jnp.float32, 2, 100)
LAYER = NoisyDense(OUTPUTS, nn.initializers.lecun_normal())
SECOND_MOMENT = np.sqrt(2 / np.pi)  # of f(x) = sign(x) sqrt(|x|), whose square is |x|


def factors(key):
    noise = factor(key, INPUTS + OUTPUTS)
    return noise[:INPUTS], noise[INPUTS:]


def random_weights(seed):
    params = LAYER.init(make_key(0), jnp.zeros((1, INPUTS)), None)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)


def test_factor_has_mean_zero_and_the_second_moment_of_the_paper():
    drawn = np.float64(factor(make_key(1), 100_000))
    # Its square is |x|, of variance 1 - 2 / pi; five standard errors.
    assert abs(drawn.mean()) < 5 * np.sqrt(SECOND_MOMENT / drawn.size)
    assert abs(np.mean(drawn**2) - SECOND_MOMENT) < 5 * np.sqrt((1 - 2 / np.pi) / drawn.size)
    x = jax.random.normal(make_key(1), (100_000,))
    np.testing.assert_allclose(drawn * np.abs(drawn), x, rtol=1e-5, atol=1e-6)


def test_outputs_have_the_mean_and_the_covariance_of_the_closed_form():
    params, x = random_weights(0), np.float32([[0.5, -2.0, 1.0]])
    keys = jax.random.split(make_key(2), DRAWS)
    outputs = np.float64(jax.jit(jax.vmap(lambda key: LAYER.apply(params, x, factors(key))[0]))(keys))
    weights = {name: np.float64(value) for name, value in params["params"].items()}
    mean = (x @ weights["kernel"] + weights["bias"])[0]
    # y_j = mean_j + q_j (sum_i x_i sigma_ij p_i + sigma_j); outputs share p but not q, so that they are uncorrelated.
    inner = SECOND_MOMENT * (x**2 @ weights["kernel_sigma"] ** 2)[0] + weights["bias_sigma"] ** 2
    variance = SECOND_MOMENT * inner
    np.testing.assert_allclose(outputs.mean(0), mean, atol=5 * np.sqrt(variance.max() / DRAWS))
    correlation = np.cov(outputs.T) / np.sqrt(np.outer(variance, variance))
    np.testing.assert_allclose(correlation, np.eye(OUTPUTS), atol=0.06)


def test_noise_is_an_outer_product_shared_by_all_rows_of_a_call():
    params = random_weights(1)
    pure = {**jax.tree.map(jnp.zeros_like, params["params"])}
    pure |= {"kernel_sigma": jnp.ones((INPUTS, OUTPUTS)), "bias_sigma": jnp.ones((OUTPUTS,))}
    rows = jnp.concatenate([jnp.zeros((1, INPUTS)), jnp.eye(INPUTS), jnp.eye(INPUTS)])
    bias, *noise = np.float64(LAYER.apply({"params": pure}, rows, factors(make_key(3))))
    noise = np.array(noise) - bias
    np.testing.assert_allclose(noise[:INPUTS], noise[INPUTS:], atol=1e-6)
    p = noise[:INPUTS, 0] / bias[0]
    np.testing.assert_allclose(noise[:INPUTS], np.outer(p, bias), atol=1e-5)


def test_without_noise_it_is_a_dense_layer_of_the_means():
    params, x = random_weights(2), np.random.default_rng(0).normal(size=(5, INPUTS)).astype(np.float32)
    means = {"params": {name: params["params"][name] for name in ("kernel", "bias")}}
    np.testing.assert_array_equal(LAYER.apply(params, x, None), nn.Dense(OUTPUTS).apply(means, x))
    assert not np.allclose(LAYER.apply(params, x, factors(make_key(0))), LAYER.apply(params, x, None))


def test_each_lane_starts_with_its_own_sigma_over_the_square_root_of_fan_in():
    agent = make_agent(Config(noisy=True, hidden=(16, 5), dueling=True), SPEC)
    init = jax.jit(jax.vmap(lambda key, sigma: agent.init(key, HParams(noisy_sigma=sigma)), in_axes=(None, 0)))
    states = init(make_key(0), jnp.float32([0.5, 0.1]))
    layers = states.params["params"]
    assert sorted(layer["kernel"].shape[1:] for layer in layers.values()) == [(3, 16), (5, 1), (5, 2), (16, 5), (16, 5)]
    for layer in layers.values():
        fan_in = layer["kernel"].shape[1]
        for name in ("kernel_sigma", "bias_sigma"):
            for sigma, leaf in zip((0.5, 0.1), layer[name], strict=True):
                np.testing.assert_allclose(leaf, sigma / np.sqrt(fan_in), rtol=1e-6)
        np.testing.assert_array_equal(layer["kernel"][0], layer["kernel"][1])  # one seed, one mean
    jax.tree.map(np.testing.assert_array_equal, states.params, states.target_params)
    assert with_sigma({"a": {"kernel": 1.0, "kernel_sigma": 1.0}}, 0.5) == {"a": {"kernel": 1.0, "kernel_sigma": 0.5}}


@pytest.mark.parametrize("torso", ["minatar", "impala"])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_all_dense_layers_behind_a_torso_are_noisy_and_convolutions_are_not(torso, layer_norm):
    spec = SPEC._replace(obs_shape=(10, 10, 2))
    settings = Config(torso=torso, hidden=(8,), layer_norm=layer_norm)
    plain, noisy = (
        jax.eval_shape(make_agent(config, spec).init, make_key(0), HParams()).params
        for config in (settings, Config(torso=torso, hidden=(8,), layer_norm=layer_norm, noisy=True))
    )
    sizes = [sum(x.size for x in jax.tree.leaves(params)) for params in (plain, noisy)]
    dense = sum(x.size for name, layer in plain["params"].items() if "Dense" in name for x in jax.tree.leaves(layer))
    assert sizes[1] == sizes[0] + dense
    assert sum("sigma" in jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(noisy)) == 4


# -- draws


@pytest.mark.parametrize("hidden", [(5,), (8, 5)])
@pytest.mark.parametrize("dueling", [False, True])
def test_the_draw_of_a_network_is_taken_whole_and_no_number_twice(dueling, hidden):
    shared, last = (hidden[:-1], hidden[-1:]) if dueling else (hidden, ())
    shared, streams = (INPUTS, *shared), [(*last, actions) for actions in ((1, 2) if dueling else (2,))]
    drawn, taken = Noise(), []
    drawn.draw(make_key(0), shared, streams)
    for chain in [shared, *((shared[-1], *stream) for stream in streams)]:
        for inputs, features in itertools.pairwise(chain):
            p, q = drawn.take(inputs, features)
            assert (p.shape, q.shape) == ((inputs,), (features,))
            taken += [p, q]
    assert drawn.take(0, 0)[0].size == 0
    numbers = np.concatenate(taken)
    assert len(np.unique(numbers)) == len(numbers)
    np.testing.assert_array_equal(numbers, factor(make_key(0), len(numbers)))


def agent_of(**changes):
    agent = make_agent(Config(noisy=True, hidden=(8,), **changes), SPEC)
    return agent, agent.init(make_key(0), HParams())


def test_every_layer_and_every_call_has_a_noise_of_its_own_and_evaluations_none():
    agent, state = agent_of()
    obs = jnp.ones((3, INPUTS))
    first, same, other = (agent.predict(state.params, obs, make_key(i)).q_values for i in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert not np.any(first == other)
    calm = [agent.judged(state.params, obs, make_key(i)).q_values for i in (0, 1)]
    np.testing.assert_array_equal(*calm)
    np.testing.assert_array_equal(agent.q_values(state.params, obs), calm[0])
    plain = make_agent(Config(hidden=(8,)), SPEC)
    names = {f"NoisyDense_{i}": f"Dense_{i}" for i in range(2)}
    means = {names[n]: {k: p[k] for k in ("kernel", "bias")} for n, p in state.params["params"].items()}
    np.testing.assert_array_equal(plain.q_values({"params": means}, obs), calm[0])


def test_evaluations_have_noise_by_option():
    agent, state = agent_of(eval_noise=True)
    obs = jnp.ones((3, INPUTS))
    judged = [agent.judged(state.params, obs, make_key(i)).q_values for i in (0, 1)]
    assert not np.any(judged[0] == judged[1])
    actions = [np.asarray(agent.play(state.params, obs, 0.0, make_key(i))) for i in range(30)]
    assert len({tuple(a) for a in actions}) == 2  # of either action: all rows of a call share its noise


def test_all_views_of_an_update_draw_for_themselves_and_anew_in_every_update(monkeypatch):
    def loss(settings, target):
        def of_example(views, transition, hparams):
            q_values = jnp.stack([view.q_values[0] for view in views])
            return Loss(views.online_tm1.q_values[0], q_values[jnp.int32(transition.r_t)])

        return of_example

    monkeypatch.setitem(ALGORITHMS, "squared", DQN._replace(loss=loss))
    agent, state = agent_of()
    obs = jnp.ones((4, INPUTS))  # the same observation and, as yet, the same weights in all four views
    batch = Batch(Transition(obs, jnp.zeros(4, jnp.int32), jnp.arange(4.0), jnp.ones(4), obs), None, jnp.arange(4))
    learn = jax.jit(agent.learn)
    seen = [learn(state._replace(updates=jnp.int32(n)), batch, HParams(), make_key(5))[2] for n in (0, 1, 2)]
    acted = agent.predict(state.params, obs, make_key(5)).q_values[:1, 0]
    assert len(np.unique(np.concatenate([*seen, acted]))) == 3 * 4 + 1
    again = learn(state, batch, HParams(), make_key(5))[2]
    np.testing.assert_array_equal(again, seen[0])


def test_a_lane_draws_anew_in_every_step_that_it_acts_and_in_every_training():
    config = tiny(noisy=True, epsilon_schedule="constant", num_envs=2, min_replay=40, eval_every=40, total_steps=80)
    hparams = scalars(HParams(epsilon_start=0.0, noisy_sigma=2.0, learning_rate=1e-2, discount=0.0))
    loop = make_loop(config)
    lane, _ = jax.jit(loop.start, compiler_options=QUICK)(jnp.int32(0), hparams)
    actions = np.asarray(lane.replay.storage.a_tm1)[:20]
    np.testing.assert_array_equal(actions[:, 0], actions[:, 1])  # one noise in every step
    assert 0 < np.sum(actions[1:, 0] != actions[:-1, 0]) < 19  # of the same observation, and nothing was learnt
    new, metrics = jax.jit(loop.chunk, compiler_options=QUICK)(jnp.int32(40), lane, hparams)
    assert bool(metrics.finite)
    sigmas = [s.params["params"]["NoisyDense_0"]["kernel_sigma"] for s in (lane.agent, new.agent)]
    assert not np.array_equal(*sigmas)  # they are learnt


def test_a_noisy_agent_learns_without_epsilon():
    config = tiny(env="ProbePolicy-test", noisy=True, epsilon_schedule="constant")
    hparams = scalars(HParams(epsilon_start=0.0, learning_rate=1e-2, discount=0.8, target_period=5))
    loop = make_loop(config)
    lane, _ = jax.jit(loop.start, compiler_options=QUICK)(jnp.int32(0), hparams)
    chunk = jax.jit(loop.chunk, compiler_options=QUICK)
    for i in range(loop.num_chunks):
        lane, metrics = chunk(jnp.int32(loop.warmup_steps + i * loop.steps_per_chunk), lane, hparams)
    np.testing.assert_array_equal(metrics.eval_returns, np.ones(8))
    q = loop.agent.q_values(lane.agent.params, jnp.float32([[1.0], [-1.0]]))
    assert np.all(np.sign(np.diff(q, axis=1)[:, 0]) == [1, -1])
    np.testing.assert_allclose(np.max(q, axis=1), [1.0, 1.0], atol=0.15)
