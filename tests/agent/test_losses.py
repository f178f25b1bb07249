"""Losses against numbers worked out by hand and against rlax."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dqn_jax.agent import losses

BATCH, ACTIONS = 4, 3

# Two examples. The second terminated, so its target is the reward alone.
Q_TM1 = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)
A_TM1 = np.array([0, 2], np.int32)
R_T = np.array([0.5, -1.0], np.float32)
DISCOUNT_T = np.array([0.9, 0.0], np.float32)
Q_T = np.array([[10.0, 30.0, 20.0], [7.0, 8.0, 9.0]], np.float32)
SELECTOR = np.array([[5.0, 1.0, 2.0], [0.0, 1.0, 0.0]], np.float32)
# 0.5 + 0.9 * 30 - 1 = 26.5;  -1 + 0 * 9 - 6 = -7
Q_LEARNING_TD = np.array([26.5, -7.0], np.float32)
# the selector's argmax is action 0: 0.5 + 0.9 * 10 - 1 = 8.5;  -1 - 6 = -7
DOUBLE_TD = np.array([8.5, -7.0], np.float32)


def run(transform, function, *args):
    """`function` of one example on a batch: in a Python loop, jitted in a loop, or vmapped."""
    if transform == "vmap":
        return jax.vmap(function)(*args)
    function = jax.jit(function) if transform == "jit" else function
    return jnp.stack([function(*(jnp.asarray(x[i]) for x in args)) for i in range(len(args[0]))])


@pytest.mark.parametrize("transform", ["plain", "jit", "vmap"])
class TestHandComputed:
    def test_q_learning(self, transform):
        td_error = run(transform, losses.q_learning, Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T)
        np.testing.assert_allclose(td_error, Q_LEARNING_TD, rtol=1e-6)

    def test_double_q_learning(self, transform):
        td_error = run(transform, losses.double_q_learning, Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T, SELECTOR)
        np.testing.assert_allclose(td_error, DOUBLE_TD, rtol=1e-6)

    def test_squared_loss(self, transform):
        loss = run(transform, losses.squared_loss, np.array([3.0, -2.0], np.float32))
        np.testing.assert_allclose(loss, [4.5, 2.0])

    def test_huber_loss(self, transform):
        # within delta 2: 0.5 * 1.5^2; on it: 0.5 * 2^2; beyond: 0.5 * 2^2 + 2 * (5 - 2)
        loss = run(transform, lambda x: losses.huber_loss(x, 2.0), np.array([0.0, 1.5, -2.0, -5.0], np.float32))
        np.testing.assert_allclose(loss, [0.0, 1.125, 2.0, 8.0])


@st.composite
def batches(draw):
    def floats(shape, low=-1e3, high=1e3):
        return draw(hnp.arrays(np.float32, shape, elements=st.floats(low, high, width=32)))

    actions = draw(hnp.arrays(np.int32, (BATCH,), elements=st.integers(0, ACTIONS - 1)))
    q_tm1, q_t, selector = (floats((BATCH, ACTIONS)) for _ in range(3))
    return q_tm1, actions, floats((BATCH,)), floats((BATCH,), 0.0, 1.0), q_t, selector


q_learning, rlax_q_learning = (jax.jit(jax.vmap(f)) for f in (losses.q_learning, rlax.q_learning))
double_q_learning, rlax_double_q_learning = (
    jax.jit(jax.vmap(f)) for f in (losses.double_q_learning, rlax.double_q_learning)
)


@given(batches())
def test_q_learning_equals_rlax(batch):
    np.testing.assert_allclose(q_learning(*batch[:5]), rlax_q_learning(*batch[:5]), rtol=1e-6, atol=1e-3)


@given(batches())
def test_double_q_learning_equals_rlax(batch):
    np.testing.assert_allclose(double_q_learning(*batch), rlax_double_q_learning(*batch), rtol=1e-6, atol=1e-3)


@given(hnp.arrays(np.float32, (8,), elements=st.floats(-100, 100, width=32)), st.sampled_from([0.5, 1.0, 7.0]))
def test_element_losses_equal_rlax(errors, delta):
    np.testing.assert_allclose(losses.huber_loss(errors, delta), rlax.huber_loss(errors, delta), rtol=1e-6)
    np.testing.assert_allclose(losses.squared_loss(errors), rlax.l2_loss(errors), rtol=1e-6)


def test_double_q_with_one_network_is_q_learning():
    args = (Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T)
    np.testing.assert_array_equal(jax.vmap(losses.double_q_learning)(*args, Q_T), jax.vmap(losses.q_learning)(*args))


def test_terminal_discount_removes_the_bootstrap_whatever_the_next_values():
    base = losses.q_learning(Q_TM1[0], A_TM1[0], R_T[0], np.float32(0.0), Q_T[0])
    other = losses.q_learning(Q_TM1[0], A_TM1[0], R_T[0], np.float32(0.0), -100.0 * Q_T[0])
    assert base == other == -0.5


@pytest.mark.parametrize("double", [False, True])
def test_gradient_reaches_only_the_chosen_action_and_never_the_target(double):
    def loss(q_tm1, q_t, selector):
        args = (q_tm1, A_TM1[0], R_T[0], DISCOUNT_T[0], q_t)
        td_error = losses.double_q_learning(*args, selector) if double else losses.q_learning(*args)
        return losses.squared_loss(td_error)

    grads = jax.grad(loss, argnums=(0, 1, 2))(Q_TM1[0], Q_T[0], SELECTOR[0])
    td_error = DOUBLE_TD[0] if double else Q_LEARNING_TD[0]
    np.testing.assert_allclose(grads[0], [-td_error, 0.0, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(grads[1], np.zeros(3))
    np.testing.assert_array_equal(grads[2], np.zeros(3))


@pytest.mark.parametrize("double", [False, True])
def test_gradient_reaches_the_target_on_request(double):
    def td_error(q_t):
        args = (Q_TM1[0], A_TM1[0], R_T[0], DISCOUNT_T[0], q_t)
        if double:
            return losses.double_q_learning(*args, SELECTOR[0], stop_target_gradients=False)
        return losses.q_learning(*args, stop_target_gradients=False)

    expected = [0.9, 0.0, 0.0] if double else [0.0, 0.9, 0.0]
    np.testing.assert_allclose(jax.grad(td_error)(Q_T[0]), expected, rtol=1e-6)


def test_huber_gradient_is_the_error_clipped_to_delta():
    errors = np.array([-9.0, -2.0, -0.5, 0.0, 0.5, 2.0, 9.0], np.float32)
    grads = jax.vmap(jax.grad(lambda x: losses.huber_loss(x, 2.0)))(errors)
    np.testing.assert_allclose(grads, np.clip(errors, -2.0, 2.0))


def test_huber_delta_is_traced():
    traces = 0

    @jax.jit
    def loss(delta):
        nonlocal traces
        traces += 1
        return losses.huber_loss(jnp.float32(5.0), delta)

    assert [float(loss(jnp.float32(d))) for d in (1.0, 2.0, 10.0)] == [4.5, 8.0, 12.5]
    assert traces == 1


GOOD = (Q_TM1[0], A_TM1[0], R_T[0], DISCOUNT_T[0], Q_T[0], SELECTOR[0])
BAD = [
    pytest.param(0, Q_TM1, id="a batch of q_tm1"),
    pytest.param(1, A_TM1, id="a batch of actions"),
    pytest.param(1, np.float32(0.0), id="a float action"),
    pytest.param(2, R_T, id="a batch of rewards"),
    pytest.param(2, np.int32(1), id="an integer reward"),
    pytest.param(3, np.float32([0.9]), id="a discount with an axis"),
    pytest.param(3, np.bool_(True), id="a boolean discount"),
    pytest.param(4, Q_T, id="a batch of q_t"),
    pytest.param(4, np.int32([1, 2, 3]), id="integer q_t"),
]


@pytest.mark.parametrize(("position", "value"), BAD)
def test_wrong_rank_or_dtype_raises(position, value):
    args = [value if i == position else good for i, good in enumerate(GOOD)]
    with pytest.raises(AssertionError):
        losses.q_learning(*args[:5])
    with pytest.raises(AssertionError):
        losses.double_q_learning(*args)


def test_wrong_selector_raises():
    with pytest.raises(AssertionError):
        losses.double_q_learning(*GOOD[:5], SELECTOR)


def test_numpy_and_jax_scalars_are_accepted():
    chex.assert_shape(losses.q_learning(*GOOD[:5]), ())
    chex.assert_shape(losses.q_learning(*(jnp.asarray(x) for x in GOOD[:5])), ())
