"""Statistics over seeds: robust means, censored times, comparisons. Pure NumPy, on anybody's numbers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dqn_jax.convergence.intervals import (
    as_times,
    cost_intervals,
    effective_runs,
    interval_of_share,
    mean_interval,
    pairwise,
    reached,
    share_interval,
)


def median_with_censored(values: Sequence[float | None]) -> float | None:
    """The first moment by which at least half are there, where None is later than all others; None if there is none.

    So for an even number it is the lower of the middle two, as `median_time` is of a survival curve.
    """
    ordered = np.sort(as_times(values))
    return reached(ordered[(len(ordered) - 1) // 2]) if len(ordered) else None


def median_interval(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """95 % interval of `median_with_censored`; exact. An end that was not reached is None.

    Of fewer than 6 values there is none (all 5 lie on one side of their median in 1 of 16 cases): both ends are None.
    """
    times = as_times(values)
    converged = np.isfinite(times)
    return _median_interval(np.where(converged, times, times[converged].max(initial=0.0) + 1), converged)


def _median_interval(times: np.ndarray, converged: np.ndarray) -> tuple[float | None, float | None]:
    """Where a half lies within the pointwise interval of the survival curve.

    Reference: Brookmeyer & Crowley 1982 (Biometrics 38:29).
    """
    moments = np.r_[0.0, kaplan_meier(times, converged).times]
    low, high = survival_interval(times, converged)
    if low[0] <= 0.5:
        return None, None  # too few runs
    first, last = (np.flatnonzero(band)[:1] for band in (low <= 0.5, high < 0.5))
    return (float(moments[first[0]]) if len(first) else None), (float(moments[last[0]]) if len(last) else None)


def interquartile_mean(values: np.ndarray, axis: int = 0) -> Any:
    """Mean of the middle half along `axis` (the 25 % trimmed mean), as in Agarwal et al. 2021 (arXiv 2108.13264)."""
    ordered = np.sort(np.asarray(values, np.float64), axis=axis)
    cut = ordered.shape[axis] // 4
    return np.take(ordered, range(cut, ordered.shape[axis] - cut), axis=axis).mean(axis=axis)


class Survival(NamedTuple):
    """Kaplan-Meier curve: the share that has not converged yet, as a step function of time."""

    times: np.ndarray  # [K], the moments at which at least one run converged, ascending
    surviving: np.ndarray  # [K], share not converged just after each
    at_risk: np.ndarray  # [K], runs still observed just before each
    events: np.ndarray  # [K], runs that converged at each

    def at(self, time: float) -> float:
        """The share of runs that have not converged after `time`."""
        index = int(np.searchsorted(self.times, time, side="right"))
        return float(self.surviving[index - 1]) if index else 1.0


def kaplan_meier(times: Any, converged: Any) -> Survival:
    """Survival curve of runs, some of which were last seen before they converged.

    Args:
      times: `[S]`, when each run converged, or how long it was observed if it did not.
      converged: `[S]`, bool; False is a censored run. One that leaves at the moment another converges was still at
        risk then.

    Raises:
      ValueError: if the lengths differ, or a time is negative or not finite.

    Reference: Kaplan & Meier 1958 (JASA 53:457), equation 2b.
    """
    times, converged = np.asarray(times, np.float64), np.asarray(converged, bool)
    if times.ndim != 1 or times.shape != converged.shape:
        raise ValueError(f"times {times.shape} and converged {converged.shape} must be two lists of one length")
    if not np.all(np.isfinite(times) & (times >= 0)):
        raise ValueError("times must be finite and not negative; give a censored run the time it was last seen at")
    moments = np.unique(times[converged])
    at_risk = np.sum(times[:, None] >= moments[None], axis=0)
    events = np.sum((times[:, None] == moments[None]) & converged[:, None], axis=0)
    return Survival(moments, np.cumprod(1.0 - events / np.maximum(at_risk, 1)), at_risk, events)


def survival_interval(
    times: Any, converged: Any, *, groups: Any = None, resamples: int = 300, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise 95 % interval of the survival curve: low and high `[1 + K]`, before and just after each of its times.

    `share_interval` of the number of runs that would leave Greenwood's variance: without censoring that is all of them.
    Runs in one group (the seeds of one configuration) are alike: given `groups`, the variance is that of whole groups,
    by resampling them.

    Args:
      times: `[S]`, as in `kaplan_meier`.
      converged: `[S]`, bool.
      groups: `[S]`, which group each run belongs to (default: each run on its own).
      resamples: bootstrap draws, with groups.
      seed: of the draws.

    Reference: Rothman 1978 (J Chronic Dis 31:557).
    """
    times, converged = np.asarray(times, np.float64), np.asarray(converged, bool)
    curve = kaplan_meier(times, converged)
    share = np.r_[1.0, curve.surviving]
    if groups is not None:
        names, member = np.unique(np.asarray(groups), return_inverse=True)
        draws = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
        weights = np.stack([np.bincount(draw, minlength=len(names)) for draw in draws]).astype(np.float64)[:, member]
        at_risk = weights @ (times[:, None] >= curve.times[None])
        events = weights @ ((times[:, None] == curve.times[None]) & converged[:, None])
        variance = np.r_[0.0, np.cumprod(1.0 - events / np.maximum(at_risk, 1), axis=1).var(axis=0)]
        runs = effective_runs(share, variance * len(names) / max(len(names) - 1, 1), max(len(names) - 1, 1), len(times))
        return interval_of_share(share, np.where(variance <= 0, len(names), runs))
    left = share[share > 0]  # where nobody is left the variance formula is empty; the number before it counts
    survivors = curve.at_risk[: len(left) - 1] - curve.events[: len(left) - 1]
    greenwood = np.cumsum(curve.events[: len(left) - 1] / (curve.at_risk[: len(left) - 1] * survivors))
    counts = np.r_[len(times), (1 - left[1:]) / (left[1:] * greenwood)]
    counts = np.r_[counts, np.full(len(share) - len(left), counts[-1])]
    return interval_of_share(share, counts)


