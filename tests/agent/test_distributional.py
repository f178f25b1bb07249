"""Losses of distributions against numbers worked out by hand and against rlax."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
import scipy.stats

from dqn_jax.agent import distributional as ours

pytestmark = pytest.mark.filterwarnings("ignore:Rlax:PendingDeprecationWarning")

BATCH, ACTIONS, ATOMS = 16, 3, 7
ATOMS_OF = np.linspace(-2.0, 4.0, ATOMS, dtype=np.float32)


def examples(seed=0, atoms=ATOMS):
    """Random arguments, leaves `[BATCH, ...]`; some episodes end, and some targets lie outside the support."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=(BATCH, *shape)).astype(np.float32)

    return {
        "a_tm1": rng.integers(0, ACTIONS, BATCH).astype(np.int32),
        "r_t": 3 * normal(),
        "discount_t": (0.95 * (rng.random(BATCH) < 0.7)).astype(np.float32),
        "logits_tm1": 2 * normal(ACTIONS, atoms),
        "logits_t": 2 * normal(ACTIONS, atoms),
        "selector": normal(ACTIONS),
        "dist_tm1": normal(atoms, ACTIONS),
        "dist_t": normal(atoms + 2, ACTIONS),
        "dist_selector": normal(4, ACTIONS),
        "taus": np.sort(rng.random((BATCH, atoms)), axis=-1).astype(np.float32),
        "probs": rng.dirichlet(np.ones(ACTIONS), BATCH).astype(np.float32),
    }


QUICK = {"xla_backend_optimization_level": 0}  # of programs that run once, compiling is all the time they take


def check(mine, theirs, x=None):
    """The same values and gradients under vmap, and the same values of one example; targets have no gradient."""
    x = x or examples()
    floats, others = {k: v for k, v in x.items() if v.dtype == np.float32}, {"a_tm1": x["a_tm1"]}

    def summed(function, floats):
        losses = jax.vmap(function)({**floats, **others})
        return jnp.sum(losses), losses

    slopes, values = zip(
        *(
            jax.jit(jax.grad(functools.partial(summed, f), has_aux=True), compiler_options=QUICK)(floats)
            for f in (mine, theirs)
        ),
        strict=True,
    )
    np.testing.assert_allclose(*values, rtol=2e-5, atol=2e-5)
    one = jax.jit(mine, compiler_options=QUICK)({k: v[0] for k, v in x.items()})
    np.testing.assert_allclose(one, values[1][0], rtol=2e-5, atol=2e-5)
    for name in ("logits_tm1", "logits_t", "dist_tm1", "dist_t", "selector"):
        np.testing.assert_allclose(*(s[name] for s in slopes), rtol=1e-4, atol=1e-5, err_msg=name)
    for name in ("logits_t", "dist_t", "selector"):
        np.testing.assert_array_equal(slopes[0][name], 0.0, err_msg=name)


def common(x, kind):
    return (x[f"{kind}_tm1"], x["a_tm1"], x["r_t"], x["discount_t"])


def categorical_double(x, selector=None):
    selector = x["selector"] if selector is None else selector
    head = (ATOMS_OF, *common(x, "logits"), ATOMS_OF)
    return ours.categorical_double_q_learning(*head, q_logits_t=x["logits_t"], q_t_selector=selector)


def test_categorical_double_q_learning_is_rlaxs():
    check(
        categorical_double,
        lambda x: rlax.categorical_double_q_learning(
            ATOMS_OF, *common(x, "logits"), ATOMS_OF, x["logits_t"], x["selector"]
        ),
    )


def test_with_means_of_the_same_logits_it_is_rlaxs_categorical_q_learning():
    check(
        lambda x: categorical_double(x, jax.nn.softmax(x["logits_t"]) @ ATOMS_OF),
        lambda x: rlax.categorical_q_learning(ATOMS_OF, *common(x, "logits"), ATOMS_OF, x["logits_t"]),
    )


def categorical_sarsa(x, probs, bonus=None):
    atoms_t = np.zeros((ACTIONS, 1), np.float32) + ATOMS_OF[None] if bonus is None else ATOMS_OF[None] + bonus[:, None]
    head = (ATOMS_OF, *common(x, "logits"), atoms_t)
    return ours.categorical_expected_sarsa(*head, q_logits_t=x["logits_t"], probs_a_t=probs)


