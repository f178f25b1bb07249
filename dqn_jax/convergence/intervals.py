"""95 % intervals over runs that cover: each was simulated at 5, 10, 16 and 64 runs (tests/test_intervals.py).

Runs (seeds) are the first axis. An end that nothing can be said about is NaN (None where times are lists with None):
fewer than two runs, runs that all agree (they show no spread, which is not to say that there is none), or too few runs
for a quantile. What no interval here can know is a kind of run that was not met: where 1 of 10 runs fails, 5 runs show
no failure in 59 of 100 experiments, and intervals of the mean return of those are about runs that do not fail. Means of
very long tails are covered less often than 95 times of 100: of 5 exponential values 92, of 5 and 16 lognormal ones of
sigma 1 88 and 92.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_TAIL = 0.025


def mean_interval(values: Any) -> tuple[Any, Any]:
    """Interval of the mean of `values` `[S, ...]` over runs: Student's t, and where they are skewed Hall's beyond it.

    Student's t alone covers 86 of 100 times where 3 of 64 runs fail, for its ends are as far from the mean on both
    sides. Hall's transformation of t undoes the skewness; the interval reaches as far as either.

    Reference: Hall 1992 (JRSS B 54:221).
    """
    values = np.asarray(values, np.float64)
    n, middle = len(values), values.mean(axis=0)
    if n < 2:
        return middle * np.nan, middle * np.nan
    return _skewed(middle, values.std(axis=0, ddof=1) / np.sqrt(n), values, n - 1)


def interquartile_mean_interval(values: Any) -> tuple[Any, Any]:
    """Interval of the interquartile mean of `values` `[S, ...]` over runs: as of a mean, the outer quarters winsorised.

    Covers 92 of 100 times where 5 runs are uniform, and 88 where runs take a few levels only (rounded to a standard
    deviation). None where the middle half and its neighbours agree.

    Reference: Tukey & McLaughlin 1963 (Sankhya A 25:331).
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=0)
    n, cut = len(ordered), len(ordered) // 4
    if cut == 0:
        return mean_interval(ordered)
    kept = n - 2 * cut
    inner = np.clip(ordered, ordered[cut], ordered[n - cut - 1])
    error = inner.std(axis=0, ddof=1) * np.sqrt((n - 1) / (kept * (kept - 1)))
    return _skewed(ordered[cut : n - cut].mean(axis=0), error, inner, kept - 1)


def _skewed(middle: Any, error: Any, values: np.ndarray, freedom: int) -> tuple[Any, Any]:
    """An estimate with its standard error, whose t is as skewed as that of the mean of `values` `[S, ...]`."""
    flat = np.ptp(values, axis=0) == 0
    spread = values - values.mean(axis=0)
    deviation = np.where(flat, 1.0, np.sqrt((spread**2).mean(axis=0)))
    skew = ((spread / deviation) ** 3).mean(axis=0) / np.sqrt(len(values))
    skew = np.where(np.abs(skew) < 1e-6, 1e-6, skew)  # the limit is t itself
    t = _student(freedom)
    low, high = (3 / skew * (np.cbrt(1 + skew * (z - skew / 6)) - 1) for z in (t, -t))
    error = np.where(flat, np.nan, error)
    return middle - error * np.maximum(low, t), middle - error * np.minimum(high, -t)


def quantile_interval(values: Any, quantile: float) -> tuple[float, float]:
    """Interval of a quantile over runs `[S]` between two of them; an end for which there are too few runs is NaN.

    Exact whatever the distribution: the number of runs below a quantile is binomial. A 10 % quantile has a lower end
    from 36 runs on, a median both ends from 6 on. Values may be infinite.
    """
    from scipy.special import bdtr

    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    at_most = bdtr(np.arange(n), n, quantile)  # P(at most k runs lie below it)
    low = int(np.sum(at_most <= _TAIL))  # so many of the lowest runs are too low
    high = int(np.sum(1 - at_most <= _TAIL))
    return (
        float(ordered[low - 1]) if low else np.nan,
        float(ordered[n - high]) if high else np.nan,
    )


def share_interval(flags: Any) -> tuple[float, float]:
    """Interval for the share of True in `flags` `[S]` (or for the mean of shares): 20 of 20 is [83 %, 100 %].

    Never covers less than it says. Reference: Clopper & Pearson 1934 (Biometrika 26:404).
    """
    flags = np.asarray(flags, np.float64)
    low, high = interval_of_share(flags.mean(), len(flags))
    return float(low), float(high)


def interval_of_share(share: Any, runs: Any) -> tuple[np.ndarray, np.ndarray]:
    """The same of shares and numbers of runs that need not be whole: as many as would leave the share's variance.

    Reference: Korn & Graubard 1998 (Survey Methodology 24:193).
    """
    from scipy.special import betaincinv

    runs = np.asarray(runs, np.float64)
    hits = np.clip(np.asarray(share, np.float64), 0.0, 1.0) * runs
    none, all_ = hits < 1e-9, hits > runs - 1e-9
    low = betaincinv(np.where(none, 1.0, hits), runs - hits + 1, _TAIL)
    high = betaincinv(hits + 1, np.where(all_, 1.0, runs - hits), 1 - _TAIL)
    return np.where(none, 0.0, low), np.where(all_, 1.0, high)


