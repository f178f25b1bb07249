"""Settling, and what holds after first passage: of whether each evaluation meets a threshold, of any origin.

A seed has *settled* at the first evaluation from which on every evaluation, to the end of the budget, meets the
threshold (or a stated share of them, that one included). First passage is not settling: the best of many noisy
evaluations passes early. Settling is known at the end of the budget only and depends on it: a longer budget has more
evaluations to fall at, so only equal budgets, read equally often, can be compared. Of few seeds the restricted mean
time to settle is covered less often than 95 times of 100 where most settle late and few early: 86 of 5 seeds, 92 of 16.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dqn_jax.convergence.intervals import mean_interval, share_interval

_MANY = 20  # seeds, from which on the interval of a mean covers


def settled_from(holds: Any, percent: float = 100.0) -> np.ndarray:
    """Index `[...]` of the evaluation at which each seed settled, -1 where it did not.

    Args:
      holds: `[..., C]`, bool, whether each of C evaluations meets the threshold; the last is the last of the budget.
      percent: of the evaluations from there on (it included) that must; with 100 the last one must.
    """
    holds = np.asarray(holds, bool)
    if holds.shape[-1] == 0:
        return np.full(holds.shape[:-1], -1)
    hits = np.cumsum(holds[..., ::-1], axis=-1)[..., ::-1]  # of this evaluation and those after it
    there = holds & (100 * hits >= percent * np.arange(holds.shape[-1], 0, -1))
    return np.where(there.any(axis=-1), there.argmax(axis=-1), -1)


def first_passage(holds: Any, window: int = 1) -> np.ndarray:
    """Index `[...]` of the last of the first `window` evaluations in a row that hold, of `holds` `[..., C]`; -1 where
    there are none."""
    holds = np.asarray(holds, bool)
    if holds.shape[-1] < window:
        return np.full(holds.shape[:-1], -1)
    runs = np.lib.stride_tricks.sliding_window_view(holds, window, axis=-1).all(axis=-1)
    return np.where(runs.any(axis=-1), runs.argmax(axis=-1) + window - 1, -1)


def held_after(holds: Any, window: int = 1) -> np.ndarray:
    """Share `[...]` of the evaluations after first passage that hold, of `holds` `[..., C]`.

    NaN where there was no passage, or nothing came after.
    """
    holds = np.asarray(holds, bool)
    passed = first_passage(holds, window)[..., None]
    later = (passed >= 0) & (np.arange(holds.shape[-1]) > passed)
    counts = later.sum(axis=-1)
    return np.where(counts > 0, (later & holds).sum(axis=-1) / np.maximum(counts, 1), np.nan)


def held_interval(shares: Any) -> tuple[float, float]:
    """95 % interval of the mean of shares `[S]`, one of each seed: from 20 seeds on that of a mean, within [0, 1].

    Few seeds that held show little of those that do not: where 1 of 5 collapses, the interval of a mean covers 71 of
    100 times with 5 seeds, 85 with 10, 94 with 16 and 96 with 20. With fewer it is that of a share, which is too wide
    rather than too narrow, as it is where all seeds agree: 8 of 8 that always held are [63 %, 100 %]. NaN of fewer than
    two.
    """
    shares = np.asarray(shares, np.float64)
    if len(shares) < 2:
        return np.nan, np.nan
    if len(shares) < _MANY or np.ptp(shares) == 0:
        return share_interval(shares)
    low, high = np.clip(mean_interval(shares), 0.0, 1.0)
    return float(low), float(high)
