"""The agent's update against plain NumPy; target moves, exploration, clipping, optimisers, tracing."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from dqn_jax.agent import make_agent
from dqn_jax.config import Config, ConfigError, HParams
from dqn_jax.lanes.lane import stack_hparams
from dqn_jax.prng import make_key, random_index
from dqn_jax.types import Batch, EnvSpec, Transition

ACTIONS, FEATURES, BATCH = 3, 2, 6
SPEC = EnvSpec("Test-v0", (FEATURES,), jnp.float32, ACTIONS, 100)
SGD = Config(optimizer="sgd", hidden=(4,))
HPARAMS = HParams(learning_rate=0.1, discount=0.9, huber_delta=0.5, target_period=1000)


@functools.cache
def compiled(config):
    """The agent and its jitted update, one program for all values of the hyperparameters."""
    agent = make_agent(config, SPEC)
    return agent, jax.jit(agent.update), jax.jit(agent.init)


def traced(**values):
    """Hyperparameters as the loop gives them: float32 and int32 scalars."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), stack_hparams(HPARAMS._replace(**values), 1))


def make_batch(seed=0):
    rng = np.random.default_rng(seed)
    return Transition(
        obs_tm1=rng.normal(size=(BATCH, FEATURES)).astype(np.float32),
        a_tm1=rng.integers(0, ACTIONS, BATCH).astype(np.int32),
        r_t=rng.normal(size=BATCH).astype(np.float32),
        discount_t=np.array([1, 1, 0, 1, 0, 1], np.float32),
        obs_t=rng.normal(size=(BATCH, FEATURES)).astype(np.float32),
    )