def effective_runs(share: Any, variance: Any, freedom: Any, most: Any) -> np.ndarray:
    """How many independent runs would leave a share this variance, at most `most`; `freedom` is the variance's own."""
    share, variance = np.asarray(share, np.float64), np.asarray(variance, np.float64)
    certain = variance <= 0
    runs = share * (1 - share) / np.where(certain, 1.0, variance) * (_student(np.inf) / _student(freedom)) ** 2
    return np.where(certain, most, np.clip(runs, 0.5, most))


def probability_of_improvement_interval(x: Any, y: Any, *, paired: bool) -> tuple[float, float]:
    """Interval of `probability_of_improvement`: that of a share, of as many runs as would leave its variance.

    The variance is Brunner and Munzel's, which assumes nothing of the distributions; where all runs of one side are
    above all of the other, the interval is that of a share seen in all of min(S, R) runs.

    Args:
      x: `[S, tasks]` or `[S]`.
      y: likewise; with `paired`, row i used the same seed as row i of `x`.
      paired: whether seeds are shared.

    Raises:
      ValueError: if they are to be paired and are not equally many.

    References: Brunner & Munzel 2000 (Biometrical Journal 42:17).
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if paired and len(x) != len(y):
        raise ValueError(f"paired runs come in pairs; there are {len(x)} and {len(y)}")
    above = pairwise(x, y)
    share, fewest = float(above.mean()), min(above.shape)
    if fewest < 2:
        return np.nan, np.nan
    own, other = above.mean(axis=1), above.mean(axis=0)
    if paired:
        variance, freedom = float(np.var(own + other, ddof=1)) / fewest, fewest - 1.0
    else:
        parts = np.array([np.var(side, ddof=1) / len(side) for side in (own, other)])
        variance = float(parts.sum())
        down = float(np.sum(parts**2 / (np.array(above.shape) - 1)))
        freedom = variance**2 / down if down else 1.0
    certain = variance == 0 or share in (0.0, 1.0)
    runs = fewest if certain else effective_runs(share, variance, freedom, sum(above.shape))
    low, high = interval_of_share(share, runs)
    return float(low), float(high)


def pairwise(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether each run of X is above each of Y (a tie is a half), `[S, R]`, averaged over tasks where there are any."""
    x, y = (values[:, None] if values.ndim == 1 else values for values in (x, y))
    above = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    return np.asarray(above.mean(axis=-1))


def cost_intervals(
    costs: np.ndarray, solved: np.ndarray, ends: np.ndarray
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Intervals of the mean cost of a run, and of the cost for each solved run.

    Both are made of two numbers that are estimated apart, the share of runs that solve it and the mean cost of those:
    `share * cost + (1 - share) * end` and `cost + (1 - share) / share * end`. Their intervals are put together by the
    variances recovered from their ends (MOVER), so that 5 of 5 solved do not pass for certainty that all would be.

    Args:
      costs: `[S]`, what each run took until it was solved, or in all.
      solved: `[S]`, bool.
      ends: `[S]`, what each run takes at most: its own cost of the whole budget.

    Returns:
      (low, high) of both, NaN with one run or where all are solved at the same cost; the cost for each solved run may
      be infinite above, as none may be solved.

    Reference: Zou & Donner 2008 (Statistics in Medicine 27:1693).
    """
    n, several = len(costs), int(solved.sum()) > 1
    unknown = (np.nan, np.nan)
    if n < 2 or (solved.all() and np.ptp(costs) == 0):
        return unknown, unknown
    share, (least, most) = float(solved.mean()), share_interval(solved)
    end = float(ends[~solved].mean() if not solved.all() else ends.mean())
    if share == 0:
        return ((1 - most) * end, end), (end / most, np.inf)
    cost = float(costs[solved].mean())
    low, high = mean_interval(costs[solved]) if several else (0.0, end)
    low, high = (cost, cost) if np.isnan(low) else (max(float(low), 0.0), min(float(high), end))
    high = max(high, cost)

    def both(share: float, cost: float) -> np.ndarray:
        return np.array([share * cost + (1 - share) * end, cost + (1 - share) / share * end])

    middle = both(share, cost)
    lower = middle - np.hypot(middle - both(most, cost), middle - both(share, low))
    upper = middle + np.hypot(both(max(least, 1e-300), cost) - middle, both(share, high) - middle)
    highest = max(float(ends.max()), float(costs.max()))
    return (max(float(lower[0]), 0.0), min(float(upper[0]), highest)), (
        max(float(lower[1]), 0.0),
        float(upper[1]) if least > 0 else np.inf,
    )


def _student(freedom: Any) -> Any:
    """Half of a 95 % interval in standard errors, by Student's t with so many degrees of freedom."""
    from scipy.special import ndtri, stdtrit

    freedom = np.asarray(freedom, np.float64)
    return np.where(np.isinf(freedom), ndtri(1 - _TAIL), stdtrit(np.minimum(freedom, 1e9), 1 - _TAIL))


def reached(value: float) -> float | None:
    """A moment, or None where it is not known or infinite."""
    return float(value) if np.isfinite(value) else None


def as_times(values: Sequence[float | None]) -> np.ndarray:
    """Moments as numbers; None is later than all others."""
    return np.array([np.inf if value is None else value for value in values], np.float64)
