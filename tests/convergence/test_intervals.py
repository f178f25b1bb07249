"""What is called a 95 % interval covers: simulated, at the numbers of seeds that are used.

A study is one experiment of `n` runs; its interval covers if the truth is in it. Studies in which no interval is shown
do not count. At least 93 of 100 must cover (of 95, as the draws are finite and some methods are a little short).
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from dqn_jax import convergence as cv

RUNS = (5, 10, 16, 64)
ENOUGH = 0.93
STUDIES = 4000


def failing(share):
    """Returns of an agent that mostly has 500, exactly as CartPole gives it, and sometimes fails."""
    return lambda rng, shape: np.where(rng.random(shape) < share, 200.0, 500.0)


RETURNS = {
    "normal": lambda rng, shape: rng.normal(100.0, 30.0, shape),
    "uniform": lambda rng, shape: rng.random(shape),
    "lognormal": lambda rng, shape: rng.lognormal(0.0, 0.5, shape),
    "1 of 50 fails": failing(0.02),
    "1 of 20 fails": failing(0.05),
    "1 of 5 fails": failing(0.2),
    "2 of 5 fail": failing(0.4),
    "on a grid": lambda rng, shape: np.round(rng.normal(5.0, 1.0, shape)),
}


def covered(low, high, truth):
    shown = ~(np.isnan(low) | np.isnan(high))
    assert shown.any()
    return np.mean((low <= truth) & (truth <= high), where=shown)


@pytest.mark.parametrize("name", RETURNS)
def test_intervals_of_means_cover(name):
    rng = np.random.default_rng(0)
    truth = RETURNS[name](rng, 2_000_000).mean()
    for n in RUNS:
        assert covered(*cv.mean_interval(RETURNS[name](rng, (n, STUDIES))), truth) >= ENOUGH, n


@pytest.mark.parametrize("name", ["normal", "lognormal", "2 of 5 fail"])
def test_intervals_of_interquartile_means_cover(name):
    rng = np.random.default_rng(1)
    for n in RUNS:
        # Of n runs floor(n / 4) are cut at each end, which is a quarter of many.
        truth = np.mean([cv.interquartile_mean(RETURNS[name](rng, (n, 20_000))).mean() for _ in range(2)])
        assert covered(*cv.interquartile_mean_interval(RETURNS[name](rng, (n, STUDIES))), truth) >= ENOUGH, n


def test_what_is_known_of_long_tails():
    """As the module says: no method for few runs covers here, and these are told."""
    rng = np.random.default_rng(2)
    exponential, lognormal = rng.exponential(1.0, (5, STUDIES)), rng.lognormal(0.0, 1.0, (16, STUDIES))
    assert 0.91 < covered(*cv.mean_interval(exponential), 1.0) < 0.94
    assert 0.91 < covered(*cv.mean_interval(lognormal), np.exp(0.5)) < 0.94
    assert 0.91 < covered(*cv.interquartile_mean_interval(rng.random((5, STUDIES))), 0.5) < 0.94
    rounded = RETURNS["on a grid"](rng, (30, STUDIES))
    assert 0.87 < covered(*cv.interquartile_mean_interval(rounded), 5.0) < 0.94
    rare = np.where(rng.random((5, STUDIES)) < 0.1, 200.0, 490.0 + rng.random((5, STUDIES)))
    assert covered(*cv.mean_interval(rare), rare.mean()) < 0.5


SPEEDS = {
    "exponential": lambda rng, n: rng.exponential(0.7, n),
    "lognormal": lambda rng, n: np.minimum(0.5 * rng.lognormal(0.0, 0.3, n), 0.99),
    "all alike": lambda rng, n: np.minimum(rng.normal(0.6, 0.02, n), 0.99),
    "evaluations": lambda rng, n: np.ceil(10 * np.minimum(0.5 * rng.lognormal(0.0, 0.25, n), 0.95)) / 10,
}


@pytest.mark.parametrize(
    ("name", "never"),
    [
        ("exponential", 0.0),
        ("exponential", 0.4),
        ("lognormal", 0.1),
        ("all alike", 0.1),
        ("all alike", 0.6),
        ("evaluations", 0.0),
        ("evaluations", 0.3),
    ],
)
def test_intervals_of_times_cover(name, never):
    """Restricted mean, cost for each solved run, share and median, of runs some of which never converge."""
    rng, studies = np.random.default_rng(3), 300

    def draw(n):
        return np.where(rng.random(n) < never, 9.0, SPEEDS[name](rng, n))

    many = draw(200_001)
    share, mean, median = np.mean(many < 1), np.minimum(many, 1).mean(), np.median(many)
    for n in RUNS:
        inside = {"mean": [], "per solved": [], "share": [], "median": []}
        for _ in range(studies):
            times = draw(n)
            found = cv.time_to_convergence(np.minimum(times, 1), times < 1, 1.0)
            shown = {"mean": (found.restricted_mean95, mean), "per solved": (found.per_solved95, mean / share)}
            shown["share"] = (found.share95, share)
            if n > 5:
                low, high = (np.inf if end is None else end for end in found.median95)
                shown["median"] = ((low if low < np.inf else 1.0, high), median if median < 1 else np.inf)
            for measure, ((low, high), truth) in shown.items():
                if not np.isnan(low):
                    inside[measure].append(low - 1e-9 <= truth <= high + 1e-9)
        for measure, hits in inside.items():
            assert not hits or np.mean(hits) >= ENOUGH, (measure, n, np.mean(hits))


def test_intervals_of_censored_means_cover():
    """Runs that were pruned at random, before they had spent their budget."""
    rng = np.random.default_rng(4)
    truth = 0.7 * (1 - np.exp(-1 / 0.7))
    for n in (10, 16):
        inside = []
        for _ in range(200):
            times, lost = rng.exponential(0.7, n), np.where(rng.random(n) < 0.3, rng.random(n), 1.0)
            found = cv.time_to_convergence(np.minimum(times, lost), times < lost, 1.0)
            low, high = found.restricted_mean95
            inside.append(low <= truth <= high)
        assert np.mean(inside) >= ENOUGH, n


SIDES = {
    "alike": (lambda rng, n: rng.normal(0, 1, n), lambda rng, n: rng.normal(0, 1, n)),
    "better": (lambda rng, n: rng.normal(1, 1, n), lambda rng, n: rng.normal(0, 1, n)),
    "far better": (lambda rng, n: rng.normal(2, 1, n), lambda rng, n: rng.normal(0, 1, n)),
    "less steady": (lambda rng, n: rng.normal(1, 1, n), lambda rng, n: rng.normal(0, 5, n)),
    "failing": (failing(0.1), failing(0.4)),
    "on a grid": (lambda rng, n: np.round(rng.normal(2, 2, n)), lambda rng, n: np.round(rng.normal(0, 2, n))),
}


@pytest.mark.parametrize("name", SIDES)
def test_intervals_of_the_probability_of_improvement_cover(name):
    rng, (one, other) = np.random.default_rng(5), SIDES[name]
    x, y = one(rng, 1_000_000), other(rng, 1_000_000)
    truth = np.mean(x > y) + 0.5 * np.mean(x == y)
    for n in RUNS:
        ends = [cv.probability_of_improvement_interval(one(rng, n), other(rng, n), paired=False) for _ in range(300)]
        assert covered(*np.array(ends).T, truth) >= ENOUGH, n


@pytest.mark.parametrize(("gain", "noise"), [(0.3, 0.01), (0.0, 0.5), (1.0, 1.0), (4.0, 3.0)])
def test_intervals_of_the_probability_of_improvement_cover_where_seeds_are_shared(gain, noise):
    rng = np.random.default_rng(6)
    truth = scipy.stats.norm.cdf(gain / np.sqrt(2 * (1 + noise**2)))
    for n in RUNS:
        ends = []
        for _ in range(300):
            seeds = rng.normal(size=n)
            x, y = seeds + gain + noise * rng.normal(size=n), seeds + noise * rng.normal(size=n)
            ends.append(cv.probability_of_improvement_interval(x, y, paired=True))
        assert covered(*np.array(ends).T, truth) >= ENOUGH, n


def test_survival_bands_cover_with_and_without_groups():
    rng, alone, grouped = np.random.default_rng(7), [], []
    for _ in range(200):
        times = rng.exponential(1.0, 10)
        curve = cv.kaplan_meier(times, np.ones(10, bool))
        low, high = cv.survival_interval(times, np.ones(10, bool))
        at = int(np.searchsorted(curve.times, 0.7, side="right"))
        alone.append(low[at] <= np.exp(-0.7) <= high[at])
        # Ten trials of five seeds that are nearly alike: half of all trials are fast.
        speed = np.repeat(np.where(rng.random(10) < 0.5, 0.5, 1.5), 5) + 0.01 * rng.random(50)
        curve = cv.kaplan_meier(speed, np.ones(50, bool))
        low, high = cv.survival_interval(speed, np.ones(50, bool), groups=np.repeat(np.arange(10), 5), resamples=100)
        at = int(np.searchsorted(curve.times, 1.0, side="right"))
        grouped.append(low[at] <= 0.5 <= high[at])
    assert np.mean(alone) >= ENOUGH
    assert np.mean(grouped) >= ENOUGH


@pytest.mark.parametrize("share", [0.01, 0.035, 0.1, 0.3, 0.5])
def test_intervals_of_shares_cover_whatever_the_share(share):
    for n in RUNS:
        hits = np.arange(n + 1)
        ends = np.array([cv.share_interval(np.arange(n) < k) for k in hits])
        inside = (ends[:, 0] <= share) & (share <= ends[:, 1])
        assert scipy.stats.binom.pmf(hits, n, share)[inside].sum() >= 0.95
        assert ends[-1][0] == pytest.approx(scipy.stats.binomtest(n, n).proportion_ci(method="exact").low)


def test_quantile_intervals_are_between_runs_and_exact():
    assert np.isnan(cv.quantile_interval(range(35), 0.1)[0])
    assert not np.isnan(cv.quantile_interval(range(36), 0.1)[0])
    for n, quantile in ((36, 0.1), (64, 0.1), (6, 0.5), (40, 0.75)):
        low, high = cv.quantile_interval(np.arange(1, n + 1), quantile)
        below = scipy.stats.binom(n, quantile).cdf
        assert below(low - 1) <= 0.025 < below(low)
        assert 1 - below(high - 1) <= 0.025 < 1 - below(high - 2)


def test_runs_that_agree_and_single_runs_have_no_interval():
    for values in ([3.0], [3.0] * 8):
        assert np.isnan(cv.mean_interval(values)).all()
        assert np.isnan(cv.interquartile_mean_interval(values)).all()
        assert np.isnan(cv.time_to_convergence(values, [True] * len(values), 9.0).restricted_mean95).all()
    assert np.isnan(cv.probability_of_improvement_interval([1.0], [2.0, 3.0], paired=False)).all()
    assert np.isnan(cv.mean_interval([1.0, np.nan, 2.0])).all()


def test_the_interval_of_symmetric_runs_is_students():
    values = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) + 7
    expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval()
    low, high = cv.mean_interval(values)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-4)
    curves = np.stack([values, 2 * values, np.full(5, 1.0)], axis=1)
    low, high = cv.mean_interval(curves)
    assert low[:2] == pytest.approx([expected.low, 2 * expected.low], abs=1e-3)
    assert np.isnan(low[2])


def test_runs_of_which_none_or_all_converged_do_not_pass_for_certain():
    never = cv.time_to_convergence([10.0] * 4, [False] * 4, 10.0)
    assert (never.restricted_mean, never.per_solved, never.median) == (10.0, np.inf, None)
    most = cv.share_interval([False] * 4)[1]
    assert never.restricted_mean95 == pytest.approx((10 * (1 - most), 10.0))
    assert never.per_solved95 == pytest.approx((10 / most, np.inf))
    always = cv.time_to_convergence([4.0, 5.0, 4.5, 5.5, 4.0], [True] * 5, 10.0)
    least = cv.share_interval([True] * 5)[0]
    assert always.restricted_mean95[1] > always.restricted_mean * least + 10 * (1 - least)


def test_each_run_is_charged_its_own_end():
    found = cv.time_to_convergence([2.0, 7.0, 9.0], [True, False, False], [8.0, 7.0, 9.0])
    assert found.restricted_mean == pytest.approx(6.0)
    assert found.per_solved == pytest.approx(18.0)