def perturbed(params, seed):
    """Other weights of the same shapes, biases included."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.asarray(x) + rng.normal(size=x.shape).astype(np.float32), params)


def layers(params):
    dense = params["params"]
    return [(np.float64(dense[f"Dense_{i}"]["kernel"]), np.float64(dense[f"Dense_{i}"]["bias"])) for i in (0, 1)]


def numpy_q(params, obs):
    (w0, b0), (w1, b1) = layers(params)
    hidden = np.maximum(obs @ w0 + b0, 0.0)
    return hidden, hidden @ w1 + b1


def numpy_step(params, target_params, batch, *, double, huber, learning_rate=0.1, discount=0.9, delta=0.5):
    """One DQN step by SGD with the gradient worked out by hand: new layers, loss, mean |TD|, mean Q."""
    (w0, b0), (w1, b1) = layers(params)
    rows = np.arange(BATCH)
    hidden, q_tm1 = numpy_q(params, batch.obs_tm1)
    q_target = numpy_q(target_params, batch.obs_t)[1]
    chooser = numpy_q(params, batch.obs_t)[1] if double else q_target
    bootstrap = q_target[rows, chooser.argmax(-1)]
    td_error = batch.r_t + discount * batch.discount_t * bootstrap - q_tm1[rows, batch.a_tm1]
    if huber:
        small = np.abs(td_error) <= delta
        loss = np.where(small, 0.5 * td_error**2, delta * (np.abs(td_error) - 0.5 * delta))
        slope = np.clip(td_error, -delta, delta)
    else:
        loss, slope = 0.5 * td_error**2, td_error
    dq = np.zeros((BATCH, ACTIONS))
    dq[rows, batch.a_tm1] = -slope / BATCH
    dhidden = (dq @ w1.T) * (hidden > 0)
    new = [
        (w0 - learning_rate * batch.obs_tm1.T @ dhidden, b0 - learning_rate * dhidden.sum(0)),
        (w1 - learning_rate * hidden.T @ dq, b1 - learning_rate * dq.sum(0)),
    ]
    return new, loss.mean(), np.abs(td_error).mean(), q_tm1[rows, batch.a_tm1].mean()


@pytest.mark.parametrize("loss", ["squared", "huber"])
@pytest.mark.parametrize("target_network", [True, False])
@pytest.mark.parametrize("double", [False, True])
def test_update_equals_a_step_worked_out_in_numpy(double, target_network, loss):
    config = Config(optimizer="sgd", hidden=(4,), double=double, target_network=target_network, loss=loss)
    _, update, init = compiled(config)
    state = init(make_key(0), traced())
    state = state._replace(params=perturbed(state.params, 1))
    if target_network:
        state = state._replace(target_params=perturbed(state.params, 2))
    target_params = state.target_params if target_network else state.params
    for seed in range(3):
        batch = make_batch(seed)
        expected, *diagnostics = numpy_step(state.params, target_params, batch, double=double, huber=loss == "huber")
        new_state, info = update(state, batch, traced())
        for got, wanted in zip(layers(new_state.params), expected, strict=True):
            np.testing.assert_allclose(got[0], wanted[0], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(got[1], wanted[1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose([info.loss, info.td_error, info.q_mean], diagnostics, rtol=1e-4)
        assert int(new_state.updates) == 1


def test_an_element_of_weight_zero_is_left_out():
    _, update, init = compiled(SGD)
    state, batch = init(make_key(0), traced()), make_batch()
    weight = np.array([1, 0, 1, 1, 1, 1], np.float32)
    garbage = jax.tree.map(np.copy, batch)
    garbage.r_t[1], garbage.obs_tm1[1] = 1e3, -7.0
    left_out = update(state, batch, traced(), weight)[0]
    jax.tree.map(np.testing.assert_array_equal, left_out.params, update(state, garbage, traced(), weight)[0].params)
    assert differ(left_out.params, update(state, batch, traced())[0].params)
    everyone = update(state, batch, traced(), np.ones(BATCH, np.float32))[0]
    jax.tree.map(np.testing.assert_array_equal, everyone.params, update(state, batch, traced())[0].params)


def test_double_and_target_network_matter_in_the_numbers_above():
    _, _, init = compiled(SGD)
    params = perturbed(init(make_key(0), traced()).params, 1)
    target_params = perturbed(params, 2)
    losses = {
        numpy_step(params, target, make_batch(), double=double, huber=False)[1]
        for double, target in [(False, params), (False, target_params), (True, target_params)]
    }
    assert len(losses) == 3


@pytest.mark.parametrize(
    ("config", "networks"),
    [(SGD, 2), (dataclasses.replace(SGD, double=True), 3), (dataclasses.replace(SGD, target_network=False), 2)],
    ids=["dqn", "double", "no target network"],
)
def test_views_that_the_loss_does_not_read_are_not_computed(config, networks):
    """Two dense layers, wide enough to be products: one each for every view; backwards two for the weights, two for
    the biases, and one between the layers."""
    wide = EnvSpec("Wide-v0", (16,), jnp.float32, 8, 100)
    agent, obs = make_agent(dataclasses.replace(config, hidden=(32,)), wide), jnp.zeros((BATCH, 16))
    batch = make_batch()._replace(obs_tm1=obs, obs_t=obs)
    program = jax.jit(agent.update).lower(agent.init(make_key(0), traced()), batch, traced()).compile().as_text()
    assert program.count(" dot(") == 2 * networks + 5


@pytest.mark.parametrize("weight", [None, np.array([1, 0, 1, 1, 0, 1], np.float32)], ids=["all", "some"])
def test_learning_gives_the_td_errors_of_all_examples(weight):
    agent, update, init = compiled(SGD)
    state, batch = init(make_key(0), traced()), make_batch()
    learnt, info, td_error = agent.learn(state, Batch(batch, weight, jnp.arange(BATCH)), traced(), make_key(1))
    _, q = numpy_q(state.params, batch.obs_tm1)
    _, q_t = numpy_q(state.target_params, batch.obs_t)
    expected = batch.r_t + 0.9 * batch.discount_t * q_t.max(-1) - q[np.arange(BATCH), batch.a_tm1]
    np.testing.assert_allclose(td_error, expected, rtol=1e-5, atol=1e-6)
    front, front_info = update(state, batch, traced(), weight)
    np.testing.assert_allclose(info, front_info, rtol=1e-6)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), learnt, front)


def trajectory(config, updates, **values):
    """States after each of `updates` updates, the start included."""
    _, update, init = compiled(config)
    states = [init(make_key(0), traced(**values))]
    for i in range(updates):
        states.append(update(states[-1], make_batch(i), traced(**values))[0])
    return states


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def differ(left, right):
    return any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


def test_target_network_starts_as_a_copy_with_memory_of_its_own():
    state = trajectory(SGD, 0)[0]
    assert_same(state.params, state.target_params)
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state.params, state.target_params))]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize("period", [1, 3, 5])
def test_target_is_an_exact_copy_at_every_multiple_of_the_period_and_still_between(period):
    states = trajectory(SGD, 11, target_period=period, target_mixing=1.0)
    copied = states[0].params
    for i, state in enumerate(states):
        copied = state.params if i % period == 0 else copied
        assert_same(state.target_params, copied)
        assert i % period == 0 or differ(state.params, state.target_params)


@pytest.mark.parametrize(("period", "mixing"), [(1, 0.1), (3, 0.25)])
def test_soft_target_moves_by_its_share(period, mixing):
    states = trajectory(SGD, 7, target_period=period, target_mixing=mixing)
    expected = jax.tree.map(np.float64, states[0].target_params)
    for i, state in enumerate(states[1:], start=1):
        if i % period == 0:
            expected = jax.tree.map(
                lambda target, online: mixing * np.float64(online) + (1 - mixing) * target, expected, state.params
            )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.target_params, expected)


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_average_of_the_weights_forgets_sooner_while_it_is_young(decay):
    _, update, init = compiled(SGD)
    hparams = traced(average_decay=decay)
    state, updates = init(jax.random.key(0), hparams), 30
    expected = jax.tree.map(np.float64, state.params)
    for t in range(1, updates + 1):
        state, _ = update(state, make_batch(t), hparams)
        kept = min(decay, t / (t + 3))
        new = jax.tree.map(lambda x, kept=kept: (1 - kept) * np.float64(x), state.params)
        expected = jax.tree.map(lambda mean, x, kept=kept: kept * mean + x, expected, new)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state.average_params, expected)
    assert state.played is state.average_params


def test_without_an_average_the_weights_themselves_are_played():
    state = compiled(SGD)[2](jax.random.key(0), traced())
    assert state.average_params == ()
    assert state.played is state.params


def test_without_target_network_there_is_nothing_to_move():
    config = Config(optimizer="sgd", hidden=(4,), target_network=False)
    assert jax.tree.leaves(trajectory(config, 2)[-1].target_params) == []


# -- acting


@pytest.fixture(scope="module")
def acting():
    agent, _, init = compiled(SGD)
    params = perturbed(init(make_key(0), traced()).params, 3)
    return params, jax.jit(agent.act)


def test_epsilon_zero_takes_the_best_action(acting):
    params, act = acting
    obs = np.random.default_rng(0).normal(size=(500, FEATURES)).astype(np.float32)
    actions = act(params, obs, 0.0, make_key(1))
    best = numpy_q(params, obs)[1].argmax(-1)
    assert (actions.shape, actions.dtype) == ((500,), jnp.int32)
    np.testing.assert_array_equal(actions, best)
    assert len(np.unique(best)) > 1


def test_epsilon_one_is_uniform_over_the_actions(acting):
    params, act = acting
    actions = act(params, jnp.ones((6000, FEATURES)), 1.0, make_key(2))
    counts = np.bincount(actions, minlength=ACTIONS)
    assert len(counts) == ACTIONS
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_every_row_tosses_its_own_coin(acting):
    params, act = acting
    obs = jnp.ones((6000, FEATURES))
    best = int(act(params, obs, 0.0, make_key(3))[0])
    actions = np.asarray(act(params, obs, 0.3, make_key(4)))
    # The best action is also drawn at random one time in three: 0.7 + 0.3 / 3 = 0.8, 5 sigma = 0.026.
    assert abs(np.mean(actions == best) - 0.8) < 0.026
    others = np.bincount(actions[actions != best], minlength=ACTIONS)
    assert scipy.stats.chisquare(np.delete(others, best)).pvalue > 1e-3
    # Neighbouring rows explore independently.
    explored = actions != best
    assert abs(np.mean(explored[1:] & explored[:-1]) - 0.04) < 0.015


def test_other_keys_explore_otherwise(acting):
    params, act = acting
    obs = jnp.ones((100, FEATURES))
    assert not np.array_equal(act(params, obs, 1.0, make_key(5)), act(params, obs, 1.0, make_key(6)))


def test_a_key_for_what_networks_draw_moves_no_coin_and_no_action(acting):
    params, act = acting
    explore_key, action_key = jax.random.split(make_key(7))
    explored = jax.random.uniform(explore_key, (200,)) < 0.5
    random = random_index(action_key, (200,), ACTIONS)
    actions = act(params, jnp.ones((200, FEATURES)), 0.5, make_key(7))
    np.testing.assert_array_equal(actions[explored], random[explored])


def test_boltzmann_draws_by_the_softmax_over_each_lanes_temperature_and_the_coin_still_falls(acting):
    params, _ = acting
    obs, temperatures = jnp.ones((5000, FEATURES)), np.float32([0.3, 2.0])
    agent, _, _ = compiled(SGD)

    def act(temperature, epsilon, key):
        return agent.respond(params, (), obs, epsilon, key, temperature)[1]

    q = numpy_q(params, np.ones((1, FEATURES)))[1][0]
    for epsilon in (0.0, 0.4):
        lanes = jax.jit(jax.vmap(act, in_axes=(0, None, 0)))(
            temperatures, jnp.float32(epsilon), jax.random.split(make_key(8), 2)
        )
        assert lanes.dtype == jnp.int32
        for actions, temperature in zip(np.asarray(lanes), temperatures, strict=True):
            softmax = np.exp((q - q.max()) / temperature)
            expected = epsilon / ACTIONS + (1 - epsilon) * softmax / softmax.sum()
            counts = np.bincount(actions, minlength=ACTIONS)
            assert scipy.stats.chisquare(counts, expected * len(actions)).pvalue > 1e-3


def test_without_any_temperature_boltzmann_is_greedy(acting):
    params, _ = acting
    obs = np.random.default_rng(0).normal(size=(100, FEATURES)).astype(np.float32)
    actions = compiled(SGD)[0].respond(params, (), obs, 0.0, make_key(1), 1e-6)[1]
    np.testing.assert_array_equal(actions, numpy_q(params, obs)[1].argmax(-1))


# -- optimisers


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_gradients_are_clipped_to_the_global_norm():
    def step(config_hparams):
        _, update, init = compiled(SGD)
        state = init(make_key(0), config_hparams)
        return flat(update(state, make_batch(), config_hparams)[0].params) - flat(state.params)

    free = step(traced(learning_rate=1.0))
    norm = np.linalg.norm(free)
    assert norm > 0.1
    clipped = step(traced(learning_rate=1.0, max_grad_norm=0.1))
    np.testing.assert_allclose(clipped, free * 0.1 / norm, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(step(traced(learning_rate=1.0, max_grad_norm=1e3)), free, rtol=1e-5, atol=1e-7)


OPTIMIZERS = {
    "adam": lambda: optax.adam(0.1),
    "rmsprop": lambda: optax.rmsprop(0.1),
    "rmsprop_centered": lambda: optax.rmsprop(0.1, centered=True),
    "sgd": lambda: optax.sgd(0.1),
    "adamw": lambda: optax.adamw(0.1),
    "radam": lambda: optax.radam(0.1),
    "lion": lambda: optax.lion(0.1),
}


def optax_trajectory(optimizer, updates):
    """Weights after `updates` updates by optax, with the gradients of the hand-written step."""
    params = compiled(SGD)[2](make_key(0), traced()).params  # same key, same weights
    opt_state, optax_update = optimizer.init(params), jax.jit(optimizer.update)
    for i in range(updates):
        # SGD with learning rate 1 moves by minus the gradient.
        new = numpy_step(params, params, make_batch(i), double=False, huber=False, learning_rate=1.0)[0]
        grads = {
            f"Dense_{j}": {"kernel": jnp.float32(old[0] - new[j][0]), "bias": jnp.float32(old[1] - new[j][1])}
            for j, old in enumerate(layers(params))
        }
        steps, opt_state = optax_update({"params": grads}, opt_state, params)
        params = optax.apply_updates(params, steps)
    return params


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_steps_as_optax_does(name):
    states = trajectory(Config(optimizer=name, hidden=(4,), target_network=False), 2)
    np.testing.assert_allclose(
        flat(states[-1].params), flat(optax_trajectory(OPTIMIZERS[name](), 2)), rtol=2e-3, atol=2e-3
    )
    assert np.abs(flat(states[-1].params) - flat(states[0].params)).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "values", "optimizer"),
    [
        ("adam", {"optimizer_eps": 0.5, "b1": 0.5, "b2": 0.6}, optax.adam(0.1, b1=0.5, b2=0.6, eps=0.5)),
        (
            "rmsprop_centered",
            {"optimizer_eps": 0.2, "rms_decay": 0.7, "momentum": 0.3},
            optax.rmsprop(0.1, decay=0.7, eps=0.2, centered=True, momentum=0.3),
        ),
        ("sgd", {"momentum": 0.9}, optax.sgd(0.1, momentum=0.9)),
        ("adamw", {"weight_decay": 0.3}, optax.adamw(0.1, weight_decay=0.3)),
        (
            "adam",
            {"max_grad_norm": 0.01, "optimizer_eps": 1.0},
            optax.chain(optax.clip_by_global_norm(0.01), optax.adam(0.1, eps=1.0)),
        ),
    ],
    ids=["adam", "rmsprop_centered", "sgd", "adamw", "clipped_adam"],
)
def test_optimiser_settings_reach_optax_as_traced_values(name, values, optimizer):
    config = Config(optimizer=name, hidden=(4,), target_network=False)
    got, plain = (flat(trajectory(config, 3, **v)[-1].params) for v in (values, {}))
    expected = flat(optax_trajectory(optimizer, 3))
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)
    assert np.abs(plain - expected).max() > 1e-2  # the settings change something


def test_learning_rate_comes_down_with_the_updates():
    # SGD from 0.1 to 0 over 2 updates: a full step, half a step, and nothing more.
    config = Config(optimizer="sgd", hidden=(4,), target_network=False)
    states = trajectory(config, 4, learning_rate_end=0.0, learning_rate_decay_updates=2)
    for i, rate in enumerate((0.1, 0.05)):
        params = states[i].params
        expected = numpy_step(params, params, make_batch(i), double=False, huber=False, learning_rate=rate)[0]
        for got, wanted in zip(layers(states[i + 1].params), expected, strict=True):
            np.testing.assert_allclose(got[0], wanted[0], rtol=1e-4, atol=1e-5)
    assert_same(states[2].params, states[4].params)


@pytest.mark.parametrize(("name", "near"), [("adamm", "adam"), ("RMSProp", "rmsprop"), ("rmsprop_centred", "rmsprop")])
def test_unknown_optimiser_names_the_nearest(name, near):
    with pytest.raises(ConfigError, match=f"optimizer.*Did you mean '{near}"):
        make_agent(Config(optimizer=name), SPEC)


@pytest.mark.parametrize("name", ["apply_updates", "lbfgs", "polyak_sgd"])
def test_what_is_no_gradient_optimiser_is_refused_before_anything_runs(name):
    with pytest.raises(ConfigError, match="optimizer"):
        make_agent(Config(optimizer=name), SPEC)


# -- static and traced


def test_one_compilation_serves_all_values_of_the_hyperparameters():
    agent = make_agent(SGD, SPEC)
    traces = 0

    @jax.jit
    def update(state, batch, hparams):
        nonlocal traces
        traces += 1
        return agent.update(state, batch, hparams)

    state = compiled(SGD)[2](make_key(0), traced())
    results = set()
    for values in ({}, {"learning_rate": 0.3}, {"discount": 0.1}, {"target_period": 1}, {"target_mixing": 0.5}):
        new_state, _ = update(state, make_batch(), traced(**values))
        results.add(flat((new_state.params, new_state.target_params)).tobytes())
    assert traces == 1
    assert len(results) == 4  # mixing alone changes nothing while no move is due


def test_update_under_vmap_gives_each_lane_its_own_hyperparameters():
    agent, update, init = compiled(SGD)
    lanes = stack_hparams(HPARAMS._replace(learning_rate=np.array([0.1, 0.5]), discount=np.array([0.9, 0.0])), 2)
    state = init(make_key(0), traced())
    together, _ = jax.jit(jax.vmap(agent.update, (None, None, 0)))(state, make_batch(), lanes)
    for i in range(2):
        alone, _ = update(state, make_batch(), jax.tree.map(lambda leaf, i=i: leaf[i], lanes))
        lane = jax.tree.map(lambda leaf, i=i: leaf[i], together.params)
        np.testing.assert_allclose(flat(lane), flat(alone.params), rtol=1e-5, atol=1e-6)


def test_two_keys_give_other_weights_and_one_key_the_same():
    _, _, init = compiled(SGD)
    first, again, other = (flat(init(make_key(seed), traced()).params) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def image_spec(height, width, dtype=jnp.uint8):
    return EnvSpec("Image-v0", (height, width, 2), dtype, 3, 10)


@pytest.mark.parametrize(
    ("torso", "spec", "convolutions"),
    [
        ("auto", SPEC, 0),
        ("auto", image_spec(5, 5), 1),
        ("auto", image_spec(84, 84), 3),
        ("mlp", image_spec(5, 5), 0),
        ("minatar", image_spec(84, 84), 1),
        ("dqn2013", image_spec(84, 84), 2),
    ],
)
def test_torso_is_the_one_named_or_follows_from_the_observation(torso, spec, convolutions):
    agent = make_agent(Config(hidden=(4,), torso=torso), spec)
    layers = jax.eval_shape(lambda: agent.init(make_key(0), HPARAMS)).params["params"]
    assert sum(name.startswith("Conv") for name in layers) == convolutions


@pytest.mark.parametrize(("torso", "least"), [("minatar", 3), ("dqn2013", 20), ("nature", 36), ("impala", 1)])
def test_torso_is_refused_for_what_it_cannot_take(torso, least):
    config = Config(hidden=(4,), torso=torso)
    make_agent(config, image_spec(least, least + 1))
    for spec in (SPEC, image_spec(least - 1, least + 1), image_spec(least + 1, least - 1)):
        with pytest.raises(ConfigError, match=rf"^torso: '{torso}' needs .* at least {least}x{least}.*mlp") as error:
            make_agent(config, spec)
        assert "\n" not in str(error.value)


def test_learning_in_bfloat16_keeps_everything_but_the_network_in_float32():
    config = Config(optimizer="adam", hidden=(4,), torso="dqn2013", compute_dtype="bfloat16", double=True, dueling=True)
    spec = image_spec(20, 20)
    agent = make_agent(config, spec)
    obs = np.random.default_rng(0).integers(0, 256, (2, BATCH, *spec.obs_shape)).astype(np.uint8)
    batch = make_batch()._replace(obs_tm1=obs[0], obs_t=obs[1])
    state = agent.init(make_key(0), traced())
    new_state, info = jax.jit(agent.update)(state, batch, traced())
    for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(new_state), strict=True):
        assert before.dtype == after.dtype
        assert after.dtype in (jnp.float32, jnp.int32)
    assert all(value.dtype == jnp.float32 for value in info)
    assert agent.q_values(state.params, obs[0]).dtype == jnp.float32
    assert "bf16" in jax.jit(agent.update).lower(state, batch, traced()).as_text()
    assert differ(state.params, new_state.params)


def test_diagnostics_are_means_over_the_elements_that_count():
    _, update, init = compiled(SGD)
    state, batch = init(make_key(0), traced()), make_batch()
    weight = np.array([1, 0, 1, 1, 0, 1], np.float32)
    counting = jax.tree.map(lambda x: x[weight > 0], batch)
    new, info = update(state, batch, traced(), weight)
    wanted, info_wanted = update(state, counting, traced(learning_rate=0.1 * weight.mean()))
    np.testing.assert_allclose(list(info), list(info_wanted), rtol=1e-5)
    for a, b in zip(jax.tree.leaves(new.params), jax.tree.leaves(wanted.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)  # the step is of a mean over the whole batch
    nothing = update(state, batch, traced(), np.zeros(BATCH, np.float32))[1]
    assert list(nothing) == [0.0] * 3