def test_a_policy_that_is_sure_gives_the_same_as_the_choice_of_its_action():
    check(
        lambda x: categorical_sarsa(x, jax.nn.one_hot(jnp.argmax(x["selector"]), ACTIONS)),
        lambda x: rlax.categorical_double_q_learning(
            ATOMS_OF, *common(x, "logits"), ATOMS_OF, x["logits_t"], x["selector"]
        ),
    )


def test_a_policy_mixes_the_losses_of_its_actions():
    """Cross-entropy is linear in the target, and projecting is linear too."""

    def by_action(x):
        sure = [rlax.categorical_double_q_learning(
            ATOMS_OF, *common(x, "logits"), ATOMS_OF, x["logits_t"], jax.nn.one_hot(a, ACTIONS)
        ) for a in range(ACTIONS)]  # fmt: skip
        return jnp.sum(x["probs"] * jnp.stack(sure))

    check(lambda x: categorical_sarsa(x, jax.lax.stop_gradient(x["probs"])), by_action)


def test_a_bonus_moves_the_returns_of_its_action():
    bonus = np.float32([0.5, -1.0, 0.25])

    def by_action(x):
        sure = [rlax.categorical_double_q_learning(
            ATOMS_OF, *common(x, "logits"), ATOMS_OF + bonus[a], x["logits_t"], jax.nn.one_hot(a, ACTIONS)
        ) for a in range(ACTIONS)]  # fmt: skip
        return jnp.sum(x["probs"] * jnp.stack(sure))

    check(lambda x: categorical_sarsa(x, x["probs"], bonus), by_action)


