"""Our keys give bit for bit the streams of jax's own, and jax still notices when one is used twice."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.errors import KeyReuseError

from dqn_jax.prng import key_data, make_key, wrap_key_data

SEEDS = [0, 1, 42, 123_456_789, 2**31 - 1, -1, -12_345, -(2**31)]
DRAWS = {
    "key": lambda key: key,
    "split": lambda key: jax.random.split(key, 7),
    "split_2d": lambda key: jax.random.split(key, (3, 2)),
    "fold_in": lambda key: jax.random.fold_in(key, 5),
    "fold_in_large": lambda key: jax.random.fold_in(key, 2**32 - 1),
    "bits_8": lambda key: jax.random.bits(key, (5,), jnp.uint8),
    "bits_16": lambda key: jax.random.bits(key, (2, 3), jnp.uint16),
    "bits_32": lambda key: jax.random.bits(key, (3, 4, 2)),
    "bits_scalar": lambda key: jax.random.bits(key),
    "bits_empty": lambda key: jax.random.bits(key, (0, 4)),
    "uniform": lambda key: jax.random.uniform(key, (33,)),
    "normal": lambda key: jax.random.normal(key, (4, 5)),
    "randint": lambda key: jax.random.randint(key, (17,), -3, 1000),
    "permutation": lambda key: jax.random.permutation(key, 50),
    "categorical": lambda key: jax.random.categorical(key, jnp.array([0.1, 0.5, 2.0]), shape=(9,)),
    "split_then_draw": lambda key: jax.vmap(jax.random.uniform)(jax.random.split(key, 4)),
}


def theirs(seed):
    return jax.random.key(seed, impl="threefry2x32")


def bits(value):
    return np.asarray(jax.random.key_data(value) if jnp.issubdtype(value.dtype, jax.dtypes.prng_key) else value)


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("transform", ["jit", "vmap"])
def test_streams_are_bit_equal_to_threefry(name, transform):
    transform = getattr(jax, transform)
    if transform is jax.vmap:
        seeds = jnp.array(SEEDS, jnp.int32)
        ours, reference = (bits(jax.jit(jax.vmap(lambda s, k=k: DRAWS[name](k(s))))(seeds)) for k in (make_key, theirs))
        np.testing.assert_array_equal(ours, reference)
        return
    draw = jax.jit(DRAWS[name])
    for seed in SEEDS:
        np.testing.assert_array_equal(bits(draw(make_key(seed))), bits(draw(theirs(seed))))


@pytest.mark.parametrize("name", ["split", "fold_in", "uniform", "randint"])
def test_streams_are_bit_equal_without_jit(name):
    np.testing.assert_array_equal(bits(DRAWS[name](make_key(-7))), bits(DRAWS[name](theirs(-7))))


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1))
def test_any_int32_seed_and_fold_in_agree(seed, data):
    ours, reference = (bits(jax.random.fold_in(make(seed), np.uint32(data))) for make in (make_key, theirs))
    np.testing.assert_array_equal(ours, reference)


def test_python_and_traced_seeds_agree():
    for seed in SEEDS:
        traced = jax.jit(lambda s: make_key(s))(jnp.int32(seed))
        np.testing.assert_array_equal(key_data(traced), key_data(make_key(seed)))


def test_a_seed_has_no_axes():
    with pytest.raises(TypeError):
        make_key(jnp.zeros((2,), jnp.int32))


def test_key_data_round_trip():
    keys = jax.random.split(make_key(3), (2, 5))
    data = key_data(keys)
    assert data.shape == (2, 5, 2)
    assert data.dtype == jnp.uint32
    again = wrap_key_data(np.asarray(data))
    assert again.dtype == keys.dtype
    np.testing.assert_array_equal(key_data(again), data)


def used_twice(key):
    return jax.random.uniform(key) + jax.random.uniform(key)


def split_then_used(key):
    left, _ = jax.random.split(key)
    return jax.random.uniform(left) + jax.random.uniform(key)


def used_in_every_round(key):
    return jax.lax.fori_loop(0, 3, lambda _, total: total + jax.random.uniform(key), 0.0)


@pytest.mark.parametrize("make", [make_key, theirs])
@pytest.mark.parametrize("function", [used_twice, split_then_used, used_in_every_round])
def test_the_key_reuse_checker_sees_our_keys(function, make):
    with pytest.raises(KeyReuseError):
        jax.jit(function)(make(0))


def test_the_key_reuse_checker_accepts_proper_use():
    def proper(key):
        left, right = jax.random.split(key)
        folded = [jax.random.uniform(jax.random.fold_in(right, i)) for i in range(3)]
        return jax.random.uniform(left) + sum(folded)

    assert jnp.isfinite(jax.jit(proper)(make_key(0)))
