"""Exploration schedules by hand, and with one set of values per lane."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqn_jax.agent.schedules import epsilon_at, learning_rate_at
from dqn_jax.config import Config, HParams
from dqn_jax.lanes.lane import stack_hparams

HPARAMS = HParams(epsilon_start=1.0, epsilon_end=0.1, epsilon_decay_steps=100, epsilon_decay=0.5)


@pytest.mark.parametrize(
    ("schedule", "count", "expected"),
    [
        ("linear", 0, 1.0),
        ("linear", 50, 0.55),
        ("linear", 99, 0.109),
        ("linear", 100, 0.1),
        ("linear", 10_000, 0.1),
        ("multiplicative", 0, 1.0),
        ("multiplicative", 1, 0.5),
        ("multiplicative", 3, 0.125),
        ("multiplicative", 4, 0.1),
        ("multiplicative", 100_000, 0.1),
        ("constant", 0, 1.0),
        ("constant", 10_000, 1.0),
    ],
)
def test_value_after_count(schedule, count, expected):
    epsilon = epsilon_at(Config(epsilon_schedule=schedule), HPARAMS, jnp.int32(count))
    assert epsilon == pytest.approx(expected, rel=1e-6)
    assert epsilon.dtype == jnp.float32
    assert epsilon.shape == ()


def test_linear_schedule_may_rise():
    hparams = HParams(epsilon_start=0.2, epsilon_end=0.6, epsilon_decay_steps=4)
    values = [float(epsilon_at(Config(epsilon_schedule="linear"), hparams, jnp.int32(i))) for i in range(6)]
    np.testing.assert_allclose(values, [0.2, 0.3, 0.4, 0.5, 0.6, 0.6], rtol=1e-6)


def test_multiplicative_floor_above_the_start_does_not_raise_epsilon():
    hparams = HParams(epsilon_start=0.05, epsilon_end=0.1, epsilon_decay=0.9)
    for count in (0, 1, 1000):
        epsilon = epsilon_at(Config(epsilon_schedule="multiplicative"), hparams, jnp.int32(count))
        assert epsilon == pytest.approx(0.05)


@pytest.mark.parametrize("schedule", ["linear", "multiplicative", "constant"])
def test_every_lane_has_its_own_schedule_in_one_program(schedule):
    config = Config(epsilon_schedule=schedule)
    lanes = stack_hparams(
        HParams(
            epsilon_start=np.array([1.0, 0.8, 0.5]),
            epsilon_end=np.array([0.1, 0.2, 0.05]),
            epsilon_decay_steps=np.array([10, 20, 30]),
            epsilon_decay=np.array([0.9, 0.8, 0.5]),
        ),
        lanes=3,
    )
    traces = 0

    @jax.jit
    def all_lanes(hparams, count):
        nonlocal traces
        traces += 1
        return jax.vmap(lambda h: epsilon_at(config, h, count))(hparams)

    for count in (0, 7, 25, 40):
        together = all_lanes(lanes, jnp.int32(count))
        for i in range(3):
            alone = epsilon_at(config, jax.tree.map(lambda leaf, i=i: leaf[i], lanes), jnp.int32(count))
            np.testing.assert_allclose(together[i], alone, rtol=1e-6)
    assert traces == 1


def test_learning_rate_is_constant_unless_it_has_an_end():
    for updates in (0, 1, 10_000):
        assert learning_rate_at(HParams(learning_rate=0.3), jnp.int32(updates)) == pytest.approx(0.3)


@pytest.mark.parametrize(("updates", "expected"), [(0, 1.0), (1, 0.8), (2, 0.6), (4, 0.2), (5, 0.0), (1000, 0.0)])
def test_learning_rate_goes_linearly_to_its_end(updates, expected):
    hparams = HParams(learning_rate=1.0, learning_rate_end=0.0, learning_rate_decay_updates=5)
    assert learning_rate_at(hparams, jnp.int32(updates)) == pytest.approx(expected, abs=1e-6)