def test_projection_by_hand():
    z_p, probs, z_q = (np.float32(x) for x in ([-9.0, 0.25, 1.0, 7.0], [0.1, 0.4, 0.3, 0.2], [0.0, 1.0, 2.0]))
    # -9 goes to 0 and 7 to 2; 0.25 is three quarters of the way to 0; 1 is an atom.
    expected = [0.1 + 0.75 * 0.4, 0.25 * 0.4 + 0.3, 0.2]
    np.testing.assert_allclose(ours.categorical_l2_project(z_p, probs, z_q), expected, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_projection_is_rlaxs_and_keeps_the_mean_of_what_lies_inside(seed):
    rng = np.random.default_rng(seed)
    z_p = rng.uniform(-3, 5, (BATCH, 9)).astype(np.float32)
    probs = rng.dirichlet(np.ones(9), BATCH).astype(np.float32)
    mine, theirs = (
        jax.vmap(f, in_axes=(0, 0, None))(z_p, probs, ATOMS_OF)
        for f in (ours.categorical_l2_project, rlax.categorical_l2_project)
    )
    np.testing.assert_allclose(mine, theirs, atol=1e-6)
    np.testing.assert_allclose(mine.sum(-1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(mine @ ATOMS_OF, np.sum(np.clip(z_p, -2, 4) * probs, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
def test_quantile_q_learning_is_rlaxs(kappa):
    check(
        lambda x: ours.quantile_q_learning(
            x["dist_tm1"], x["taus"], *common(x, "dist")[1:], x["dist_selector"],
            dist_q_t=x["dist_t"], huber_param=kappa
        ),
        lambda x: rlax.quantile_q_learning(
            x["dist_tm1"], x["taus"], *common(x, "dist")[1:], x["dist_selector"], x["dist_t"], kappa
        ),
    )  # fmt: skip


@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_quantile_expected_sarsa_is_rlaxs(kappa):
    check(
        lambda x: ours.quantile_expected_sarsa(
            x["dist_tm1"], x["taus"], *common(x, "dist")[1:], x["dist_t"],
            probs_a_t=jax.lax.stop_gradient(x["probs"]), huber_param=kappa
        ),
        lambda x: rlax.quantile_expected_sarsa(
            x["dist_tm1"], x["taus"], *common(x, "dist")[1:], x["dist_t"], x["probs"], kappa
        ),
    )  # fmt: skip


def test_the_mean_over_actions_is_of_samples_and_not_of_losses():
    x = examples()
    mean = np.einsum("bja,ba->bj", x["dist_t"], x["probs"])[:, :, None].repeat(ACTIONS, 2)
    check(
        lambda x: ours.quantile_mean_over_actions(
            x["dist_tm1"], x["taus"], *common(x, "dist")[1:], x["dist_t"],
            probs_a_t=jax.lax.stop_gradient(x["probs"]), huber_param=1.0
        ),
        lambda x: rlax.quantile_q_learning(
            x["dist_tm1"], x["taus"], *common(x, "dist")[1:], x["dist_selector"], jax.lax.stop_gradient(x["mean"]), 1.0
        ),
        x | {"mean": mean.astype(np.float32)},
    )  # fmt: skip


def test_quantile_loss_by_hand():
    quantiles, taus, samples = (np.float32(x) for x in ([0.0, 2.0], [0.25, 0.75], [1.0, -3.0]))
    # kappa 0. At 0: errors 1, -3, weights .25, .75: (0.25 + 2.25) / 2.
    # At 2: errors -1, -5, weights .25: (0.25 + 1.25) / 2.
    assert ours.quantile_regression_loss(quantiles, taus, samples) == pytest.approx(1.25 + 0.75)
    # kappa 2. Huber: 1 -> 0.5, -3 -> 2 + 2 = 4; -1 -> 0.5, -5 -> 2 + 6 = 8.
    expected = (0.25 * 0.5 + 0.75 * 4) / 2 + (0.25 * 0.5 + 0.25 * 8) / 2
    assert ours.quantile_regression_loss(quantiles, taus, samples, 2.0) == pytest.approx(expected)


def test_lanes_differ_in_kappa_zero_among_them():
    quantiles, taus, samples = (np.float32(x) for x in ([0.0, 2.0], [0.25, 0.75], [1.0, -3.0]))
    loss = jax.jit(jax.vmap(lambda kappa: ours.quantile_regression_loss(quantiles, taus, samples, kappa)))
    kappas = np.float32([0.0, 2.0])
    np.testing.assert_allclose(
        loss(kappas), [ours.quantile_regression_loss(quantiles, taus, samples, k) for k in kappas], rtol=1e-6
    )
    slopes = jax.vmap(jax.grad(ours.quantile_regression_loss), in_axes=(None, None, None, 0))
    assert np.all(np.isfinite(slopes(quantiles, taus, samples, kappas)))


@pytest.mark.parametrize("sigma", [0.25, 0.75, 3.0])
def test_hl_gauss_gives_each_class_what_a_truncated_gaussian_gives_it(sigma):
    edges = np.linspace(-2.0, 4.0, 9, dtype=np.float32)
    for target in (-2.0, 0.1, 3.9, -50.0, 4.0):
        middle, scale = np.clip(target, -2.0, 4.0), sigma * 0.75
        gaussian = scipy.stats.truncnorm((-2.0 - middle) / scale, (4.0 - middle) / scale, middle, scale)
        probs = ours.hl_gauss_probs(jnp.float32(target), edges, sigma)
        np.testing.assert_allclose(probs, np.diff(gaussian.cdf(edges)), atol=2e-6)
        assert float(probs.sum()) == pytest.approx(1.0, abs=1e-6)


def test_hl_gauss_means_are_their_targets_well_inside():
    edges = np.linspace(-10.0, 10.0, 52, dtype=np.float32)
    targets = np.linspace(-7.0, 7.0, 41, dtype=np.float32)
    probs = jax.vmap(lambda y: ours.hl_gauss_probs(y, edges, 0.75))(targets)
    np.testing.assert_allclose(probs @ (0.5 * (edges[1:] + edges[:-1])), targets, atol=2e-3)


def test_wrong_ranks_raise():
    x = {k: v[0] for k, v in examples().items()}
    with pytest.raises(AssertionError):
        categorical_double(x | {"logits_t": x["logits_t"][0]})
    with pytest.raises(AssertionError):
        categorical_sarsa(x | {"r_t": x["taus"]}, x["probs"])
    with pytest.raises(AssertionError):
        ours.categorical_l2_project(ATOMS_OF, ATOMS_OF[None], ATOMS_OF)
    with pytest.raises(AssertionError):
        ours.quantile_regression_loss(x["dist_tm1"], x["taus"], x["taus"])
    with pytest.raises(AssertionError):
        ours.hl_gauss_probs(ATOMS_OF, ATOMS_OF, 1.0)
