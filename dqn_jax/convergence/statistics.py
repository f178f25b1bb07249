"""Statistics over seeds: intervals, robust means, censored times. Pure NumPy, on anybody's numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

_BLOCK = 2_000_000  # numbers held at once while resampling


def median_with_censored(values: Sequence[float | None]) -> float | None:
    """Median where None counts as 'later than all others'; None if the median itself was not reached.

    For an even number it is the mean of the middle two, and None if the upper of them was not reached.
    """
    ordered = np.sort(np.array([np.inf if v is None else v for v in values], np.float64))
    if len(ordered) == 0:
        return None
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return float(middle) if np.isfinite(middle) else None


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[..., Any] = np.mean,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Percentile bootstrap interval of `statistic` over the first axis (seeds) of `values` `[S, ...]`.

    `statistic` takes an `axis` argument, as NumPy's do. Reference: Efron 1979.
    """
    values = np.asarray(values)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // max(values.size, 1))  # resamples at a time, so that whole curves fit in memory
    draws = [
        statistic(values[rng.integers(0, len(values), (min(block, resamples - start), len(values)))], axis=1)
        for start in range(0, resamples, block)
    ]
    return _percentiles(np.concatenate(draws), level)


def _percentiles(draws: Any, level: float) -> tuple[Any, Any]:
    """The middle `level` of draws `[resamples, ...]`."""
    tail = 100 * (1 - level) / 2
    return np.percentile(draws, tail, axis=0), np.percentile(draws, 100 - tail, axis=0)


def _time_percentiles(draws: Any, level: float) -> tuple[float | None, float | None]:
    """The same of moments, infinite where not reached (then None): half-way between the two there is nothing."""
    tail = 100 * (1 - level) / 2
    low = float(np.percentile(draws, tail, method="lower"))
    high = float(np.percentile(draws, 100 - tail, method="higher"))
    return (low if np.isfinite(low) else None), (high if np.isfinite(high) else None)