def median_time(survival: Survival) -> float | None:
    """The first moment by which at least half have converged; None if the curve stays above a half."""
    reached = np.flatnonzero(survival.surviving <= 0.5 + 1e-12)
    return float(survival.times[reached[0]]) if len(reached) else None


def restricted_mean(survival: Survival, horizon: float) -> float:
    """Mean time to convergence, counting at most `horizon`: the area under the survival curve up to there.

    Unlike the median it uses every run, and unlike a mean it exists when some never converged.
    Reference: Royston & Parmar 2013 (BMC Med Res Methodol 13:152).
    """
    inside = survival.times < horizon
    edges = np.r_[0.0, survival.times[inside], horizon]
    return float(np.sum(np.diff(edges) * np.r_[1.0, survival.surviving[inside]]))


class TimeToConvergence(NamedTuple):
    """How fast runs converge, and how sure that is; 95 % intervals are (low, high), NaN where nothing can be said."""

    runs: int
    share: float  # converged when last seen
    share95: tuple[float, float]
    median: float | None  # Kaplan-Meier; None: not reached
    median95: tuple[float | None, float | None]  # None: not reached; both None: also with fewer than 6 runs
    restricted_mean: float  # what a run takes on average, counting its own end if it does not converge
    restricted_mean95: tuple[float, float]
    per_solved: float  # what all runs took, for each that converged; infinite if none did
    per_solved95: tuple[float, float]


def time_to_convergence(times: Any, converged: Any, horizon: Any) -> TimeToConvergence:
    """Censored time to convergence of S runs.

    A run that was seen to its end without converging took all of it. One that was lost from sight before (pruned) is
    censored there: then the mean is the area under the Kaplan-Meier curve, and its interval that of the mean of its
    pseudo-values, which says too little where few were seen to their end; the cost for each solved run counts what they
    took, and has no interval.

    Args:
      times: `[S]`, as in `kaplan_meier`.
      converged: `[S]`, bool.
      horizon: the end, usually the budget: of all runs, or `[S]`, of each its own.

    Reference: Andersen, Hansen & Klein 2004 (Lifetime Data Analysis 10:335) for pseudo-values.
    """
    times, converged = np.asarray(times, np.float64), np.asarray(converged, bool)
    ends = np.broadcast_to(np.asarray(horizon, np.float64), times.shape)
    costs, solved = np.minimum(times, ends), converged & (times <= ends)
    watched = solved | (times >= ends)
    per_solved = float(costs.sum() / solved.sum()) if solved.any() else np.inf
    if watched.all():
        mean = float(costs.mean())
        mean95, per_solved95 = cost_intervals(costs, solved, ends)
    else:
        furthest = float(ends.max())
        mean = restricted_mean(kaplan_meier(costs, watched), furthest)
        others = [np.arange(len(costs)) != i for i in range(len(costs))]
        without = [restricted_mean(kaplan_meier(costs[own], watched[own]), furthest) for own in others]
        low, high = mean_interval(len(costs) * mean - (len(costs) - 1) * np.array(without))
        mean95, per_solved95 = (max(float(low), 0.0), min(float(high), furthest)), (np.nan, np.nan)
    return TimeToConvergence(
        runs=len(times),
        share=float(converged.mean()),
        share95=share_interval(converged),
        median=median_time(kaplan_meier(times, converged)),
        median95=_median_interval(times, converged),
        restricted_mean=mean,
        restricted_mean95=mean95,
        per_solved=per_solved,
        per_solved95=per_solved95,
    )


