"""The table of optimisers: each steps as optax's does, takes its hyperparameters traced, and finds a minimum."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dqn_jax.agent.optimizers import CONSTRUCTORS, clip_by_global_norm, make_optimizer
from dqn_jax.config import OPTIMIZERS, Config, ConfigError, HParams, check_optimizer, fields_of, validate

REFERENCE = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "nadam": optax.nadam,
    "radam": optax.radam,
    "lion": optax.lion,
    "rmsprop": optax.rmsprop,
    "rmsprop_centered": lambda rate, **rest: optax.rmsprop(rate, centered=True, **rest),
    "sgd": optax.sgd,
}
WEIGHTS = {"w": jnp.asarray([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.asarray([0.1, -0.2])}
OTHER = {"b1": 0.2, "b2": 0.3, "eps": 0.3, "decay": 0.6, "momentum": 0.4, "weight_decay": 0.2}


def gradients(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), WEIGHTS)


def stepped(make, rate, values, steps=4):
    """Weights after some steps, compiled, with the learning rate and `values` as traced scalars."""

    @jax.jit
    def run(rate, values, grads):
        optimizer = make(rate, values)
        params, state = WEIGHTS, optimizer.init(WEIGHTS)
        for g in grads:
            updates, state = optimizer.update(g, state, params)
            params = optax.apply_updates(params, updates)
        return params

    return jax.device_get(
        run(jnp.float32(rate), jax.tree.map(jnp.float32, values), [gradients(i) for i in range(steps)])
    )


def ours(name):
    return lambda rate, values: make_optimizer(Config(optimizer=name), HParams(**values), rate)


def test_there_are_eight_and_each_has_a_constructor():
    assert CONSTRUCTORS.keys() == OPTIMIZERS.keys() == REFERENCE.keys()
    assert len(OPTIMIZERS) == 8


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("all_given", [False, True])
def test_steps_are_those_of_optax(name, all_given):
    known = fields_of(HParams)
    values = {field: OTHER[known[field].optax] for field in OPTIMIZERS[name] if all_given}
    got = stepped(ours(name), 0.05, values)
    arguments = {known[field].optax: value for field, value in values.items()}
    wanted = stepped(lambda rate, rest: REFERENCE[name](rate, **rest), 0.05, arguments)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        if name in ("adam", "radam"):  # our own, whose bits do not depend on the lanes beside it
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_hyperparameter_that_it_has_changes_the_steps(name):
    def weights(values):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(stepped(ours(name), 0.05, values, steps=8))])

    plain = weights({})
    for field in OPTIMIZERS[name]:
        assert np.abs(weights({field: OTHER[fields_of(HParams)[field].optax]}) - plain).max() > 1e-4, field


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_finds_the_minimum_of_a_bowl(name):
    optimizer = make_optimizer(Config(optimizer=name), HParams(), 0.01)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.tree.map(lambda x: x - 1.0, params), state, params)
        return (optax.apply_updates(params, updates), state), None

    params, _ = jax.jit(lambda: jax.lax.scan(step, (WEIGHTS, optimizer.init(WEIGHTS)), length=1_500)[0])()
    assert max(np.abs(leaf - 1.0).max() for leaf in jax.tree.leaves(params)) < 0.05


def test_gradients_are_clipped_before_the_step():
    got = stepped(ours("sgd"), 1.0, {"max_grad_norm": 0.1}, steps=1)
    moved = np.sqrt(sum(np.square(a - b).sum() for a, b in zip(*map(jax.tree.leaves, (got, WEIGHTS)), strict=True)))
    np.testing.assert_allclose(moved, 0.1, rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_settings_that_the_optimiser_has_are_accepted_and_no_others(name):
    for field, setting in fields_of(HParams).items():
        if setting.optax is None:
            continue
        if field in OPTIMIZERS[name]:
            validate(Config(optimizer=name), HParams(**{field: 0.5}))
        else:
            with pytest.raises(ConfigError, match=f"{field}: optimizer '{name}' has no such setting"):
                validate(Config(optimizer=name), HParams(**{field: 0.5}))


@pytest.mark.parametrize("name", ["Adam", "adma", "_src", "apply_updates", "chain", "masked", "lbfgs", "yogi", ""])
def test_others_are_refused_in_one_line_that_lists_those_there_are(name):
    with pytest.raises(ConfigError, match=rf"optimizer: '{name}'.*Try adam, adamw, .* sgd\.") as error:
        check_optimizer(name)
    assert str(error.value).isprintable()


def test_rectified_steps_begin_when_those_of_optax_do():
    """The length of the average is 4.99 after five updates and 5.99 after six."""
    for steps in (5, 6, 7, 60):
        got, wanted = (
            stepped(make, 0.05, {}, steps=steps) for make in (ours("radam"), lambda rate, rest: optax.radam(rate))
        )
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("max_norm", [0.1, 3.0, 100.0])
def test_clipping_is_that_of_optax(max_norm):
    grads = gradients(0) | {"s": jnp.float32(0.7), "c": jnp.ones((2, 3, 4))}
    got, _ = jax.jit(lambda g: clip_by_global_norm(max_norm).update(g, optax.EmptyState()))(grads)
    wanted, _ = optax.clip_by_global_norm(max_norm).update(grads, optax.EmptyState())
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
