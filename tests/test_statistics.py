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


def test_time_to_convergence_covers_the_truth_about_as_often_as_it_says():
    # Exponential times of mean 100, observed until 150: the median is 100 log 2, the restricted mean 100 (1 - e^-1.5).
    rng, median_inside, mean_inside = np.random.default_rng(3), [], []
    for _ in range(150):
        true = rng.exponential(100.0, 40)
        result = cv.time_to_convergence(np.minimum(true, 150.0), true < 150.0, 150.0, resamples=300)
        low, high = result.median95
        median_inside.append(low <= 100 * np.log(2) and (high is None or high >= 100 * np.log(2)))
        low, high = result.restricted_mean95
        mean_inside.append(low <= 100 * (1 - np.exp(-1.5)) <= high)
    assert 0.87 <= np.mean(median_inside) <= 1.0
    assert 0.87 <= np.mean(mean_inside) <= 0.99


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
    assert paired[1] - paired[0] < 0.5 * (unpaired[1] - unpaired[0])
    with pytest.raises(ValueError, match="pairs"):
        cv.probability_of_improvement_interval([1.0], [1.0, 2.0], paired=True)


@given(st.integers(1, 40), st.integers(0, 1000))
def test_the_interquartile_mean_is_scipys_trimmed_mean(count, seed):
    values = np.random.default_rng(seed).normal(size=count)
    assert cv.interquartile_mean(values) == pytest.approx(scipy.stats.trim_mean(values, 0.25))


def test_the_stratified_bootstrap_resamples_within_tasks_only():
    # Tasks on scales far apart: a draw across tasks would give an interval as wide as the scales.
    rng = np.random.default_rng(0)
    table = np.stack([rng.normal(0, 1, 30), rng.normal(1000, 1, 30)], axis=1)
    low, high = cv.stratified_bootstrap(table, np.mean)
    assert low < table.mean() < high
    exact = 1.96 * np.sqrt((table[:, 0].var() + table[:, 1].var()) / 30) / 2
    assert (high - low) / 2 == pytest.approx(exact, rel=0.1)
    low, high = cv.stratified_bootstrap(table, lambda t: cv.interquartile_mean(t.reshape(-1)), resamples=200)
    assert 0 < high - low < 30


def test_the_performance_profile_is_the_share_above_each_threshold():
    profile = cv.performance_profile([[0.0, 1.0], [2.0, 3.0]], [-1.0, 0.0, 1.5, 3.0])
    np.testing.assert_allclose(profile, [1.0, 0.75, 0.5, 0.0])


def test_sensitivity_is_what_tuning_in_every_environment_adds():
    # The first setting is best in one environment, the second in the other, the third is good in both.
    result = cv.sensitivity([[1.0, 0.0], [0.0, 0.9], [0.7, 0.7]])
    assert result == pytest.approx((0.95, 0.7, 0.25))
    assert cv.sensitivity([[0.5, 0.5], [0.4, 0.2]]).sensitivity == 0.0


def test_resampling_all_at_once_gives_the_intervals_of_one_resample_after_another():
    times, converged = np.array([3.0, 5.0, 5.0, 8.0, 12.0, 12.0]), np.array([True, True, False, True, False, False])
    result = cv.time_to_convergence(times, converged, 10.0, resamples=200, seed=4)
    rng, medians, means = np.random.default_rng(4), [], []
    for _ in range(200):
        draw = rng.integers(0, 6, 6)
        curve = cv.kaplan_meier(times[draw], converged[draw])
        median = cv.median_time(curve)
        medians.append(np.inf if median is None else median)
        means.append(cv.restricted_mean(curve, 10.0))
    low, high = np.percentile(medians, 2.5, method="lower"), np.percentile(medians, 97.5, method="higher")
    assert result.median95 == (low, high if np.isfinite(high) else None)
    np.testing.assert_allclose(result.restricted_mean95, np.percentile(means, [2.5, 97.5]))


def test_without_censoring_the_survival_interval_is_wilsons_at_every_step():
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
        middle = (share + 1.96**2 / (2 * n)) / (1 + 1.96**2 / n)
        half = 1.96 / (1 + 1.96**2 / n) * np.sqrt(share * (1 - share) / n + 1.96**2 / (4 * n**2))
        assert (low[i], high[i]) == pytest.approx((middle - half, middle + half), abs=2e-3)


def test_the_survival_interval_of_groups_resamples_groups():
    # Two configurations: one converges at once, one never; ten seeds of each are no ten independent runs.
    times, converged, groups = np.repeat([1.0, 9.0], 10), np.repeat([True, False], 10), np.repeat([0, 1], 10)
    low, high = cv.survival_interval(times, converged, groups=groups)
    np.testing.assert_array_equal((low, high), [[1.0, 0.0], [1.0, 1.0]])
    assert np.all(cv.survival_interval(times, converged)[0][1] > 0.25)


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


@pytest.mark.parametrize("statistic", [np.mean, cv.interquartile_mean])
def test_blocks_of_resamples_give_the_interval_of_all_at_once(monkeypatch, statistic):
    curves = np.random.default_rng(0).normal(size=(7, 11))
    whole = cv.bootstrap_interval(curves, statistic, resamples=50)
    monkeypatch.setattr("dqn_jax.convergence.statistics._BLOCK", 300)
    np.testing.assert_allclose(cv.bootstrap_interval(curves, statistic, resamples=50), whole)