def median_interval(
    values: Sequence[float | None], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float | None, float | None]:
    """Percentile bootstrap interval of the median, where None counts as 'later than all others'.

    An end that was not reached is None. Of an even number the upper of the middle two counts.
    """
    numbers = np.array([np.inf if v is None else v for v in values], np.float64)
    rng = np.random.default_rng(seed)
    draws = np.sort(numbers[rng.integers(0, len(numbers), (resamples, len(numbers)))], axis=1)[:, len(numbers) // 2]
    return _time_percentiles(draws, level)


def share_interval(flags: Any, *, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval (95 %) for the share of True in `flags` `[S]`.

    Resampling seeds that all agree would give an interval of no width; 20 of 20 is [84 %, 100 %]. Reference:
    Wilson 1927 (JASA 22:209).
    """
    flags = np.asarray(flags, np.float64)
    n, share = len(flags), float(flags.mean())
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)))
    return max(0.0, middle - half), min(1.0, middle + half)


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
        """Share not converged after `time`."""
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
    times: Any, converged: Any, *, groups: Any = None, z: float = 1.96, resamples: int = 300, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise 95 % interval of the survival curve: low and high `[1 + K]`, before and just after each of its times.

    Wilson's interval for the number of runs that would leave Greenwood's variance; without censoring it is
    `1 - share_interval`, so it has a width even where all runs agree. Runs in one group (the seeds of one
    configuration) are alike: given `groups`, whole groups are resampled instead.

    Args:
      times: `[S]`, as in `kaplan_meier`.
      converged: `[S]`, bool.
      groups: `[S]`, which group each run belongs to (default: each run on its own).
      z: half-width in standard errors.
      resamples: bootstrap draws, with groups.
      seed: of the draws.

    Reference: Rothman 1978 (J Chronic Dis 31:557).
    """
    times, converged = np.asarray(times, np.float64), np.asarray(converged, bool)
    curve = kaplan_meier(times, converged)
    if groups is not None:
        names, member = np.unique(np.asarray(groups), return_inverse=True)
        weights = _bootstrap_weights(len(names), resamples, seed)[:, member]
        draws = np.pad(_resampled_survival(times, converged, weights)[1], ((0, 0), (1, 0)), constant_values=1.0)
        return _percentiles(draws, 0.95)
    shares, counts, greenwood = [1.0], [float(len(times))], 0.0
    for share, at_risk, events in zip(curve.surviving, curve.at_risk, curve.events, strict=True):
        if share > 0:
            greenwood += events / (at_risk * (at_risk - events))
            counts.append((1 - share) / (share * greenwood))
        else:
            counts.append(counts[-1])  # nobody is left, and the variance formula is empty
        shares.append(float(share))
    share, n = np.array(shares), np.array(counts)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def _bootstrap_weights(count: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of `count` units was drawn, `[resamples, count]`."""
    draws = np.random.default_rng(seed).integers(0, count, (resamples, count))
    return np.stack([np.bincount(draw, minlength=count) for draw in draws]).astype(np.float64)


def _resampled_survival(times: np.ndarray, converged: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kaplan-Meier curves of runs counted `weights` `[R, S]` times: the moments `[K]` and the curves there `[R, K]`."""
    moments = np.unique(times[converged])
    at_risk = weights @ (times[:, None] >= moments[None])
    events = weights @ ((times[:, None] == moments[None]) & converged[:, None])
    return moments, np.cumprod(1.0 - events / np.maximum(at_risk, 1), axis=1)


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
    """How fast runs converge, and how sure that is; intervals are (low, high)."""

    runs: int
    share: float  # converged when last seen
    share95: tuple[float, float]  # Wilson
    median: float | None  # Kaplan-Meier; None: not reached
    median95: tuple[float | None, float | None]
    restricted_mean: float
    restricted_mean95: tuple[float, float]
    horizon: float


def time_to_convergence(
    times: Any, converged: Any, horizon: float, *, resamples: int = 1000, seed: int = 0
) -> TimeToConvergence:
    """Censored time to convergence of S runs, with percentile bootstrap intervals over runs.

    Args:
      times: `[S]`, as in `kaplan_meier`.
      converged: `[S]`, bool.
      horizon: where the restricted mean is cut, usually the budget.
      resamples: bootstrap draws.
      seed: of the draws.
    """
    times, converged = np.asarray(times, np.float64), np.asarray(converged, bool)
    curve = kaplan_meier(times, converged)
    moments, draws = _resampled_survival(times, converged, _bootstrap_weights(len(times), resamples, seed))
    half = np.pad(draws <= 0.5 + 1e-12, ((0, 0), (0, 1)), constant_values=True)
    medians = np.r_[moments, np.inf][np.argmax(half, axis=1)]
    inside = moments < horizon
    edges = np.r_[0.0, moments[inside], horizon]
    means = np.pad(draws[:, inside], ((0, 0), (1, 0)), constant_values=1.0) @ np.diff(edges)
    return TimeToConvergence(
        runs=len(times),
        share=float(converged.mean()),
        share95=share_interval(converged),
        median=median_time(curve),
        median95=_time_percentiles(medians, 0.95),
        restricted_mean=restricted_mean(curve, horizon),
        restricted_mean95=_percentiles(means, 0.95),
        horizon=horizon,
    )


def area_under_curve(x: Any, y: Any) -> Any:
    """Time-averaged value of curves: the trapezoid area of `y` `[..., C]` over `x` `[C]`, divided by its width."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.trapezoid(y, x, axis=-1) / (x[-1] - x[0])


def stratified_bootstrap(
    scores: Any, statistic: Callable[[np.ndarray], Any], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[Any, Any]:
    """Percentile interval of `statistic` over tables of scores `[S, tasks]`, runs resampled within each task.

    Reference: Agarwal et al. 2021 (arXiv 2108.13264), section 4.1.
    """
    scores = np.asarray(scores, np.float64)
    rng = np.random.default_rng(seed)
    tasks = np.arange(scores.shape[1])
    draws = [statistic(scores[rng.integers(0, len(scores), scores.shape), tasks]) for _ in range(resamples)]
    return _percentiles(draws, level)


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
    x, y = (np.asarray(v, np.float64) for v in (x, y))
    x, y = (v[:, None] if v.ndim == 1 else v for v in (x, y))
    above = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    return float(above.mean())


def probability_of_improvement_interval(
    x: Any, y: Any, *, paired: bool, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of `probability_of_improvement`.

    Args:
      x: `[S]` or `[S, tasks]`.
      y: likewise; with `paired`, row i used the same seed as row i of `x`, and the two are drawn together.
      paired: whether seeds are shared.
      level: of the interval.
      resamples: bootstrap draws.
      seed: of the draws.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if paired and len(x) != len(y):
        raise ValueError(f"paired runs come in pairs; there are {len(x)} and {len(y)}")
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        i = rng.integers(0, len(x), len(x))
        j = i if paired else rng.integers(0, len(y), len(y))
        draws.append(probability_of_improvement(x[i], y[j]))
    return _percentiles(draws, level)


class Sensitivity(NamedTuple):
    """How much a method gains from tuning in every environment over one setting for all."""

    per_environment: float  # mean over environments of the best setting's score there
    across: float  # best mean over environments of any single setting
    sensitivity: float  # the difference


def sensitivity(scores: Any) -> Sensitivity:
    """Hyperparameter sensitivity of normalised scores `[settings, environments]`.

    Reference: Adkins, Bowling & White 2024, "A Method for Evaluating Hyperparameter Sensitivity in Reinforcement
    Learning" (NeurIPS), section 3.
    """
    scores = np.asarray(scores, np.float64)
    best_each, best_all = float(scores.max(axis=0).mean()), float(scores.mean(axis=1).max())
    return Sensitivity(best_each, best_all, best_each - best_all)


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
