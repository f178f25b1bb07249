"""Statistics over seeds: intervals, robust means, censored times. Pure NumPy, on anybody's numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


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
    draws = np.stack([statistic(values[rng.integers(0, len(values), len(values))], axis=0) for _ in range(resamples)])
    tail = 100 * (1 - level) / 2
    return np.percentile(draws, tail, axis=0), np.percentile(draws, 100 - tail, axis=0)


def median_interval(
    values: Sequence[float | None], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float | None, float | None]:
    """Percentile bootstrap interval of the median, where None counts as 'later than all others'.

    An end that was not reached is None. Of an even number the upper of the middle two counts, and percentiles are
    draws, not means of two: half-way between a number and 'not reached' there is nothing.
    """
    numbers = np.array([np.inf if v is None else v for v in values], np.float64)
    rng = np.random.default_rng(seed)
    draws = np.sort(numbers[rng.integers(0, len(numbers), (resamples, len(numbers)))], axis=1)[:, len(numbers) // 2]
    tail = 100 * (1 - level) / 2
    low = float(np.percentile(draws, tail, method="lower"))
    high = float(np.percentile(draws, 100 - tail, method="higher"))
    return (low if np.isfinite(low) else None), (high if np.isfinite(high) else None)


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