def area_under_curve(x: Any, y: Any) -> Any:
    """Time-averaged value of curves: the trapezoid area of `y` `[..., C]` over `x` `[C]`, divided by its width."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.trapezoid(y, x, axis=-1) / (x[-1] - x[0])


def performance_profile(scores: Any, thresholds: Any) -> np.ndarray:
    """Share of runs (over all tasks) that score above each threshold, `[T]`, of `scores` `[S, tasks]`.

    Reference: Agarwal et al. 2021 (arXiv 2108.13264), equation 1.
    """
    scores, thresholds = np.asarray(scores, np.float64), np.asarray(thresholds, np.float64)
    return np.mean(scores[..., None] > thresholds, axis=tuple(range(scores.ndim)))


def probability_of_improvement(x: Any, y: Any) -> float:
    """Probability that a run of X scores above one of Y on a random task; ties count half.

    Args:
      x: `[S, tasks]` or `[S]`.
      y: `[R, tasks]` or `[R]`.

    Reference: Agarwal et al. 2021 (arXiv 2108.13264), section 4.3, equation 2: the Mann-Whitney statistic.
    """
    return float(pairwise(np.asarray(x, np.float64), np.asarray(y, np.float64)).mean())


class Dimensionality(NamedTuple):
    """How many hyperparameters must be tuned in every environment, and which."""

    dimensionality: int  # the fewest that reach the wanted share of the fully tuned score
    scores: tuple[float, ...]  # mean score with the best 0, 1, ..., H of them tuned in every environment
    tuned: tuple[tuple[int, ...], ...]  # which (columns), for each of these


def effective_dimensionality(
    settings: Sequence[Sequence[Any]], scores: Any, *, default: int | None = None, share: float = 0.95
) -> Dimensionality:
    """Effective hyperparameter dimensionality of N settings of H hyperparameters.

    A hyperparameter that is not tuned keeps its default; those that are take the best of the tried values in each
    environment. So the table should be a grid: in a random sample nothing shares its values with the default.

    Args:
      settings: `[N, H]`, the values tried.
      scores: `[N, environments]`, normalised, larger is better, not negative.
      default: row of the default setting (None: the one with the best mean over environments, as in the paper).
      share: of the fully tuned score.

    Raises:
      ValueError: if a score is negative or not finite.

    Reference: Adkins, Bowling & White 2024, "A Method for Evaluating Hyperparameter Sensitivity in Reinforcement
    Learning" (NeurIPS), section 5.
    """
    scores = np.asarray(scores, np.float64)
    if not np.all(np.isfinite(scores) & (scores >= 0)):
        raise ValueError("scores must be finite and not negative; normalise them first")
    base = settings[int(scores.mean(axis=1).argmax()) if default is None else default]
    equal = np.array([[value == kept for value, kept in zip(row, base, strict=True)] for row in settings])  # [N, H]
    dimensions = range(equal.shape[1])
    best: list[tuple[float, tuple[int, ...]]] = []
    for count in range(equal.shape[1] + 1):
        options = []
        for free in itertools.combinations(dimensions, count):
            kept = equal[:, [i for i in dimensions if i not in free]].all(axis=1)
            options.append((float(scores[kept].max(axis=0).mean()), free))
        best.append(max(options, key=lambda option: option[0]))
    means, tuned = zip(*best, strict=True)
    enough = next(count for count, mean in enumerate(means) if mean >= share * means[-1])
    return Dimensionality(enough, means, tuned)
