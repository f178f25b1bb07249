"""Layer normalisation against flax's: values, gradients, weights, and rows that do not vary."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqn_jax.agent.normalisation import LayerNorm
from dqn_jax.prng import make_key


@pytest.mark.parametrize("shape", [(7, 33), (3, 4, 5, 16), (1, 8)])
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_it_is_that_of_flax_in_values_and_gradients(shape, backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    rng = np.random.default_rng(0)
    x, g = (jnp.asarray(3.0 + 2.0 * rng.normal(size=shape), jnp.float32) for _ in range(2))
    own, flax = LayerNorm(), nn.LayerNorm(use_fast_variance=False)
    params = own.init(make_key(0), x)
    assert jax.tree.structure(params) == jax.tree.structure(flax.init(make_key(0), x))
    params = jax.tree.map(lambda w: w + jnp.asarray(rng.normal(size=w.shape), jnp.float32), params)

    def both(module):
        @jax.jit
        def run(params, x):
            out, pull = jax.vjp(module.apply, params, x)
            return out, pull(g)

        return run(params, x)

    for got, wanted in zip(jax.tree.leaves(both(own)), jax.tree.leaves(both(flax)), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_rows_that_do_not_vary_are_the_bias():
    params = {"params": {"scale": jnp.full(4, 2.0), "bias": jnp.arange(4.0)}}
    out = LayerNorm().apply(params, jnp.full((3, 4), 5.0))
    np.testing.assert_allclose(out, np.tile(np.arange(4.0), (3, 1)), atol=1e-3)
    assert LayerNorm(dtype=jnp.bfloat16).apply(params, jnp.ones((3, 4), jnp.bfloat16)).dtype == jnp.bfloat16
