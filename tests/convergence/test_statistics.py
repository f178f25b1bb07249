"""Statistics of convergence against independent implementations, published definitions and hand-computed numbers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from dqn_jax import convergence as cv

runs = st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=30)


@given(runs)
def test_the_survival_curve_is_scipys(observed):
    times, converged = (np.array(column) for column in zip(*observed, strict=True))
    curve = cv.kaplan_meier(times, converged)
    data = scipy.stats.CensoredData.right_censored(times, ~converged)
    oracle = scipy.stats.ecdf(data).sf
    for time in np.arange(0, 14, 0.5):
        assert curve.at(time) == pytest.approx(float(oracle.evaluate(time)), abs=1e-12)


def test_the_survival_curve_of_a_published_example():
    # Remission times of the 6-MP group (Freireich et al. 1963), the textbook example; True is a relapse.
    relapses = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    censored = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    times, events = relapses + censored, [True] * len(relapses) + [False] * len(censored)
    curve = cv.kaplan_meier(times, events)
    np.testing.assert_array_equal(curve.times, [6, 7, 10, 13, 16, 22, 23])
    np.testing.assert_array_equal(curve.at_risk, [21, 17, 15, 12, 11, 7, 6])
    np.testing.assert_array_equal(curve.events, [3, 1, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(curve.surviving, [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], atol=1e-3)
    assert cv.median_time(curve) == 23


def test_without_censoring_the_restricted_mean_is_the_mean_and_the_median_the_median():
    times = np.array([3.0, 8.0, 1.0, 5.0, 9.0])
    curve = cv.kaplan_meier(times, np.ones(5, bool))
    assert cv.restricted_mean(curve, 100.0) == pytest.approx(times.mean())
    assert cv.restricted_mean(curve, 5.0) == pytest.approx(np.minimum(times, 5.0).mean())
    assert cv.median_time(curve) == 5.0


def test_runs_that_never_converge_are_counted_up_to_the_horizon():
    curve = cv.kaplan_meier([10.0, 100.0, 100.0, 100.0], [True, False, False, False])
    assert cv.median_time(curve) is None
    assert cv.restricted_mean(curve, 100.0) == pytest.approx((10 + 3 * 100) / 4)
    never = cv.kaplan_meier([50.0, 50.0], [False, False])
    assert never.at(49.0) == 1.0
    assert cv.restricted_mean(never, 50.0) == 50.0


@pytest.mark.parametrize(
    ("times", "converged"), [([1.0, 2.0], [True]), ([np.nan], [True]), ([-1.0], [False]), ([np.inf], [False])]
)
def test_impossible_times_are_refused(times, converged):
    with pytest.raises(ValueError, match="times"):
        cv.kaplan_meier(times, converged)


def test_time_to_convergence_says_when_the_median_was_not_reached():
    result = cv.time_to_convergence([10.0] + [50.0] * 9, [True] + [False] * 9, 50.0)
    assert (result.runs, result.share, result.median) == (10, 0.1, None)
    assert result.median95[1] is None
    assert result.restricted_mean == pytest.approx(46.0)
    assert result.share95 == cv.share_interval([True] + [False] * 9)


def test_area_under_curves_of_unequal_steps():
    assert cv.area_under_curve([0, 1, 3], [0.0, 2.0, 2.0]) == pytest.approx(5 / 3)
    np.testing.assert_allclose(cv.area_under_curve([0, 10], [[1.0, 1.0], [0.0, 4.0]]), [1.0, 2.0])


scores = st.lists(st.integers(0, 5), min_size=1, max_size=12)


@given(scores, scores)
def test_probability_of_improvement_is_the_mann_whitney_statistic(x, y):
    expected = scipy.stats.mannwhitneyu(x, y, method="asymptotic").statistic / (len(x) * len(y))
    assert cv.probability_of_improvement(x, y) == pytest.approx(expected)
    assert cv.probability_of_improvement(x, y) + cv.probability_of_improvement(y, x) == pytest.approx(1.0)


def test_probability_of_improvement_averages_over_tasks():
    x, y = np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[0.0, 5.0], [1.5, 5.0], [3.0, 0.0]])
    first = np.mean([1, 0, 0, 1, 1, 0])
    second = np.mean([0, 0, 0.5, 0, 0, 0.5])
    assert cv.probability_of_improvement(x, y) == pytest.approx((first + second) / 2)


def test_paired_seeds_are_drawn_together():
    # Seeds differ much, the two settings little and always the same way.
    x = np.linspace(0.0, 100.0, 20)
    paired = cv.probability_of_improvement_interval(x + 1.0, x, paired=True)
    unpaired = cv.probability_of_improvement_interval(x + 1.0, x, paired=False)
    assert paired[0] > unpaired[0]
    assert paired[1] < unpaired[1]
    with pytest.raises(ValueError, match="pairs"):
        cv.probability_of_improvement_interval([1.0], [1.0, 2.0], paired=True)


@given(st.integers(1, 40), st.integers(0, 1000))
def test_the_interquartile_mean_is_scipys_trimmed_mean(count, seed):
    values = np.random.default_rng(seed).normal(size=count)
    assert cv.interquartile_mean(values) == pytest.approx(scipy.stats.trim_mean(values, 0.25))


def test_the_performance_profile_is_the_share_above_each_threshold():
    profile = cv.performance_profile([[0.0, 1.0], [2.0, 3.0]], [-1.0, 0.0, 1.5, 3.0])
    np.testing.assert_allclose(profile, [1.0, 0.75, 0.5, 0.0])


def test_without_censoring_the_survival_interval_is_that_of_a_share_at_every_step():
    low, high = cv.survival_interval([1.0, 2.0, 3.0, 3.0], [True] * 4)
    for gone, (a, b) in zip((0, 1, 2, 4), zip(low, high, strict=True), strict=True):
        assert (a, b) == pytest.approx(cv.share_interval([False] * gone + [True] * (4 - gone)))


def test_the_survival_interval_of_a_published_example_has_greenwoods_variance():
    # As above; Collett's textbook gives standard errors 0.0764 at week 6 and 0.1346 at week 23.
    relapses = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    censored = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    times, events = relapses + censored, [True] * len(relapses) + [False] * len(censored)
    low, high = cv.survival_interval(times, events)
    for i, share, error in ((1, 18 / 21, 0.0764), (7, 0.4482, 0.1346)):
        n = share * (1 - share) / error**2
        expected = scipy.stats.beta.ppf([0.025, 0.975], [share * n, share * n + 1], [n - share * n + 1, n - share * n])
        assert (low[i], high[i]) == pytest.approx(tuple(expected), abs=2e-3)


def test_the_survival_interval_of_groups_resamples_groups():
    # Two configurations: one converges at once, one never; ten seeds of each are no ten independent runs.
    times, converged, groups = np.repeat([1.0, 9.0], 10), np.repeat([True, False], 10), np.repeat([0, 1], 10)
    low, high = cv.survival_interval(times, converged, groups=groups)
    np.testing.assert_allclose((low[1], high[1]), (0.0, 1.0), atol=1e-3)
    assert np.all(cv.survival_interval(times, converged)[0][1] > 0.25)
    # All twenty configurations agree: so may nineteen of twenty others.
    low, _ = cv.survival_interval(np.repeat(1.0, 40), np.ones(40, bool), groups=np.repeat(np.arange(20), 2))
    assert low[0] == pytest.approx(cv.share_interval([True] * 20)[0])


# Learning rate 0 or 1, discount 0 or 1, in two environments.
grid = [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_effective_dimensionality_counts_what_must_be_tuned_from_the_default():
    # Best on average is (0, 0) with 0.75. Tuning the learning rate alone gives (1.0 + 0.8) / 2, and both no more.
    scores = [[1.0, 0.5], [0.2, 0.4], [0.1, 0.8], [0.0, 0.3]]
    result = cv.effective_dimensionality(grid, scores)
    assert result.scores == pytest.approx((0.75, 0.9, 0.9))
    assert (result.dimensionality, result.tuned) == (1, ((), (0,), (0, 1)))
    # From the default (0, 1) both must be tuned: each alone gives (1 + 0.5) / 2 or (0.2 + 0.4) / 2.
    result = cv.effective_dimensionality(grid, scores, default=1)
    assert result.scores == pytest.approx((0.3, 0.75, 0.9))
    assert (result.dimensionality, result.tuned[1]) == (2, (1,))
    assert cv.effective_dimensionality(grid, scores, default=1, share=0.8).dimensionality == 1


def test_effective_dimensionality_of_a_method_that_needs_no_tuning_is_zero():
    assert cv.effective_dimensionality(grid, [[0.9, 0.9], [0.9, 0.8], [0.92, 0.1], [0.5, 0.93]]).dimensionality == 0
    with pytest.raises(ValueError, match="normalise"):
        cv.effective_dimensionality(grid, [[-200.0]] * 4)
